"""Signed evidence: a DSSE envelope (Dead Simple Signing Envelope, version 1) with one Ed25519 signature, and the keys that sign it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from modelward.core.canonical import canonical_json
from modelward.core.errors import FormatError, UnsafeFileError, UsageError
from modelward.io.age import Secret, decrypt, encrypt, is_encrypted
from modelward.io.atomic import write_bytes
from modelward.io.files import read_bytes

PAYLOAD_TYPE = "application/vnd.modelward.evidence+json"
CAP = 256 * 2**20
PEM_CAP = 64 * 1024
_PREFIX = "ed25519:"


class SigningKey:
    """An Ed25519 key that signs; only its public half is ever shown.

    Examples
    --------
    >>> key = SigningKey.fresh()
    >>> open_envelope(seal(b"{}", key))[0], repr(key).endswith("***)")
    (b'{}', True)
    """

    __slots__ = ("_key",)

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def fresh(cls) -> SigningKey:
        """Return a new key of the operating system's random numbers."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def read(cls, path: Path | str, *, passphrase: Secret | None = None) -> SigningKey:
        """Read a key from a PEM file, encrypted with age or not.

        Raises
        ------
        FormatError
            when it holds no Ed25519 private key, or the passphrase is wrong; the sentence repeats nothing of the file.
        UsageError
            when it is encrypted and no passphrase was given.
        """
        name = Path(path).name
        data = read_bytes(path, cap=PEM_CAP)
        if is_encrypted(data):
            data = decrypt(data, passphrase=passphrase, name=name)
        try:
            found = load_pem_private_key(data, None)
        except Exception:  # noqa: BLE001  # OpenSSL's own errors are of many kinds, and may repeat the file
            found = None
        if not isinstance(found, Ed25519PrivateKey):
            message = f"{name} holds no Ed25519 signing key; make one with: modelward evidence keygen --out {name}"
            raise FormatError(message)
        return cls(found)

    def write(self, path: Path | str, *, passphrase: Secret | None = None) -> None:
        """Write the key as PEM (mode 0600), inside age when a passphrase is given; an existing file is never overwritten."""
        if Path(path).exists():
            message = f"{path} exists, and a signing key is never overwritten; pass another name"
            raise UsageError(message)
        data = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_bytes(path, data if passphrase is None else encrypt(data, passphrase=passphrase), mode=0o600)

    @property
    def public(self) -> bytes:
        """The 32 bytes of the public half."""
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def public_pem(self) -> bytes:
        """The public half as a PEM file: what those who should trust the signature are given."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, message: bytes) -> bytes:
        """Return the signature (64 bytes)."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({fingerprint(self.public)}, ***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signing key is never pickled")


def fingerprint(public: bytes) -> str:
    """Return the name of a public key: its 32 bytes in hex.

    >>> fingerprint(bytes(32))[:20]
    'ed25519:000000000000'
    """
    return _PREFIX + public.hex()


def read_public(path: Path | str) -> bytes:
    """Return the 32 bytes of the Ed25519 public key in a PEM file; raises `FormatError` for anything else."""
    try:
        found = load_pem_public_key(read_bytes(path, cap=PEM_CAP))
    except Exception as error:
        if isinstance(error, FormatError):
            raise
        found = None
    if not isinstance(found, Ed25519PublicKey):
        message = f"{Path(path).name} holds no Ed25519 public key in PEM form"
        raise FormatError(message)
    return found.public_bytes(Encoding.Raw, PublicFormat.Raw)


def pae(payload: bytes, kind: str = PAYLOAD_TYPE) -> bytes:
    """Return what DSSE signs: type and payload with their lengths, so that neither can be taken for a part of the other.

    >>> pae(b"hello world", "http://example.com/HelloWorld")
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    return b"DSSEv1 %d %s %d %s" % (len(kind.encode()), kind.encode(), len(payload), payload)


def seal(payload: bytes, key: SigningKey) -> bytes:
    """Return a signed envelope around ``payload``: canonical JSON, so that there is one spelling of it and no other."""
    return _spelt(payload, fingerprint(key.public), key.sign(pae(payload)))


def _spelt(payload: bytes, keyid: str, signature: bytes) -> bytes:
    """Return the one spelling of an envelope."""
    return canonical_json({
        "payload": base64.b64encode(payload).decode(), "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": keyid, "sig": base64.b64encode(signature).decode()}],
    })  # fmt: skip


def open_envelope(data: bytes, *, trusted: bytes | None = None, name: str = "the bundle") -> tuple[bytes, bytes]:
    """Return (payload, public key of the signer) once the signature holds.

    Parameters
    ----------
    trusted
        the 32 bytes of the only public key that is believed; ``None`` believes whoever signed, which proves that nothing was altered since, and
        not by whom it was made.

    Raises
    ------
    FormatError
        when it is no envelope of ours.
    UnsafeFileError
        when anything was altered, or it is signed by another key than the trusted one.
    """
    payload, public, signature = _parsed(data, name)
    if _spelt(payload, fingerprint(public), signature) != data:
        message = f"{name} was altered: it is not spelt as it was signed"
        raise UnsafeFileError(message)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, pae(payload))
    except (InvalidSignature, ValueError) as error:
        message = f"{name} was altered, or was not signed by the key it names: its signature does not hold"
        raise UnsafeFileError(message) from error
    if trusted is not None and public != trusted:
        message = f"{name} was signed by {fingerprint(public)[:24]}..., not by the trusted key {fingerprint(trusted)[:24]}..."
        raise UnsafeFileError(message)
    return payload, public


def _parsed(data: bytes, name: str) -> tuple[bytes, bytes, bytes]:
    """Return (payload, public key, signature) of an envelope."""
    try:
        found: Any = json.loads(data)
        (signature,) = found["signatures"]
        keyid = str(signature["keyid"])
        if found["payloadType"] != PAYLOAD_TYPE or not keyid.startswith(_PREFIX) or len(keyid) != len(_PREFIX) + 64:
            raise ValueError(keyid)  # noqa: TRY301  # said in one sentence below
        public = bytes.fromhex(keyid.removeprefix(_PREFIX))
        return base64.b64decode(found["payload"], validate=True), public, base64.b64decode(signature["sig"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"{name} is no evidence bundle of modelward, or it is damaged"
        raise FormatError(message) from error
