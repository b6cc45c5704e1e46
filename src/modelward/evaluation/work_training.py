"""Work: train one independent model."""

from __future__ import annotations

import json

import torch

from modelward.core.canonical import canonical_json
from modelward.core.guard import predict
from modelward.core.rng import generator
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, pack_model
from modelward.evaluation.rows import rate
from modelward.models.nets import build
from modelward.training import Recipe, fit


def train(job: Job) -> Outcome:
    """Train a network on (a fraction of) a part of the data; return it with its accuracy on the test images and its lineage.

    Settings: ``arch``, ``recipe`` (fields of `Recipe`), ``fraction``, ``group``. Inputs: ``images``, ``test``.
    """
    torch.set_num_threads(job.threads)
    images, test = get_images(job.store, job.inputs["images"]), get_images(job.store, job.inputs["test"])
    rng = generator(job.seed)
    fraction = float(job.settings["fraction"])
    if fraction < 1:
        images = images.take(torch.randperm(len(images), generator=rng)[: max(1, round(fraction * len(images)))])
    channels, height, width = images.shape
    model = build(job.settings["arch"], classes=len(images.classes), channels=channels, size=(height, width), rng=rng)
    fit(model, images.pixels, images.labels, Recipe(**job.settings["recipe"]), rng=rng)
    correct = predict(model, test.pixels).argmax(1) == test.labels
    lineage = {
        "group": job.settings["group"], "parent": None, "data": images.name, "data_digest": images.digest, "images": len(images),
        "arch": job.settings["arch"], "recipe": dict(job.settings["recipe"]), "seed": job.seed, "accuracy": float(correct.float().mean()),
    }  # fmt: skip
    row = rate("accuracy", int(correct.sum()), len(correct), attack="none", model=job.settings["arch"], data=test.name, seed=job.seed,
               threads=job.threads, extra=lineage)  # fmt: skip
    packed = pack_model(model, {"lineage": canonical_json(lineage).decode()})
    return Outcome([row.as_json()], packed.arrays, packed.facts)


def lineage_of(facts: dict[str, str]) -> dict[str, object]:
    """Return the lineage written into an artefact's facts."""
    loaded: dict[str, object] = json.loads(facts.get("lineage", "{}"))
    return loaded
