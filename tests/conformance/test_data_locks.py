"""What every lock of image sets promises, tried on all of the catalogue: a new one adds one row to `ROWS`."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from modelward.core.canonical import canonical_json
from modelward.core.catalogue import catalogue
from modelward.core.errors import InputError, ModelwardError, UsageError
from modelward.core.image_locks import DataLock, LockedImages
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.models import Net


@dataclasses.dataclass(frozen=True)
class Row:
    """A lock with constructor arguments small enough for the tiny task."""

    name: str
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)


ROWS = (
    Row("dataset-lock", {"variant": "paper", "steps": 3}),
    Row("dataset-lock", {"variant": "hardened", "steps": 3}),
    Row("dataset-lock", {"variant": "hardened", "steps": 3, "backend": "sidecar", "form": "pixel"}),
)
OURS = {name: cls for name, cls in catalogue().items() if issubclass(cls, DataLock) and cls.__module__.startswith("modelward.")}
every = pytest.mark.parametrize(
    "number", [pytest.param(number, id=f"{row.name}{number}-{row.fields['variant']}") for number, row in enumerate(ROWS)]
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A lock, what it made of images, and the key."""

    method: DataLock
    images: ImageSet
    surrogate: nn.Module
    locked: LockedImages
    key: Key

    def again(self, images: ImageSet, seed: int = 0, secret: bytes | None = b"0" * 32) -> tuple[LockedImages, Key]:
        return self.method.lock(images, self.surrogate, secret=secret, rng=generator(seed))


@pytest.fixture(scope="module")
def images(make_blobs: Callable[..., ImageSet]) -> ImageSet:
    return make_blobs(48, 11, side=16, noise=6.0)


@pytest.fixture(scope="module")
def made(images: ImageSet, train_net: Callable[..., Net]) -> Callable[[int], Case]:
    surrogate = train_net("mlp:width=16", images, 0, epochs=2)

    @functools.cache
    def lock(number: int) -> Case:
        method = OURS[ROWS[number].name].configured(ROWS[number].fields)
        return Case(method, images, surrogate, *method.lock(images, surrogate, secret=b"0" * 32, rng=generator(0)))

    return lock


@pytest.fixture
def case(number: int, made: Callable[[int], Case]) -> Case:
    return made(number)


def test_every_registered_lock_of_images_has_a_row() -> None:
    assert {row.name for row in ROWS} == set(OURS)


@every
def test_locking_leaves_images_and_surrogate_untouched(case: Case, untouched: Callable[..., Any]) -> None:
    before = case.images.pixels.clone(), case.images.labels.clone()
    with untouched(case.surrogate):
        locked, key = case.again(case.images)
    assert torch.equal(case.images.pixels, before[0])
    assert torch.equal(case.images.labels, before[1])
    assert torch.equal(locked.images.labels, before[1])
    assert locked.images.classes == case.images.classes
    assert key.method == case.method.card.name
    assert torch.equal(locked.images.pixels, case.locked.images.pixels)  # and the secret and the generator decide all


@every
def test_every_image_is_changed_and_comes_back_byte_for_byte(case: Case) -> None:
    changed = (case.locked.images.pixels != case.images.pixels).flatten(1).any(1)
    assert float(changed.float().mean()) > 0.9
    opened = case.method.unlock(case.locked, case.key)
    assert torch.equal(opened.pixels, case.images.pixels)
    assert torch.equal(opened.labels, case.images.labels)


@every
def test_another_secret_locks_otherwise_and_its_key_opens_nothing(case: Case) -> None:
    locked, key = case.again(case.images, secret=b"1" * 32)
    assert not torch.equal(locked.images.pixels, case.locked.images.pixels)
    for given, opening in ((case.locked, key), (locked, case.key)):
        with pytest.raises(InputError):
            case.method.unlock(given, opening)
    with pytest.raises(InputError, match="made by 'someone-else'"):
        case.method.unlock(case.locked, dataclasses.replace(case.key, method="someone-else"))


@every
def test_changed_images_and_keys_that_lack_something_are_refused(case: Case) -> None:
    pixels = case.locked.images.pixels.clone()
    pixels[0, 0, 0, 0] ^= 1
    with pytest.raises(InputError):
        case.method.unlock(dataclasses.replace(case.locked, images=dataclasses.replace(case.locked.images, pixels=pixels)), case.key)
    with pytest.raises(ModelwardError):
        case.method.unlock(case.locked, dataclasses.replace(case.key, tensors={}))
    with pytest.raises(ModelwardError):
        case.method.unlock(dataclasses.replace(case.locked, manifest={}), case.key)


@every
def test_what_cannot_be_locked_is_refused(case: Case) -> None:
    with pytest.raises(InputError, match="no images"):
        case.again(case.images.take(slice(0)))
    with pytest.raises(InputError):
        case.again(dataclasses.replace(case.images, pixels=case.images.pixels[:, :, :12, :12].contiguous()))


@every
def test_a_customers_copy_names_him_and_is_his_alone(case: Case) -> None:
    copy = case.method.unlock(case.locked, case.key, user="ann")
    assert int((copy.pixels.int() - case.images.pixels.int()).abs().max()) == 1
    assert max((votes := case.method.traced(copy, case.locked, case.key, ["bob", "ann"])), key=lambda name: votes[name]) == "ann"
    assert not case.method.traced(case.images, case.locked, case.key, ["bob", "ann"])


@every
def test_settings_survive_json_and_the_key_shows_nothing(case: Case) -> None:
    method = case.method
    assert type(method).configured(json.loads(canonical_json(method.settings()))) == method
    assert repr(case.key).endswith("tensors=***)")
    with pytest.raises(UsageError, match="variant is 'paper' or 'hardened'"):
        type(method).configured({"variant": "best"})
