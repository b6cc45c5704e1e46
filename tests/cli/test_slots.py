"""Slots in the shell: a build that keeps one for each user, from which the owner takes one away; and a user who is let in again."""

import json

import pytest

from modelward.core.errors import InputError
from modelward.core.guard import predict, state_digest
from modelward.core.rng import generator
from modelward.keys import read_key, write_key
from modelward.keys.registry import Registry
from modelward.locks import ActiveGuard, AdvParams
from modelward.models import load_model, save_model

SMALL = {**ActiveGuard.small, "steps": 60, "epochs": 1}  # enough for the toy, whose probes are found at once


@pytest.fixture(scope="module")
def built(mlp_victim, parts):
    """Lock a model once: the build and the owner's key."""
    return ActiveGuard(**SMALL).lock(mlp_victim, parts.owner, rng=generator(0))


@pytest.fixture
def folder(tmp_path, monkeypatch, built, shell):
    """Write the build, the owner's key and a master secret."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODELWARD_PASSPHRASE", raising=False)
    save_model(tmp_path / "locked.safetensors", built[0])
    write_key(tmp_path / "k.mw", built[1])
    (tmp_path / "users.csv").write_text("user,expires\nann,\nbob,\n")
    assert shell("key", "new-master", "--out", "master.json").code == 0
    return tmp_path


ISSUE = ("issue", "activeguard", "--key", "k.mw", "--model", "locked.safetensors")


def unlocked(shell, model, user, out):
    """Return how unlocking with a user's key ended."""
    return shell("unlock", "--model", model, "--key", f"keys/{user}.activeguard.mw", "--out-model", out)


def test_a_slot_is_taken_out_of_the_build_and_the_others_stay(folder, shell, parts):
    assert shell(*ISSUE, "--csv", "users.csv", "--out-model", "slots.safetensors", "-q").code == 0
    assert "slot" not in read_key(folder / "keys" / "ann.activeguard.mw").facts
    refused = unlocked(shell, "locked.safetensors", "ann", "no.safetensors")  # the build without slots
    assert (refused.code, (folder / "no.safetensors").exists()) == (2, False)
    assert "no slot" in refused.err
    done = shell("revoke", "bob", "--model", "slots.safetensors", "--out-model", "fewer.safetensors", "--json")
    said = json.loads(done.out)
    assert (done.code, said["grants"], said["model"]) == (0, 1, "fewer.safetensors")
    assert unlocked(shell, "fewer.safetensors", "bob", "bob.safetensors").code == 2
    assert unlocked(shell, "fewer.safetensors", "ann", "ann.safetensors").code == 0
    assert unlocked(shell, "slots.safetensors", "bob", "old.safetensors").code == 0  # an older file opens still
    opened = [load_model(folder / name).model for name in ("ann.safetensors", "old.safetensors")]
    assert state_digest(opened[0]) == state_digest(opened[1])
    assert float((predict(opened[0], parts.test.pixels).argmax(1) == parts.test.labels).float().mean()) > 0.5
    again = shell("revoke", "bob", "--model", "fewer.safetensors", "--out-model", "none.safetensors")
    assert again.code == 4
    assert "no slot" in again.err


def test_users_who_come_later_get_slots_beside_the_first(folder, shell):
    assert shell(*ISSUE, "--user", "ann", "--out-model", "one.safetensors", "-q").code == 0
    later = ("issue", "activeguard", "--key", "k.mw", "--model", "one.safetensors", "--user", "cy", "--out-model", "two.safetensors", "-q")
    assert shell(*later).code == 0
    for user in ("ann", "cy"):
        assert unlocked(shell, "two.safetensors", user, f"{user}.safetensors").code == 0
    assert unlocked(shell, "one.safetensors", "cy", "no.safetensors").code == 2
    assert not (folder / "no.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("issue", "zhang", "--user", "ann", "--out-model", "o.safetensors"), "--out-model is for locks"),
        ((*ISSUE, "--user", "ann", "--out-model", "k.mw"), "never overwritten"),
        (("issue", "activeguard", "--key", "k.mw", "--user", "ann", "--out-model", "o.safetensors"), "say --key KEY and --model LOCKED"),
        (("revoke", "ann", "--model", "locked.safetensors"), "say both"),
        (("revoke", "ann", "--model", "locked.safetensors", "--out-model", "k.mw"), "never overwritten"),
        (("revoke", "cy", "--model", "locked.safetensors", "--out-model", "o.safetensors"), "knows no key of user cy"),
        (("revoke", "ann", "--model", "locked.safetensors", "--out-model", "o.safetensors"), "no slot"),
        (("pardon", "cy"), "cy"),
        (("pardon", "ann", "--method", "zhang"), "zhang"),
    ],
)
def test_what_has_no_slot_is_said_in_one_sentence_and_nothing_is_written(folder, shell, words, told):
    assert shell(*ISSUE, "--user", "ann", "-q").code == 0  # a key that brings its slot along
    found = shell(*words)
    assert found.code in {2, 4}, found.err
    assert told in found.err
    assert "Traceback" not in found.err
    assert not (folder / "o.safetensors").exists()
    assert Registry(folder / "registry.sqlite").require("ann", "activeguard").user == "ann"


def test_a_lock_without_slots_says_so(folder, shell, mlp_victim, parts):
    locked, key = AdvParams(share=0.05, images=32).lock(mlp_victim, parts.owner, rng=generator(0))
    save_model(folder / "a.safetensors", locked)
    write_key(folder / "a.mw", key)
    server, owners = ActiveGuard(**SMALL, mode="server").lock(mlp_victim, parts.owner, rng=generator(0))
    save_model(folder / "s.safetensors", server)
    write_key(folder / "s.mw", owners)
    for method, name in (("advparams", "a"), ("activeguard", "s")):
        words = ("issue", method, "--user", "ann", "--key", f"{name}.mw", "--model", f"{name}.safetensors", "--out-model", "o.safetensors")
        found = shell(*words, "--registry", f"{name}.sqlite")
        assert found.code == 4
        assert "keeps no slots" in found.err
        assert not (folder / "o.safetensors").exists()
        assert not (folder / f"{name}.sqlite").exists()  # refused before anything was recorded


def test_who_failed_too_often_is_let_in_again_by_the_owner(folder, shell):
    assert shell(*ISSUE, "--user", "ann", "-q").code == 0
    book = Registry(folder / "registry.sqlite")
    book.attempt("ann", "activeguard", most=1)
    with pytest.raises(InputError, match="modelward pardon ann"):
        book.attempt("ann", "activeguard", most=1)
    found = shell("pardon", "ann")
    assert (found.code, found.out.strip()) == (0, "ann may try again")
    assert book.attempt("ann", "activeguard", most=1) == 1
    assert json.loads(shell("pardon", "ann", "--json").out)["user"] == "ann"
