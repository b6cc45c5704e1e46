"""Locking models in the shell: what is said of what is left to thieves, of models that are locked already, and of a full disk."""

import errno
import json

import pytest

from modelward.core.errors import StoreError

SMALL = [word for pair in ("users=2", "nulls=16", "seeds=16", "bits=0", "share=0.01", "images=32") for word in ("--set", pair)]
FEW = ("--set", "share=0.01", "--set", "images=32")


def locked(shell, *words, method="activeguard", out="l"):
    return shell("lock", method, *words, "--out-key", f"{out}.mw", "--out-model", f"{out}.safetensors", "--json")


@pytest.mark.parametrize(("mode", "left"), [("bound", False), ("server", None)])
def test_what_is_left_when_the_lock_is_cut_out_is_always_said(tmp_path, monkeypatch, shell, mode, left):
    monkeypatch.chdir(tmp_path)
    found = locked(shell, *SMALL, "--set", f"mode={mode}", "--set", "answers=refuse")
    assert found.code == 0
    said = json.loads(found.out)
    if left is None:
        assert said["accuracy_stripped"] is None  # nothing was handed out
        return
    assert said["accuracy_after"] == 0.0  # a layer that refuses locks too
    assert said["accuracy_stripped"] < said["chance"] + 0.15
    assert "it locks little" not in found.err


def test_a_layer_alone_locks_little_and_is_not_locked_again(tmp_path, monkeypatch, shell):
    monkeypatch.chdir(tmp_path)
    found = locked(shell, *SMALL, "--set", "mode=layer", out="a")
    said = json.loads(found.out)
    assert said["accuracy_stripped"] > said["chance"] + 0.15
    assert "it locks little" in found.err
    for method in ("advparams", "activeguard"):
        found = locked(shell, "--model", "a.safetensors", method=method)
        assert found.code == 4
        assert "locked or wrapped already, by control-layer" in " ".join(found.err.split())
        assert not (tmp_path / "l.mw").exists()


def test_a_full_disk_leaves_no_key_in_the_way_and_a_model_that_guesses_may_be_locked_already(tmp_path, monkeypatch, shell):
    monkeypatch.chdir(tmp_path)

    def full(*_, **__):
        message = f"l.safetensors cannot be written: {errno.errorcode[errno.ENOSPC]}"
        raise StoreError(message)

    with monkeypatch.context() as disk:
        disk.setattr("modelward.models.save_model", full)
        assert locked(shell, *FEW, method="advparams").code != 0
    assert not list(tmp_path.iterdir())
    assert locked(shell, *FEW, method="advparams").code == 0
    found = locked(shell, *FEW, "--model", "l.safetensors", method="advparams", out="again")
    assert found.code == 0
    assert "may be locked already" in " ".join(found.err.split())
