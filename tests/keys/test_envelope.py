"""The envelope: every bit counts, and only the trusted key is believed."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from modelward.core.errors import FormatError, ModelwardError, UnsafeFileError, UsageError
from modelward.io.age import Secret
from modelward.keys.evidence import PAYLOAD_TYPE, SigningKey, fingerprint, open_envelope, pae, read_public, seal

KEY = SigningKey.fresh()
PAYLOAD = b'{"a":1}'


@given(st.binary(max_size=200))
def test_what_was_sealed_comes_out(payload):
    assert open_envelope(seal(payload, KEY)) == (payload, KEY.public)
    assert open_envelope(seal(payload, KEY), trusted=KEY.public)[0] == payload


def test_no_flipped_bit_is_accepted():
    whole = seal(PAYLOAD, KEY)
    for trusted in (None, KEY.public):
        for bit in range(8 * len(whole)):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(ModelwardError):
                open_envelope(bytes(changed), trusted=trusted)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: {**d, "extra": 1}, lambda d: {**d, "signatures": d["signatures"] * 2}, lambda d: {**d, "signatures": []},
        lambda d: {**d, "payloadType": "application/json"}, lambda d: {**d, "payload": d["payload"] + "\n"},
        lambda d: {**d, "payload": base64.b64encode(b'{"a":2}').decode()},
        lambda d: {**d, "signatures": [{**d["signatures"][0], "keyid": fingerprint(SigningKey.fresh().public)}]},
        lambda d: {**d, "signatures": [{**d["signatures"][0], "keyid": "ed25519:" + d["signatures"][0]["keyid"][8:].upper()}]},
        lambda d: {**d, "signatures": [{**d["signatures"][0], "keyid": fingerprint(b"\xff" * 32)}]},
        lambda d: {**d, "signatures": [{**d["signatures"][0], "sig": ""}]}, lambda d: [d], lambda _: None,
    ],
)  # fmt: skip
def test_no_other_spelling_and_no_other_signature_is_accepted(change):
    document = json.loads(seal(PAYLOAD, KEY))
    data = json.dumps(change(document), separators=(",", ":"), sort_keys=True).encode()
    with pytest.raises(FormatError):  # an UnsafeFileError is one
        open_envelope(data)
    for text in (json.dumps(document, indent=1), json.dumps(document) + "\n"):
        with pytest.raises(UnsafeFileError, match="not spelt"):
            open_envelope(text.encode())


def test_only_the_trusted_key_is_believed():
    other = SigningKey.fresh()
    with pytest.raises(UnsafeFileError, match="not by the trusted key"):
        open_envelope(seal(PAYLOAD, other), trusted=KEY.public)
    assert open_envelope(seal(PAYLOAD, other))[1] == other.public


def test_the_type_is_signed():
    forged = json.loads(seal(PAYLOAD, KEY))
    forged["signatures"][0]["sig"] = base64.b64encode(KEY.sign(pae(PAYLOAD, "application/json"))).decode()
    with pytest.raises(UnsafeFileError, match="signature does not hold"):
        open_envelope(json.dumps(forged, separators=(",", ":")).encode())
    assert pae(PAYLOAD).startswith(b"DSSEv1 %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode()))


def test_signing_keys_are_private_and_never_overwritten(tmp_path, quick):
    path = tmp_path / "sign.pem"
    KEY.write(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.read(path).public == KEY.public
    with pytest.raises(UsageError, match="never overwritten"):
        KEY.write(path)
    (tmp_path / "public.pem").write_bytes(KEY.public_pem)
    assert read_public(tmp_path / "public.pem") == KEY.public
    (tmp_path / "sign.age").write_bytes(quick(path.read_bytes(), "words"))
    assert SigningKey.read(tmp_path / "sign.age", passphrase=Secret("words")).public == KEY.public
    with pytest.raises(FormatError, match="the passphrase is wrong or the file is damaged"):
        SigningKey.read(tmp_path / "sign.age", passphrase=Secret("other"))
    body = path.read_text().splitlines()[1]
    assert body not in repr(KEY)


def test_files_that_hold_no_key_are_one_sentence(tmp_path):
    other = ec.generate_private_key(ec.SECP256R1())
    pems = {
        "ec.pem": other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "ecpub.pem": other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "text.pem": b"hello", "none.pem": b"", "half.pem": KEY.public_pem[:40],
    }  # fmt: skip
    for name, data in pems.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FormatError, match="no Ed25519 signing key"):
            SigningKey.read(tmp_path / name)
        with pytest.raises(FormatError, match="no Ed25519 public key"):
            read_public(tmp_path / name)
