"""What every lock promises, tried on all of the catalogue: a new lock adds one row to `ROWS`."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from modelward.core.canonical import canonical_json
from modelward.core.catalogue import catalogue, find
from modelward.core.errors import InputError, ModelwardError, UsageError
from modelward.core.families import TheftMethod
from modelward.core.guard import state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.locking import ModelLock, issued_to
from modelward.core.rng import generator
from modelward.core.view import Labels
from modelward.data.study import Study
from modelward.keys import read_key, write_key
from modelward.models import Net, load_model, save_model
from modelward.training import accuracy


@dataclasses.dataclass(frozen=True)
class Row:
    """A lock with constructor arguments small enough for the tiny task."""

    name: str
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)


GUARD = {"users": 4, "nulls": 32, "steps": 40, "seeds": 16, "bits": 8, "epochs": 1}
DRAWN = {"width": 4, "identity_bits": 0, "lr": 0.01}
ROWS = (
    Row("advparams", {"variant": "paper", "per_layer": 40, "images": 64, "target": 1e6}),
    Row("advparams", {"variant": "hardened", "share": 0.02, "images": 64}),
    Row("activeguard", {"variant": "paper", **GUARD}),
    Row("activeguard", {"variant": "hardened", "mode": "layer", **GUARD}),
    Row("activeguard", {"variant": "hardened", "mode": "bound", "share": 0.02, "images": 64, **GUARD}),
    Row("sample-lock", {"variant": "paper", "batch": 16, "warm": 1, "image": 0.0, "reach": 0.7, "epochs": 16, **DRAWN}),
    Row("sample-lock", {"variant": "hardened", "trigger_lr": 0.01, "negative": 0.1, "epochs": 25, **DRAWN}),
)
OURS = {name: cls for name, cls in catalogue().items() if issubclass(cls, ModelLock) and cls.__module__.startswith("modelward.")}
NUMBERS = [pytest.param(number, id=f"{row.name}{number}-{row.fields.get('variant')}") for number, row in enumerate(ROWS)]
every = pytest.mark.parametrize("number", NUMBERS)


@dataclasses.dataclass(frozen=True)
class Case:
    """A lock, what it made of the victim, and the key."""

    method: ModelLock
    locked: nn.Module
    key: Key


@pytest.fixture(scope="module")
def made(victim: Net, parts: Study) -> Callable[[int], Case]:
    @functools.cache
    def lock(number: int) -> Case:
        method = OURS[ROWS[number].name].configured(ROWS[number].fields)
        return Case(method, *method.lock(victim, parts.owner, secret=b"0" * 32, rng=generator(0)))

    return lock


@pytest.fixture
def case(number: int, made: Callable[[int], Case]) -> Case:
    return made(number)


def chance(images: ImageSet) -> float:
    return float(images.labels.bincount().max() / len(images))


def require_open(case: Case, opened: nn.Module, victim: Net, parts: Study) -> None:
    """Fail unless an opened model is the owner's: every byte of it where the lock promises that, else as good."""
    if case.method.exact:
        assert state_digest(opened) == state_digest(victim)
    else:
        assert accuracy(opened, parts.test) > accuracy(victim, parts.test) - 0.1


def test_every_registered_lock_has_a_row() -> None:
    assert {row.name for row in ROWS} == set(OURS)


@every
def test_locking_leaves_the_model_and_the_images_untouched(
    number: int, case: Case, victim: Net, parts: Study, untouched: Callable[..., Any]
) -> None:
    before = parts.owner.pixels.clone()
    with untouched(victim):
        locked, key = case.method.lock(victim, parts.owner, secret=b"0" * 32, rng=generator(0))
    assert torch.equal(parts.owner.pixels, before)
    assert locked is not victim
    assert (key.method, key.variant) == (ROWS[number].name, ROWS[number].fields["variant"])
    assert key.model_digest == state_digest(locked) != state_digest(victim)


@every
def test_the_generator_decides(case: Case, victim: Net, parts: Study) -> None:
    again = case.method.lock(victim, parts.owner, secret=b"0" * 32, rng=generator(0))
    assert again[1].model_digest == case.key.model_digest
    assert {name: tensor.tolist() for name, tensor in again[1].tensors.items()} == {n: t.tolist() for n, t in case.key.tensors.items()}


@every
def test_a_locked_model_errs_and_its_key_gives_every_byte_back(
    case: Case, victim: Net, parts: Study, untouched: Callable[..., Any]
) -> None:
    assert accuracy(case.locked, parts.test) < (accuracy(victim, parts.test) + chance(parts.test)) / 2
    with untouched(case.locked):
        opened = case.method.unlock(case.locked, case.key)
    require_open(case, opened, victim, parts)


@every
def test_a_lock_opens_in_another_process_from_files(case: Case, victim: Net, parts: Study, tmp_path: Path) -> None:
    save_model(tmp_path / "locked.safetensors", case.locked)
    write_key(tmp_path / "k.mw", case.key)
    command = ["unlock", "--model", "locked.safetensors", "--key", "k.mw", "--out-model", "opened.safetensors"]
    done = subprocess.run([sys.executable, "-m", "modelward", *command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    require_open(case, load_model(tmp_path / "opened.safetensors").model, victim, parts)
    assert read_key(tmp_path / "k.mw").facts == json.loads(canonical_json(dict(case.key.facts)))


@every
def test_half_a_key_and_a_key_of_another_build_open_nothing(case: Case, victim: Net) -> None:
    with pytest.raises(InputError, match="another build"):
        case.method.unlock(victim, case.key)
    with pytest.raises(InputError, match="made by 'someone-else'"):
        case.method.unlock(case.locked, dataclasses.replace(case.key, method="someone-else"))
    for name, tensor in case.key.tensors.items():
        changed = [tensor[:-1], tensor.flip(0)] if len(tensor) > 1 else []
        for other in (other for other in changed if not torch.equal(other, tensor)):  # equal entries are the same in any order
            with pytest.raises(InputError):
                case.method.unlock(case.locked, dataclasses.replace(case.key, tensors={**case.key.tensors, name: other}))


@every
def test_a_key_that_lacks_facts_or_arrays_is_refused_in_one_sentence(case: Case) -> None:
    for name in ("names", "original"):
        if name in case.key.facts:
            lacking = {known: value for known, value in case.key.facts.items() if known != name}
            with pytest.raises(ModelwardError, match="lacks"):
                case.method.unlock(case.locked, dataclasses.replace(case.key, facts=lacking))
    with pytest.raises(ModelwardError):
        case.method.unlock(case.locked, dataclasses.replace(case.key, tensors={}))


@every
def test_a_users_key_opens_and_cannot_be_given_another_name(case: Case, victim: Net, parts: Study, untouched: Callable[..., Any]) -> None:
    with untouched(case.locked):
        anns = case.method.issue(case.locked, case.key, "ann", secret=b"secret of ann", rng=generator(1))
    require_open(case, case.method.unlock(case.locked, anns), victim, parts)
    assert issued_to(anns, b"secret of ann") == "ann"
    for changed in (dataclasses.replace(anns, facts={**anns.facts, "user": "bob"}), dataclasses.replace(anns, model_digest="1" * 64)):
        with pytest.raises(InputError, match="changed after it was issued"):
            issued_to(changed, b"secret of ann")
    with pytest.raises(InputError, match="changed after it was issued"):
        issued_to(anns, b"secret of bob")
    with pytest.raises(InputError, match="issued to nobody"):
        issued_to(case.key, b"secret of ann")
    with pytest.raises(InputError, match="issued to 'ann'"):
        case.method.issue(case.locked, anns, "bob", secret=b"secret of bob", rng=generator(1))
    with pytest.raises(InputError, match="another build"):
        case.method.issue(victim, case.key, "bob", secret=b"secret of bob", rng=generator(1))


@every
def test_the_key_does_not_show_what_it_holds(case: Case) -> None:
    assert (
        repr(case.key) == f"Key(method={case.key.method!r}, variant={case.key.variant!r}, model={case.key.model_digest[:12]}, tensors=***)"
    )


@every
def test_models_and_data_that_cannot_be_locked_are_refused(case: Case, victim: Net, parts: Study, train_net: Callable[..., Net]) -> None:
    broken = train_net("cnn:width=4", parts.owner, 0, epochs=0)
    with torch.no_grad():
        next(broken.parameters()).reshape(-1)[0] = float("inf")
        next(broken.parameters())[0, 0, 0, 0] = float("inf")
    with pytest.raises(InputError, match="NaN or infinite"):
        case.method.lock(broken, parts.owner, rng=generator(0))
    with pytest.raises(InputError, match="no images"):
        case.method.lock(victim, parts.owner.take(slice(0)), rng=generator(0))


@every
def test_settings_survive_json(number: int) -> None:
    method = OURS[ROWS[number].name].configured(ROWS[number].fields)
    assert type(method).configured(json.loads(canonical_json(method.settings()))) == method
    with pytest.raises(UsageError, match="variant is 'paper' or 'hardened'"):
        type(method).configured({"variant": "best"})


@every
def test_there_are_adaptive_attacks_and_they_exist(case: Case) -> None:
    assert case.method.adaptive_attacks()
    for attack in case.method.adaptive_attacks():
        method = find(attack.method).configured(dict(attack.settings))
        assert isinstance(method, TheftMethod)
        assert Labels(attack.labels) in method.labels
