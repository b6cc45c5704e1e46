"""A locked set in the hands of nets that the lock has not seen: six architectures by a foreign loop, four ways to augment, two optimisers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from tests.foreign.loop import Script

from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.rng import derive_seed, generator
from modelward.data import load_data
from modelward.imaging.quality import psnr
from modelward.locks import DatasetLock
from modelward.models import build
from modelward.training import Recipe, fit

NETS = ("lenet", "strided", "vgg", "mixer", "wide", "res")
CHANGES: dict[str, Mapping[str, Any]] = {
    "plain": {},
    "flips and shifts": {"moved": True},
    "mixup": {"mixup": 1.0},
    "CutMix": {"cutmix": 1.0},
}
OPTIMISERS = ("adam", "sgd")
SURROGATE = "lenet5"
COUNT, TEST = 3000, 1000
PATTERN = DatasetLock(eps=20, unit=10, shared="pattern")


def owned() -> tuple[ImageSet, ImageSet]:
    """Return the owner's garments, and images that nobody trained on."""
    splits = load_data("fashion-mini")
    order = torch.randperm(len(splits.train), generator=generator(11))[:COUNT]
    return splits.train.take(order), splits.test.take(slice(0, TEST))


def shuffled(images: ImageSet, locked: ImageSet) -> ImageSet:
    """Return the images under changes as large as the lock's, dealt to images of any class: the control."""
    change = locked.pixels.to(torch.int16) - images.pixels.to(torch.int16)
    order = torch.randperm(len(images), generator=generator(12))
    pixels = (images.pixels.to(torch.int16) + change[order]).clamp(0, 255).to(torch.uint8)
    return replace(images, pixels=pixels)


def mended(images: ImageSet, locked: ImageSet, clean: int = 5) -> ImageSet:
    """Return what a thief who knows the method makes of a locked set with ``clean`` originals of each class: by class, the difference of means taken off."""
    pixels = locked.pixels.float()
    for label in locked.labels.unique().tolist():
        own = locked.labels == label
        pixels[own] -= locked.pixels[own].float().mean(0) - images.pixels[own][:clean].float().mean(0)
    return replace(locked, pixels=pixels.round().clamp(0, 255).to(torch.uint8))


def variants() -> dict[str, Callable[[ImageSet], ImageSet]]:
    """Return what a thief may train on, by name."""
    return {
        "clean": lambda images: images,
        "features": lambda images: _locked(images, DatasetLock(eps=20, unit=10)),
        "pattern": lambda images: _locked(images, PATTERN),
        "pattern, means of 50 originals": lambda images: mended(images, _locked(images, PATTERN)),
        "dealt at random": lambda images: shuffled(images, _locked(images, PATTERN)),
    }


def _locked(images: ImageSet, lock: DatasetLock) -> ImageSet:
    """Return the locked set; its surrogate is a LeNet-5 by our own loop."""
    surrogate = build(SURROGATE, classes=len(images.classes), channels=images.shape[0], size=images.shape[1:], rng=generator(1))
    fit(surrogate, images.pixels, images.labels, Recipe(epochs=15, lr=0.05, batch=64, flip=True, crop=2), rng=generator(2))
    return lock.lock(images, surrogate, secret=b"truth" * 8, rng=generator(3))[0].images


def taught(variant: str, net: str) -> dict[str, Any]:
    """Return the accuracy on clean test images of one architecture that was trained on a set, in every way."""
    images, test = owned()
    given, rows = variants()[variant](images), []
    for change, settings in CHANGES.items():
        for optimiser in OPTIMISERS:
            script = Script(net=net, optimiser=optimiser, epochs=12, classes=len(images.classes), **settings)
            model = script(given.pixels, given.labels, derive_seed("taught", net, change, optimiser) % 2**31)
            right = int((predict(model, test.pixels).argmax(1) == test.labels).sum())
            rows.append({"change": change, "optimiser": optimiser, "right": right, "n": len(test)})
    return {
        "variant": variant,
        "net": net,
        "psnr": None if variant == "clean" else round(float(psnr(images.pixels / 255, given.pixels / 255).mean()), 2),
        "rows": rows,
    }
