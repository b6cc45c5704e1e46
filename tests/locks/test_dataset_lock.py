"""The lock of image sets: every pixel comes back, nothing for a wrong key, changed images are named, and a customer's copy names him."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelward.core.canonical import canonical_json
from modelward.core.errors import InputError, ModelwardError, UsageError
from modelward.core.image_locks import LockedImages
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.imaging.codecs import roundtrip
from modelward.keys.derive import derive
from modelward.keys.files import pack_key, unpack_key
from modelward.locks.collision import Shifts, penultimate
from modelward.locks.dataset_lock import DatasetLock
from modelward.locks.guides import choose_guides, derangements
from modelward.models import Net

SECRET = b"s" * 32
ROWS: dict[str, dict[str, Any]] = {
    "paper": {"variant": "paper", "steps": 8}, "hardened": {}, "pattern": {"shared": "pattern"},
    "fine": {"block": 2, "unit": 2, "finish": 3}, "random": {"guide": "random", "steps": 3},
    "sidecar": {"backend": "sidecar"}, "pixel": {"backend": "sidecar", "form": "pixel", "steps": 3},
}  # fmt: skip


@pytest.fixture(scope="module")
def images(make_blobs: Callable[..., ImageSet]) -> ImageSet:
    """Return 48 images of 16 x 16, some of them at the ends of the range, one of pure noise."""
    made = make_blobs(48, 5, side=16, noise=8.0)
    made.pixels[0], made.pixels[1] = 0, 255
    made.pixels[2] = torch.randint(0, 2, made.shape, generator=generator(1)).to(torch.uint8) * 255
    made.pixels[3] = torch.randint(0, 256, made.shape, generator=generator(2)).to(torch.uint8)
    return made


@pytest.fixture(scope="module")
def surrogate(images: ImageSet, train_net: Callable[..., Net]) -> Net:
    return train_net("cnn:width=4", images, 0, epochs=3)


@pytest.fixture(scope="module")
def made(images: ImageSet, surrogate: Net) -> dict[str, tuple[LockedImages, Key]]:
    return {name: DatasetLock(**fields).lock(images, surrogate, secret=SECRET, rng=generator(0)) for name, fields in ROWS.items()}


@pytest.mark.parametrize("name", ROWS)
def test_every_pixel_comes_back_after_png_and_from_files(name: str, made: dict[str, tuple[LockedImages, Key]], images: ImageSet) -> None:
    locked, key = made[name]
    assert int((locked.images.pixels != images.pixels).flatten(1).any(1).sum()) >= 40
    assert torch.equal(locked.images.labels, images.labels)
    sent = dataclasses.replace(locked.images, pixels=roundtrip(locked.images.pixels, "png"))
    again = LockedImages(sent, locked.sidecars, json.loads(canonical_json(dict(locked.manifest))))
    opened = DatasetLock().unlock(again, unpack_key(pack_key(key)))  # the settings are the manifest's, not the caller's
    assert torch.equal(opened.pixels, images.pixels)
    assert sum(locked.manifest["counts"].values()) == len(images)
    assert len(locked.sidecars) == locked.manifest["counts"].get("sidecar", 0)


def test_images_without_room_fall_back_and_the_manifest_says_so(made: dict[str, tuple[LockedImages, Key]]) -> None:
    locked, _ = made["fine"]
    counts = locked.manifest["counts"]
    assert counts["blocks of 2"] > 0
    assert len(counts) > 1
    assert [n == -1 for n in locked.manifest["how"]] == [i in locked.sidecars for i in range(len(locked.images))]


def test_the_secret_decides_and_the_generator_does_not(images: ImageSet, surrogate: Net, made: dict[str, tuple[LockedImages, Key]]) -> None:
    again = DatasetLock().lock(images, surrogate, secret=SECRET, rng=generator(9))[0]
    other = DatasetLock().lock(images, surrogate, secret=b"o" * 32, rng=generator(0))[0]
    assert again.manifest == made["hardened"][0].manifest
    assert torch.equal(again.images.pixels, made["hardened"][0].images.pixels)
    assert not torch.equal(other.images.pixels, again.images.pixels)
    assert not set(other.manifest["original"]) & set(again.manifest["original"])


def test_nothing_is_hidden_under_one_stream_twice(made: dict[str, tuple[LockedImages, Key]]) -> None:
    assert len({locked.manifest["set"] for locked, _ in made.values()}) == len(ROWS)


def test_the_caller_keeps_what_was_his(images: ImageSet, surrogate: Net, untouched: Callable[..., Any]) -> None:
    before = images.pixels.clone()
    with untouched(surrogate):
        DatasetLock(steps=2, finish=1).lock(images, surrogate, secret=SECRET, rng=generator(0))
    assert torch.equal(images.pixels, before)


def test_a_wrong_key_opens_nothing(made: dict[str, tuple[LockedImages, Key]]) -> None:
    locked, key = made["hardened"]
    wrong = dataclasses.replace(key, tensors={"secret": torch.full((32,), 7, dtype=torch.uint8)})
    for bad, words in (
        (wrong, "does not open this set"), (made["paper"][1], "bring the key that was written for it"),
        (dataclasses.replace(key, method="advparams"), "made by 'advparams'"), (dataclasses.replace(key, tensors={}), "lacks"),
        (dataclasses.replace(key, facts={}), "lacks"), (dataclasses.replace(key, tensors={"secret": torch.zeros(3)}), "bring the key"),
    ):  # fmt: skip
        with pytest.raises(ModelwardError, match=words):
            DatasetLock().unlock(locked, bad)


def test_neither_key_nor_manifest_betrays_the_secret_or_the_originals(made: dict[str, tuple[LockedImages, Key]], images: ImageSet) -> None:
    locked, key = made["hardened"]
    said = canonical_json(dict(locked.manifest)).decode()
    assert SECRET.hex() not in said
    assert images.digest not in said
    assert "secret" not in repr(key) or SECRET.decode() not in repr(key)
    root = derive(SECRET, "dataset-lock", locked.manifest["set"])
    assert root.hex() not in said


@pytest.mark.parametrize("where", ["how", "room", "original", "settings"])
def test_an_altered_manifest_is_refused(where: str, made: dict[str, tuple[LockedImages, Key]]) -> None:
    locked, key = made["hardened"]
    altered = json.loads(canonical_json(dict(locked.manifest)))
    altered[where] = {**altered[where], "eps": 8} if where == "settings" else altered[where][::-1]
    with pytest.raises(InputError, match="manifest was altered"):
        DatasetLock().unlock(dataclasses.replace(locked, manifest=altered), key)
    del altered[where]
    with pytest.raises(ModelwardError, match=r"no manifest|altered"):
        DatasetLock().unlock(dataclasses.replace(locked, manifest=altered), key)


def test_changed_images_are_named(made: dict[str, tuple[LockedImages, Key]]) -> None:
    locked, key = made["hardened"]

    def with_pixels(pixels: torch.Tensor) -> LockedImages:
        return dataclasses.replace(locked, images=dataclasses.replace(locked.images, pixels=pixels))

    coded = locked.images.pixels.clone()
    coded[7:9] = roundtrip(coded[7:9], "jpeg", 95)
    with pytest.raises(InputError, match=r"2 of 48 images were changed .* number 7, number 8"):
        DatasetLock().unlock(with_pixels(coded), key)
    with pytest.raises(InputError, match="3x8x8, they were locked as 3x16x16"):
        DatasetLock().unlock(with_pixels(locked.images.pixels[:, :, ::2, ::2].contiguous()), key)
    fewer = dataclasses.replace(locked, images=locked.images.take(slice(5)))
    with pytest.raises(InputError, match="speaks of 48 images and 5 are here"):
        DatasetLock().unlock(fewer, key)


def test_sidecars_that_are_lost_or_changed_are_named(made: dict[str, tuple[LockedImages, Key]]) -> None:
    locked, key = made["sidecar"]
    with pytest.raises(InputError, match="sidecar of image 3 is missing"):
        DatasetLock().unlock(dataclasses.replace(locked, sidecars={i: b for i, b in locked.sidecars.items() if i != 3}), key)
    with pytest.raises(ModelwardError, match="sidecar of image 3 was changed"):
        DatasetLock().unlock(dataclasses.replace(locked, sidecars={**locked.sidecars, 3: locked.sidecars[4]}), key)


def test_a_customers_copy_names_him_and_differs_by_one_level(made: dict[str, tuple[LockedImages, Key]], images: ImageSet) -> None:
    locked, key = made["hardened"]
    copy = DatasetLock().unlock(locked, key, user="ann")
    assert int((copy.pixels.int() - images.pixels.int()).abs().max()) == 1
    assert DatasetLock().traced(copy, locked, key, ["bob", "ann"]) == {"ann": 48}
    assert DatasetLock().traced(images, locked, key, ["bob", "ann"]) == {}
    assert DatasetLock().traced(copy, locked, key, ["bob"]) == {}


def test_what_cannot_be_locked_is_refused(images: ImageSet, surrogate: Net, made: dict[str, tuple[LockedImages, Key]]) -> None:
    lock: Any = DatasetLock(steps=1).lock
    with pytest.raises(InputError, match="locked already"):
        lock(made["hardened"][0], surrogate, rng=generator(0))
    with pytest.raises(InputError, match="no images"):
        lock(images.take(slice(0)), surrogate, rng=generator(0))
    small = ImageSet(images.pixels[:, :, :8, :8].contiguous(), images.labels, images.classes, "small")
    with pytest.raises(InputError, match="takes 3 channels of 16x16"):
        lock(small, surrogate, rng=generator(0))
    with pytest.raises(InputError, match="bring a surrogate"):
        lock(images, nn.Sequential(nn.Flatten(), nn.Linear(5, 3)), rng=generator(0))
    alike = dataclasses.replace(images, labels=torch.zeros_like(images.labels))
    with pytest.raises(InputError, match="two classes"):
        lock(alike, surrogate, rng=generator(0))


@pytest.mark.parametrize(
    "fields", [{"eps": 0}, {"unit": 17}, {"shared": "nothing"}, {"form": "pixel"}, {"backend": "zip"}, {"block": 1}, {"guide": "best"}]
)
def test_settings_that_mean_nothing_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        DatasetLock(**fields)


def test_no_pixel_leaves_its_range_and_no_shift_its_budget(images: ImageSet, surrogate: Net) -> None:
    plan = Shifts(eps=20, unit=6, block=5, steps=20)  # blocks at the edge are smaller
    shifts = plan.search(surrogate, images.pixels, images.pixels.flip(0))
    moved = images.pixels.int() + plan.spread(shifts, images.pixels.shape)
    assert 0 <= int(moved.min()) <= int(moved.max()) <= 255
    assert int(plan.spread(shifts, images.pixels.shape).abs().max()) == 18
    alone = plan.together(surrogate, images.pixels, images.pixels.flip(0), torch.arange(len(images)) % 2)
    moved = images.pixels.int() + plan.spread(alone, images.pixels.shape)
    assert 0 <= int(moved.min()) <= int(moved.max()) <= 255


@settings(max_examples=30, deadline=None)
@given(
    block=st.integers(2, 5),
    square=st.integers(2, 12),
    side=st.integers(9, 20),
    channels=st.sampled_from([1, 3]),
    secret=st.binary(min_size=32, max_size=32),
)
def test_a_pattern_is_shared_by_a_class_and_the_same_left_and_right(
    block: int, square: int, side: int, channels: int, secret: bytes
) -> None:
    plan, labels = Shifts(eps=20, unit=7, block=block), torch.arange(6) % 2
    grey = torch.full((6, channels, side, side), 128, dtype=torch.uint8)
    shifts = plan.dealt(grey, labels, square=square, secret=secret)
    assert set(shifts.unique().tolist()) <= {-2, 2}
    assert torch.equal(shifts, shifts.flip(3))
    assert torch.equal(shifts[::2], shifts[:1].expand(3, -1, -1, -1))
    coarse = max(1, square // block)
    assert torch.equal(shifts[:, :, :coarse], shifts[:, :, :1].expand_as(shifts[:, :, :coarse]))
    assert torch.equal(plan.dealt(grey[:1], labels[:1], square=square, secret=secret), shifts[:1])  # nothing else of the set plays a part


def test_patterns_differ_by_class_and_secret_and_stay_in_range(images: ImageSet) -> None:
    plan = Shifts(eps=20, unit=10, block=2)
    one, other = (plan.dealt(images.pixels, images.labels, square=4, secret=secret) for secret in (SECRET, b"t" * 32))
    low, high = plan.limits(images.pixels)
    assert bool(((low <= one) & (one <= high)).all())
    assert not torch.equal(one, other)
    middle = torch.full((2, 1, 16, 16), 128, dtype=torch.uint8)
    first, second = plan.dealt(middle, torch.arange(2), square=4, secret=SECRET)
    assert not torch.equal(first, second)


def test_features_come_nearer_to_the_guides_and_noise_does_not_bring_them_there(images: ImageSet, surrogate: Net) -> None:
    guides = images.pixels.flip(0)
    plan = Shifts(eps=32, unit=4, block=2)
    shifts = plan.search(surrogate, images.pixels, guides)
    sign = torch.randint(0, 2, shifts.shape, generator=generator(0)) * 2 - 1
    low, high = plan.limits(images.pixels)
    noise = torch.minimum(torch.maximum(shifts.abs() * sign, low), high)
    with penultimate(surrogate) as phi, torch.no_grad():
        wanted = phi(guides / 255)
        gaps = [
            float((phi((images.pixels + plan.spread(move, images.pixels.shape)) / 255) - wanted).square().sum(1).mean())
            for move in (torch.zeros_like(shifts), shifts, noise)
        ]
    assert gaps[1] < 0.6 * gaps[0]
    assert gaps[2] > 1.3 * gaps[1]


def test_derangements_never_agree_and_guides_follow_them() -> None:
    maps = derangements(7, 9, SECRET)
    assert maps.shape == (6, 7)
    assert all(len({*column.tolist(), k}) == 7 for k, column in enumerate(maps.T))
    labels = torch.arange(300) % 5
    guides, turned = choose_guides(labels, policy="derangement", mixed=2, secret=SECRET)
    pairs = {*zip(labels.tolist(), turned.tolist(), strict=True)}
    assert len(pairs) == 10
    assert torch.equal(labels[guides], turned)
    assert len({*zip(labels.tolist(), choose_guides(labels, policy="random", mixed=1, secret=SECRET)[1].tolist(), strict=True)}) == 20
