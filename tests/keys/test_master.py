"""The master secret: generations, distinct children, and files that are altered, newer, half there or locked with another passphrase."""

import json

import pytest

from modelward.core.errors import FormatError, InputError, ModelwardError, UnsafeFileError, UsageError
from modelward.io import age
from modelward.io.age import Secret
from modelward.keys.master import Master, read_master, secret_digest, write_master


def test_a_hundred_users_have_distinct_secrets_that_anybody_with_the_master_finds_again(tmp_path):
    master = Master.fresh()
    path = tmp_path / "master.json"
    write_master(path, master)
    again = read_master(path)
    places = [(f"user{i}", purpose, generation) for i in range(100) for purpose in ("zhang", "deepmarks") for generation in (1, 2)]
    master, again = master.rotated(), Master({1: bytes(32)})
    write_master(path, master, replace=True)
    again = read_master(path)
    secrets = {(u, p, g): master.secret(u, p, generation=g) for u, p, g in places}
    assert len(set(secrets.values())) == len(places)
    assert len({secret_digest(secret) for secret in secrets.values()}) == len(places)
    assert all(again.secret(u, p, generation=g) == secret for (u, p, g), secret in secrets.items())
    assert Master.fresh().secret("user0", "zhang", generation=1) not in secrets.values()
    assert len({master.shared(p, generation=g) for p in ("zhang", "deepmarks") for g in (1, 2)} | set(secrets.values())) == len(places) + 4
    with pytest.raises(UsageError, match="generations 1 to 2, not 3"):
        master.secret("ann", "zhang", generation=3)


def test_a_master_secret_is_private_shown_to_nobody_and_never_overwritten(tmp_path):
    master = Master.fresh()
    write_master(tmp_path / "m.json", master)
    assert (tmp_path / "m.json").stat().st_mode & 0o777 == 0o600
    secret = master.packed().decode().split('"1":"')[1][:64]
    assert secret not in repr(master) + str(master)
    with pytest.raises(UsageError, match="never overwritten"):
        write_master(tmp_path / "m.json", Master.fresh())
    with pytest.raises(InputError, match="modelward key new-master"):
        read_master(tmp_path / "none.json")


def test_no_altered_byte_is_accepted_and_no_sentence_tells_the_secret(tmp_path):
    raw = Master.fresh().packed()
    secret = raw.decode().split('"1":"')[1][:64]
    path = tmp_path / "m.json"
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(ModelwardError) as found:
            read_master(path)
        assert secret[:16] not in str(found.value)
    for size in (0, 1, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:size])
        with pytest.raises(FormatError):
            read_master(path)


def test_a_newer_master_says_so(tmp_path):
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"schema": "modelward/master", "version": 2}))
    with pytest.raises(FormatError, match="newer modelward"):
        read_master(path)
    path.write_text(json.dumps(json.loads(Master.fresh().packed()), indent=1))
    with pytest.raises(UnsafeFileError, match="altered"):
        read_master(path)


def test_a_wrong_passphrase_and_half_a_file_are_told_alike_after_the_same_work(tmp_path, quick, monkeypatch):
    whole, half = tmp_path / "master.age", tmp_path / "half" / "master.age"
    half.parent.mkdir()
    data = quick(Master.fresh().packed(), "right")
    whole.write_bytes(data)
    half.write_bytes(data[:-40])
    assert read_master(whole, passphrase=Secret("right")).generation == 1
    told, tried, decrypt = {}, [], age.pyrage.passphrase.decrypt

    def derived(data, words):
        try:
            return decrypt(data, words)
        except age.pyrage.DecryptError as error:
            tried.extend([(len(data), words)] if "xcessive work" not in str(error) else [])  # a busy machine is asked again
            raise

    monkeypatch.setattr(age.pyrage.passphrase, "decrypt", derived)
    for path, words in ((whole, "wrong"), (half, "right")):
        with pytest.raises(FormatError) as found:
            read_master(path, passphrase=Secret(words))
        told[words] = str(found.value)
    assert tried == [(len(data), "wrong"), (len(data) - 40, "right")]  # one derivation each, over all that is there
    assert told["wrong"] == told["right"] == "master.age cannot be opened: the passphrase is wrong or the file is damaged"
    with pytest.raises(UsageError, match="is encrypted"):
        read_master(whole)
