"""Work: lock images, and measure what networks learn that are trained on them, by who holds the key and by who lacks it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from modelward.core.catalogue import find
from modelward.core.errors import ModelwardError, UsageError
from modelward.core.guard import predict
from modelward.core.image_locks import DataLock, LockedImages
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import derive_seed, generator
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_model, pack_key
from modelward.evaluation.rows import Row, rate
from modelward.evaluation.work_lock import GUESSES, shuffled
from modelward.evaluation.zoo import null_recipe
from modelward.imaging.filters import median_filter
from modelward.imaging.quality import psnr
from modelward.imaging.quantise import to_float, to_uint8
from modelward.keys.derive import derive
from modelward.models.nets import build
from modelward.training import fit

CLEAN = 0.1
LOST = 0.3  # what locked images are to cost whoever learns from them
USERS = ("user0", "user1", "user2")


def lock(job: Job) -> Outcome:
    """Lock images, train networks on what is published, and measure them on clean test images; the artefact holds the key.

    Settings: ``method``, ``fields``, ``arch``. Inputs: ``victim`` (the surrogate), ``owner``, ``attacker``, ``test``.
    """
    torch.set_num_threads(job.threads)
    method = find(job.settings["method"]).configured(dict(job.settings["fields"]))
    if not isinstance(method, DataLock):
        message = f"{job.settings['method']} locks no images"
        raise UsageError(message)
    owner, own, test = (get_images(job.store, job.inputs[name]) for name in ("owner", "attacker", "test"))
    secret = derive(derive_seed(job.seed, "secret").to_bytes(8, "big") * 4, "lock")
    started = time.perf_counter()
    locked, key = method.lock(owner, get_model(job.store, job.inputs["victim"]), secret=secret, rng=generator(job.seed))
    spent = time.perf_counter() - started
    same = int((method.unlock(locked, key).pixels == owner.pixels).flatten(1).all(1).sum())
    learn = _learner(job, test)
    found = [whole := learn("original", owner)]
    learn = _learner(job, test, ceiling=whole.value - LOST)
    found.append(learn("unauthorised", locked.images))
    if same == len(owner):  # the same images and the same seed are the same network
        found.append(replace(found[0], metric="authorised"))
    found += [*_attempts(learn, locked.images, own), learn("equal_noise", _noisy(owner, locked.images, job))]
    found += [
        rate("restored", same, len(owner), extra={"exact": method.exact}), _guessing(method, locked, key, owner, job),
        _customers(method, locked, key),
        Row(metric="stealth", value=float(psnr(to_float(owner.pixels), to_float(locked.images.pixels)).mean()), n=len(owner), unit="dB"),
        Row(metric="lock_seconds", value=spent, n=1, unit="seconds", seconds=spent),
    ]  # fmt: skip
    told = {"method": method.card.name, "variant": method.variant, "seed": job.seed, "data": test.name}
    packed = pack_key(key)
    return Outcome([{**row.as_json(), **told} for row in found], packed.arrays, packed.facts)


def _learner(job: Job, test: ImageSet, **said: float) -> Callable[..., Row]:
    """Return what trains a network on images and returns its accuracy on clean test images as a row; ``said`` goes with every row."""
    recipe = null_recipe(job.settings["arch"])

    def learn(metric: str, images: ImageSet, **rest: Any) -> Row:
        channels, height, width = images.shape
        rng = generator(derive_seed(job.seed, "train"))  # the same for all: what they learn differs by the images alone
        net = build(job.settings["arch"], classes=len(images.classes), channels=channels, size=(height, width), rng=rng)
        fit(net, images.pixels, images.labels, recipe, rng=rng)
        right = predict(net, test.pixels).argmax(1) == test.labels
        chance = float(test.labels.bincount().max() / len(test))
        return rate(metric, int(right.sum()), len(right), **{**rest, "extra": {"chance": chance, **said, **rest.get("extra", {})}})

    return learn


def _attempts(learn: Callable[..., Row], locked: ImageSet, own: ImageSet) -> list[Row]:
    """Return what thieves reach who clean the images, or put some of their own beside them; with the latter, the own ones alone beside it."""
    few = own.few(max(1, round(CLEAN * len(locked))))
    alone = learn("from_scratch", few)
    both = ImageSet(torch.cat([locked.pixels, few.pixels]), torch.cat([locked.labels, few.labels]), locked.classes, locked.name)
    cleaned = to_uint8(median_filter(to_float(locked.pixels)))
    return [
        learn("recovered", replace(locked, pixels=cleaned), attack="median filter", extra={"from_scratch": None, "group": "cleaning"}),
        learn("recovered", replace(locked, pixels=_coarse(locked.pixels)), attack="four grey levels", extra={"from_scratch": None, "group": "cleaning"}),
        learn("recovered", both, attack=f"{CLEAN:.0%} clean images beside", budget=f"images {len(few)}", extra={
            "from_scratch": alone.value, "from_scratch_ci": [alone.ci_low, alone.ci_high], "group": "clean images", "images": len(few),
        }),
    ]  # fmt: skip


def _coarse(pixels: Tensor) -> Tensor:
    """Return images of four grey levels a channel."""
    return pixels // 64 * 64 + 32


def _noisy(owner: ImageSet, locked: ImageSet, job: Job) -> ImageSet:
    """Return the clean images under noise of the lock's own size: each image's change, its signs drawn anew."""
    rng = generator(derive_seed(job.seed, "noise"))
    change = (locked.pixels.to(torch.int16) - owner.pixels.to(torch.int16)).abs()
    signs = torch.randint(0, 2, change.shape, generator=rng, dtype=torch.int16) * 2 - 1
    return replace(owner, pixels=(owner.pixels.to(torch.int16) + change * signs).clamp(0, 255).to(torch.uint8))


def _guessing(method: DataLock, locked: LockedImages, key: Key, owner: ImageSet, job: Job) -> Row:
    """Return how many keys of the right form and random content give images back."""
    rng, opens = generator(derive_seed(job.seed, "guesses")), 0
    for _ in range(GUESSES):
        try:
            opens += bool((method.unlock(locked, shuffled(key, rng=rng)).pixels == owner.pixels).all())
        except ModelwardError:
            continue
    return rate("guessed_keys_open", opens, GUESSES)


def _customers(method: DataLock, locked: LockedImages, key: Key) -> Row:
    """Return how many copies that were opened for a user name that user, and nobody else more often."""
    named = 0
    for user in USERS:
        votes = method.traced(method.unlock(locked, key, user=user), locked, key, USERS)
        named += max(votes, key=lambda name: votes[name], default=None) == user
    return rate("users_named", named, len(USERS))
