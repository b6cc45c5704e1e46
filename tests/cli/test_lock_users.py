"""Users of a lock in the shell: keys made from the owner's, for whom they are encrypted, and whose key it was that leaked."""

import dataclasses
import datetime as dt
import json

import pyrage
import pytest

from modelward.core.guard import state_digest
from modelward.core.rng import generator
from modelward.keys import grants, read_key, write_key
from modelward.locks import AdvParams
from modelward.models import load_model, save_model


@pytest.fixture
def folder(tmp_path, monkeypatch, mlp_victim, parts, shell):
    """Write a locked model, the owner's key and a master secret."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODELWARD_PASSPHRASE", raising=False)
    locked, key = AdvParams(share=0.05, images=32).lock(mlp_victim, parts.owner, rng=generator(0))
    save_model(tmp_path / "locked.safetensors", locked)
    write_key(tmp_path / "k.mw", key)
    assert shell("key", "new-master", "--out", "master.json").code == 0
    return tmp_path


ISSUE = ("issue", "advparams", "--key", "k.mw", "--model", "locked.safetensors")
TRACE = ("trace", "--method", "advparams")


def issue_then(shell):
    """Issue the roster on a day on which all of its grants still held."""
    with pytest.MonkeyPatch.context() as then:
        then.setattr(grants, "today", lambda: dt.date(2019, 12, 31))
        assert shell(*ISSUE, "--csv", "users.csv", "-q").code == 0


def test_every_user_gets_a_key_of_his_own_for_the_one_build(folder, shell, mlp_victim):
    (folder / "users.csv").write_text("user,expires\nann,2020-01-01\nbob,\n")
    issue_then(shell)
    files = {user: folder / "keys" / f"{user}.advparams.mw" for user in ("ann", "bob")}
    assert len({path.read_bytes() for path in files.values()}) == 2
    for user, state in (("ann", "expired"), ("bob", "active")):
        out = f"{user}.safetensors"
        assert shell("unlock", "--model", "locked.safetensors", "--key", str(files[user]), "--out-model", out).code == 0
        assert state_digest(load_model(folder / out).model) == state_digest(mlp_victim)
        found = shell(*TRACE, str(files[user]), "--master", "master.json", "--json")
        assert found.code == 1
        said = json.loads(found.out)
        assert (said["user"], said["state"], said["claims"], said["genuine"]) == (user, state, user, True)


def test_a_registry_opens_for_active_users_alone(folder, shell):
    (folder / "users.csv").write_text("user,expires\nann,2020-01-01\nbob,\ncy,\n")
    issue_then(shell)
    assert shell("revoke", "cy").code == 0
    key = read_key(folder / "keys" / "bob.advparams.mw")
    write_key(folder / "forged.mw", dataclasses.replace(key, facts={**key.facts, "entries": 0}))
    nameless = {name: value for name, value in read_key(folder / "keys" / "cy.advparams.mw").facts.items() if name not in {"user", "grant"}}
    write_key(folder / "nameless.mw", dataclasses.replace(key, facts=nameless))
    cases = (("keys/ann.advparams.mw", "expired"), ("keys/cy.advparams.mw", "revoked"), ("forged.mw", "not the key that user bob was issued"),
             ("keys/bob.advparams.mw", ""), ("k.mw", "says no user"), ("nameless.mw", "says no user"))  # fmt: skip
    for number, (path, words) in enumerate(cases):
        out = folder / f"{number}.safetensors"
        opening = ("unlock", "--model", "locked.safetensors", "--key", path, "--out-model", out.name, "--registry", "registry.sqlite")
        found = shell(*opening)
        assert found.code == (2 if words else 0), found.err
        assert words in found.err
        assert out.exists() == (not words)


def test_a_key_that_was_given_another_name_is_nobodys(folder, shell):
    assert shell(*ISSUE, "--user", "ann", "-q").code == 0
    key = read_key(folder / "keys" / "ann.advparams.mw")
    write_key(folder / "forged.mw", dataclasses.replace(key, facts={**key.facts, "user": "bob"}))
    found = shell(*TRACE, "forged.mw", "--master", "master.json")
    assert found.code == 3
    assert "says that it is bob's" in found.out
    assert shell(*TRACE, "k.mw").code == 3  # the owner's was issued to nobody


def test_a_users_key_opens_for_the_holder_of_the_age_identity_alone(folder, shell, monkeypatch):
    ann, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    assert shell(*ISSUE, "--user", "ann", "--recipient", str(ann.to_public()), "-q").code == 0
    opening = ("unlock", "--model", "locked.safetensors", "--key", "keys/ann.advparams.mw", "--out-model", "o.safetensors")
    for identity, code in ((None, 4), (other, 2), (ann, 0)):
        if identity is not None:
            monkeypatch.setenv("MODELWARD_PASSPHRASE", str(identity))
        found = shell(*opening)
        assert found.code == code, found.err
        assert found.err.count("\n") <= 1
        assert (folder / "o.safetensors").exists() == (code == 0)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("issue", "advparams", "--user", "ann"), "say --key KEY and --model LOCKED"),
        (("issue", "zhang", "--user", "ann", "--key", "k.mw"), "--key is for locks"),
        ((*ISSUE, "--csv", "users.csv", "--recipient", "age1x"), "say --user NAME"),
        ((*ISSUE, "--user", "ann", "--recipient", "age1x"), "age public key"),
        (("issue", "ftal", "--user", "ann"), "no keys to issue"),
        (("trace", "k.mw", "--method", "zhang"), "no registry"),
        ((*TRACE, "locked.safetensors"), "locked.safetensors"),
    ],
)
def test_what_cannot_be_issued_or_traced_is_said_in_one_sentence(folder, shell, words, told):
    (folder / "users.csv").write_text("user\nann\n")
    found = shell(*words)
    assert found.code in {2, 4}
    assert told in found.err
    assert "Traceback" not in found.err


def test_a_lock_that_locks_little_says_so(tmp_path, monkeypatch, shell):
    monkeypatch.chdir(tmp_path)
    found = shell(
        "lock", "advparams", "--set", "share=0.00002", "--set", "images=32", "--out-key", "w.mw", "--out-model", "w.safetensors", "--json"
    )
    assert found.code == 0
    assert "it locks little" in found.err
    said = json.loads(found.out)
    assert said["accuracy_after"] > said["chance"] + 0.15
    assert read_key(tmp_path / "w.mw").facts["entries"] == said["entries"] == 2
