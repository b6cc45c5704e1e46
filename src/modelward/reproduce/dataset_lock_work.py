"""Work of the recipe ``dataset-lock``: lock a set, deal out noise of the same size, and train on whatever a thief makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.rng import derive_seed, generator
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_model
from modelward.evaluation.rows import Row, rate
from modelward.evaluation.store import Store
from modelward.evaluation.zoo import null_recipe
from modelward.imaging.codecs import roundtrip
from modelward.imaging.quality import ssim
from modelward.keys.derive import derive
from modelward.locks.dataset_lock import DatasetLock
from modelward.models import build
from modelward.reproduce.dataset_lock_thieves import Thief, prepared, remapped
from modelward.training import Recipe, fit


def _packed(images: ImageSet, rows: list[Row], **arrays: Tensor) -> Outcome:
    """Return an image set as an artefact that `get_images` reads."""
    facts = {"classes": json.dumps(list(images.classes)), "name": images.name}
    whole = {"pixels": images.pixels, "labels": images.labels, **arrays}
    return Outcome([row.as_json() for row in rows], {name: tensor.contiguous().numpy() for name, tensor in whole.items()}, facts)


def lock(job: Job) -> Outcome:
    """Lock a set, send it through PNG, unlock it, and say what came back. Settings: ``fields``. Inputs: ``images``, ``surrogate``.

    The artefact is the locked set, with the unlocked pixels and the rooms of the hidden bits beside it.
    """
    torch.set_num_threads(job.threads)
    images, surrogate = get_images(job.store, job.inputs["images"]), get_model(job.store, job.inputs["surrogate"])
    method = DatasetLock(**dict(job.settings["fields"]))
    secret = derive(derive_seed(job.seed, "secret").to_bytes(8) * 4, "dataset-lock")
    locked, key = method.lock(images, surrogate, secret=secret, rng=generator(job.seed))
    sent = replace(locked, images=replace(locked.images, pixels=roundtrip(locked.images.pixels, "png")))
    opened = method.unlock(sent, key)
    right = int((opened.pixels == images.pixels).flatten(1).all(1).sum())
    a, b = locked.images.batch(slice(None)), images.batch(slice(None))
    gap = float((a.double() - b.double()).square().mean())
    common: dict[str, Any] = {"method": method.card.name, "variant": method.variant, "seed": job.seed, "data": images.name}
    fooled = int((predict(surrogate, locked.images.pixels).argmax(1) == predict(surrogate, images.pixels).argmax(1)).sum())
    rows = [
        rate("recovered_images", right, len(images), **common, extra={"counts": dict(locked.manifest["counts"])}),
        Row(metric="psnr", value=-10 * float(np.log10(gap)), n=len(images), unit="dB", **common),
        Row(metric="ssim", value=float(ssim(a, b).mean()), n=len(images), unit="", **common),
        Row(metric="linf", value=255 * float((a - b).abs().max()), n=len(images), unit="grey levels", **common),
        rate("surrogate_unmoved", fooled, len(images), **common),
    ]
    how = torch.tensor(locked.manifest["how"])
    return _packed(locked.images, rows, opened=opened.pixels, how=how, rooms=torch.tensor(locked.manifest["room"]))


def noise(job: Job) -> Outcome:
    """Give images changes that teach nothing and are as large. Settings: ``kind``. Inputs: ``images``, ``locked``.

    ``"noise"``: a random sign for each pixel, each image changed by the root mean square of its own lock. ``"shuffled"``: the changes of the
    locked images, dealt out to images at random.
    """
    images, locked = (get_images(job.store, job.inputs[name]) for name in ("images", "locked"))
    rng, change = generator(job.seed), locked.pixels.float() - images.pixels.float()
    if job.settings["kind"] == "noise":
        size = change.square().flatten(1).mean(1).sqrt()[:, None, None, None]
        change = size * (2 * torch.randint(0, 2, change.shape, generator=rng) - 1)
    else:
        change = change[torch.randperm(len(change), generator=rng)]
    made = (images.pixels.float() + change).round().clamp(0, 255).to(torch.uint8)
    gap = float(((made.float() - images.pixels.float()) / 255).square().mean())
    row = Row(
        metric="psnr", value=-10 * float(np.log10(max(gap, 1e-12))), n=len(images), unit="dB", attack=job.settings["kind"], seed=job.seed
    )
    return _packed(replace(images, pixels=made), [row])


def train(job: Job) -> Outcome:
    """Train on a set as a thief does, and ask the net about clean test images.

    Settings: ``metric``, ``arch``, ``thief``, ``budget`` (share of clean images), ``epochs`` (0: as the recipe says), ``fields`` of the lock.
    Inputs: ``images`` (what he has), ``clean`` (the originals), ``test``; ``opened``: train on the unlocked pixels instead.
    """
    torch.set_num_threads(job.threads)
    settings, test = job.settings, get_images(job.store, job.inputs["test"])
    images, clean = get_images(job.store, job.inputs["images"]), get_images(job.store, job.inputs["clean"])
    arrays, _ = Store(job.store).get(job.inputs["images"])
    if settings["metric"] == "authorised":
        images = replace(images, pixels=torch.from_numpy(arrays["opened"].copy()))
    thief = Thief(settings["thief"], float(settings["budget"]), DatasetLock(**dict(settings["fields"])), arrays, job.seed)
    mine, asked, recipe, adversary = prepared(thief, images, clean, test, _recipe(settings))
    net = _trained(settings["arch"], mine, recipe, job.seed, adversary)
    right = predict(net, asked.pixels).argmax(1) == test.labels
    extra: dict[str, Any] = {"state": state_digest(net), "arch": settings["arch"]}
    if thief.share:
        own = clean.few(max(1, round(thief.share * len(clean))))
        alone = _trained(settings["arch"], own, _recipe(settings), job.seed, None)
        extra["from_scratch"] = float((predict(alone, test.pixels).argmax(1) == test.labels).float().mean())
    common: dict[str, Any] = {"method": "dataset-lock", "seed": job.seed, "data": test.name, "model": settings["arch"]}
    budget = f"{thief.share:.0%} clean" if thief.share else ""
    rows = [rate(settings["metric"], int(right.sum()), len(test), attack=thief.name, budget=budget, **common, extra=extra)]
    if settings["metric"] == "unauthorised":
        few = clean.few(40)
        renamed = remapped(predict(net, few.pixels).argmax(1), few.labels, len(test.classes))[predict(net, test.pixels).argmax(1)]
        hits = int((renamed == test.labels).sum())
        rows.append(
            rate("recovered", hits, len(test), attack="labels renamed by 40 clean images", **common, extra={"arch": settings["arch"]})
        )
    return Outcome([row.as_json() for row in rows])


def _recipe(settings: Any) -> Recipe:
    """Return how victims are trained: as the independent models of the house are, with augmentation."""
    recipe = replace(null_recipe(settings["arch"]), crop=2, flip=bool(settings["flip"]))
    return replace(recipe, epochs=int(settings["epochs"])) if settings["epochs"] else recipe


def _trained(arch: str, images: ImageSet, recipe: Recipe, seed: int, adversary: Any) -> nn.Module:
    """Return a net trained on images; the same images and seed give the same weights."""
    rng = generator(derive_seed(seed, "victim"))
    channels, height, width = images.shape
    net = build(arch, classes=len(images.classes), channels=channels, size=(height, width), rng=rng)
    fit(net, images.pixels, images.labels, recipe, rng=rng, adversary=adversary)
    return net
