"""Users, commitments and evidence in the shell: exit codes, one object of JSON, and one sentence for what is wrong."""

import dataclasses
import datetime as dt
import json

import pytest
import torch

from modelward.cli.key_standing import lapsed
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.keys import grants, read_key, write_key
from modelward.models import save_model
from modelward.ownership.adi import Adi


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODELWARD_PASSPHRASE", raising=False)
    return tmp_path


@pytest.fixture
def users(folder, shell):
    assert shell("key", "new-master", "--out", "master.json").code == 0
    (folder / "users.csv").write_text("user,expires\nann,2020-01-01\nbob,\n")
    with pytest.MonkeyPatch.context() as then:
        then.setattr(grants, "today", lambda: dt.date(2019, 12, 31))
        assert shell("issue", "zhang", "--csv", "users.csv", "-q").code == 0
    return folder


@pytest.fixture(scope="module")
def marked(mlp_victim, hard) -> tuple[torch.nn.Module, Key]:
    """Return a marked model and its key."""
    method = Adi(count=20, epochs=40, batch=32, lr=0.05, per_batch=4)
    return method.protect(mlp_victim, hard.owner.take(slice(96)), secret=b"s" * 32, rng=generator(0))


@pytest.fixture
def owned(folder, marked):
    """Write a marked model and its key."""
    model, key = marked
    write_key(folder / "k.mw", key)
    save_model(folder / "m.safetensors", model)
    return folder


def test_users_are_issued_shown_and_revoked(users, shell):
    found = json.loads(shell("issue", "zhang", "--user", "cy", "--json").out)
    assert (found["schema"], found["users"][0]["number"]) == ("modelward/issued", 2)
    assert read_key(users / "keys" / "cy.zhang.mw").facts["grant"]["user"] == "cy"
    for user, state in (("ann", "expired"), ("bob", "active")):
        shown = json.loads(shell("key", "show", f"keys/{user}.zhang.mw", "--json").out)
        assert shown["grant"] == state
    assert shell("revoke", "bob").code == 0
    assert shell("revoke", "bob").code == 3
    assert json.loads(shell("key", "show", "keys/bob.zhang.mw", "--json").out)["grant"] == "revoked"
    assert "was revoked" in shell("issue", "zhang", "--user", "bob").err


def test_new_secrets_are_warned_of_until_there_is_a_backup(folder, shell):
    assert "has no copy" in shell("key", "new-master", "--out", "master.json").err
    assert "is new and has no copy" in shell("issue", "zhang", "--user", "ann").err
    assert "no copy" not in shell("issue", "zhang", "--user", "bob").err
    assert "never backed up" in shell("key", "show", "keys/ann.zhang.mw").err
    assert shell("key", "backup", "--out", "copies").code == 0
    assert "never backed up" not in shell("key", "show", "keys/ann.zhang.mw").err
    assert "overwrites nothing" in shell("key", "backup", "--out", "copies").err
    assert (folder / "copies" / "master.json").read_bytes() == (folder / "master.json").read_bytes()


def test_no_secret_is_printed(users, shell):
    secret = json.loads((users / "master.json").read_text())["generations"]["1"]
    own = bytes(read_key(users / "keys" / "ann.zhang.mw").tensors["secret"].tolist()).hex()
    told = [shell("key", "show", "keys/ann.zhang.mw"), shell("key", "rotate"), shell("issue", "zhang", "--user", "dan", "--json")]
    for found in told:
        assert found.code == 0
        assert all(word[:16] not in found.out + found.err for word in (secret, own))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("issue", "zhang"), 4, "say who gets a key"),
        (("issue", "zhang", "--user", "../x"), 4, "a name has"),
        (("issue", "zhang", "--user", "x", "--expires", "soon"), 4, "a day is written as"),
        (("issue", "zhang", "--user", "x", "--expires", "2020-01-01"), 4, "2020-01-01 is past"),
        (("issue", "zhang", "--csv", "users.csv"), 2, "users.csv, line 2: 2020-01-01 is past"),
        (("issue", "zhang", "--user", "ann"), 4, "has a grant for zhang already"),
        (("issue", "pgd", "--user", "x"), 4, "has no keys to issue"),
        (("issue", "zhang", "--user", "x", "--master", "none.json"), 2, "there is no master secret"),
        (("issue", "zhang", "--user", "x", "--set", "user=me"), 4, "is set for each user"),
        (("revoke", "eve"), 2, "there is no user 'eve'"),
        (("revoke", "ann", "--registry", "none.sqlite"), 2, "there is no registry"),
        (("revoke", "ann", "--registry", "users.csv"), 2, "damaged or no registry"),
        (("trace", "master.json", "--method", "zhang"), 3, "secrets alone"),
        (("trace", "master.json", "--method", "adi"), 3, "nobody was issued"),
        (("verify", "master.json", "--key", "keys/ann.zhang.mw"), 4, "holds a user's secret and no mark"),
        (("key", "show", "keys/ann.zhang.mw", "--released", "2020-01-01"), 4, "go with --commitment"),
        (("key", "backup"), 4, "--out DIR"),
        (("commit", "keys/ann.zhang.mw"), 4, "--out FILE.json"),
        (("commit", "keys/ann.zhang.mw", "--out", "c.json", "--published", "2020-01-01"), 4, "say where that is"),
        (("commit", "keys/ann.zhang.mw", "--out", "c.json", "--publication", "here"), 4, "can be looked up"),
        (("evidence", "keygen"), 4, "--out FILE.pem"),
        (("evidence", "check", "users.csv"), 2, "no evidence bundle"),
        (("evidence", "check", "none.json"), 2, "cannot be read"),
    ],
)
@pytest.mark.usefixtures("users")
def test_what_is_wrong_is_said_in_one_sentence(shell, arguments, code, words):
    found = shell(*arguments)
    assert found.code == code, found.err
    assert words in " ".join(found.err.split())
    assert "Traceback" not in found.err


def test_a_grant_that_is_over_is_told_of(users, shell):
    paths = {user: users / "keys" / f"{user}.zhang.mw" for user in ("ann", "bob")}
    over = {user: lapsed(read_key(path), path) for user, path in paths.items()}
    assert over["ann"].startswith("the grant of ann for zhang is over: its last day was 2020-01-01;")
    assert over["bob"] == ""
    shell("revoke", "bob")
    assert "of bob for zhang was revoked on " in lapsed(read_key(paths["bob"]), paths["bob"])
    (users / "registry.sqlite").write_bytes(b"no registry")
    assert [bool(lapsed(read_key(path), path)) for path in paths.values()] == [True, False]


def test_verify_tells_of_the_grant_behind_its_key(owned, shell):
    key = read_key(owned / "k.mw")
    for expires, word in (("2020-01-01", "its last day was 2020-01-01"), ("9999-12-31", ""), (None, ""), (7, ""), ("x", "")):
        facts = {**key.facts, "grant": {"user": "ann", "generation": 1, "expires": expires}}
        write_key(owned / "g.mw", dataclasses.replace(key, facts=facts))
        found = shell("verify", "m.safetensors", "--key", "g.mw", "--json")
        assert found.code == 3
        assert (word in found.err, ("grant" in json.loads(found.out))) == (True, bool(word))
        assert ("the grant of" in found.err) == bool(word)


def test_a_suspect_is_stolen_only_with_a_dated_commitment_and_the_evidence_says_so(owned, shell):
    verify = ("verify", "m.safetensors", "--key", "k.mw", "-q")
    assert shell(*verify).code == 3
    assert shell("commit", "k.mw", "--out", "c.json").code == 0
    assert shell(*verify, "--commitment", "c.json").code == 3
    dated = shell("commit", "k.mw", "--out", "c.json", "--publication", "Gazette 12/2019, page 3", "--published", "2019-12-01", "--json")
    assert json.loads(dated.out)["kind"] == "publication"
    assert shell(*verify, "--commitment", "c.json").code == 3  # nobody said when the suspect was seen
    assert shell(*verify, "--commitment", "c.json", "--released", "2019-12-02").code == 1
    assert shell(*verify, "--commitment", "c.json", "--released", "2019-11-30").code == 3
    assert shell("evidence", "keygen", "--out", "sign.pem").code == 0
    sealed = shell(
        *verify, "--commitment", "c.json", "--released", "2019-12-02", "--evidence", "e.json", "--signing-key", "sign.pem", "--json"
    )
    assert (sealed.code, json.loads(sealed.out)["evidence"]) == (1, "e.json")
    unknown = shell("evidence", "check", "e.json")
    assert unknown.code == 3
    assert "signer unknown" in unknown.out
    assert shell("evidence", "check", "e.json", "--trusted-key", "sign.pub.pem").code == 3  # the day in the bundle is its maker's
    known = shell(
        "evidence", "check", "e.json", "--trusted-key", "sign.pub.pem", "--released", "2019-12-02", "--summary", "s.html", "--json"
    )
    assert (known.code, json.loads(known.out)["verdict"]["decision"]) == (1, "stolen")
    assert "What would defeat this evidence" in (owned / "s.html").read_text()
    assert shell("evidence", "check", "e.json", "--trusted-key", "sign.pub.pem", "--released", "2019-11-30").code == 3


def test_altered_evidence_and_another_signer_are_refused(owned, shell):
    for name in ("sign.pem", "other.pem"):
        assert shell("evidence", "keygen", "--out", name).code == 0
    assert shell("verify", "m.safetensors", "--key", "k.mw", "--evidence", "e.json", "--signing-key", "sign.pem", "-q").code == 3
    assert shell("evidence", "check", "e.json", "--trusted-key", "other.pub.pem").code == 5
    raw = bytearray((owned / "e.json").read_bytes())
    raw[len(raw) // 2] ^= 1
    (owned / "altered.json").write_bytes(raw)
    assert shell("evidence", "check", "altered.json").code in {2, 5}
    assert "never overwritten" in shell("verify", "m.safetensors", "--key", "k.mw", "--evidence", "e.json", "--signing-key", "sign.pem").err
    assert "go together" in shell("verify", "m.safetensors", "--key", "k.mw", "--evidence", "f.json").err
    assert shell("evidence", "check", "e.json", "--trusted-key", "sign.pem").code == 2


def test_the_commitment_is_shown_with_the_key(owned, shell):
    assert shell("commit", "k.mw", "--out", "c.json", "-q").code == 0
    assert (owned / "c.tsq").exists()
    shown = json.loads(shell("key", "show", "k.mw", "--commitment", "c.json", "--json").out)
    assert shown["commitment"].startswith("undated")
    write_key(owned / "other.mw", Key("zhang", "hardened", "00" * 32, {}, {}))
    assert "to another key" in shell("key", "show", "other.mw", "--commitment", "c.json").err
