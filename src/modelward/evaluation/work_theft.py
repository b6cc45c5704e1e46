"""Work: steal one model, and measure what the thief got."""

from __future__ import annotations

import torch
from torch import Tensor

from modelward.core.canonical import canonical_json
from modelward.core.catalogue import find
from modelward.core.errors import UsageError
from modelward.core.families import TheftMethod
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.core.suspect import Suspect
from modelward.core.view import AttackerView, Labels
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_model, pack_model
from modelward.evaluation.rows import rate

MAX_DROP = 0.05


def halved(labels: Tensor, classes: int) -> Tensor:
    """Return labels in [0, classes) as labels of half as many classes, two at least: neighbours become one.

    >>> import torch
    >>> halved(torch.arange(5), 5).tolist()
    [0, 0, 1, 1, 2]
    """
    return labels * max(2, (classes + 1) // 2) // classes


def coarsened(images: ImageSet) -> ImageSet:
    """Return the same images with classes joined in pairs: another label set, as a thief with a task of his own has."""
    names, count = images.classes, len(images.classes)
    groups = halved(torch.arange(count), count).tolist()
    joined = [" or ".join(name for name, group in zip(names, groups, strict=True) if group == wanted) for wanted in sorted(set(groups))]
    return ImageSet(images.pixels, halved(images.labels, count), tuple(joined), f"{images.name}, classes in pairs")


def steal(job: Job) -> Outcome:
    """Run one theft; return the stolen model with its accuracy, its agreement with the victim and its lineage.

    Settings: ``method``, ``fields``, ``labels``, ``arch``, ``group``, ``access``, ``coarse``. Inputs: ``victim``, ``images``, ``test``.
    """
    torch.set_num_threads(job.threads)
    settings = job.settings
    images, test = get_images(job.store, job.inputs["images"]), get_images(job.store, job.inputs["test"])
    victim, coarse = get_model(job.store, job.inputs["victim"]), bool(settings.get("coarse", False))
    if coarse:
        images, test = coarsened(images), coarsened(test)
    method = find(settings["method"]).configured(dict(settings["fields"]))
    if not isinstance(method, TheftMethod):
        message = f"{settings['method']} is no theft"
        raise UsageError(message)
    view = AttackerView(Suspect.of_model(victim, access=settings["access"]), images, Labels(settings["labels"]), settings["arch"])
    result = method.run(view, rng=generator(job.seed))
    before, after = (predict(model, test.pixels).argmax(1) for model in (victim, result.value.model))
    before = halved(before, victim.classes) if coarse else before
    correct = after == test.labels
    drop = float((before == test.labels).float().mean() - correct.float().mean())
    used = int(result.value.log.get("images", len(images)))
    lineage = {
        "group": settings["group"], "parent": job.inputs["victim"], "method": settings["method"], "fields": dict(settings["fields"]),
        "data": images.name, "data_digest": images.digest, "images": used, "labels": settings["labels"], "arch": settings["arch"],
        "seed": job.seed, "accuracy": float(correct.float().mean()), "drop": drop, "agreement": float((before == after).float().mean()),
        "useful": drop <= MAX_DROP, "queries": result.queries, "log": result.value.log,
    }  # fmt: skip
    budget = ", ".join(f"{name} {value}" for name, value in settings["fields"].items())
    row = rate("thief_accuracy", int(correct.sum()), len(correct), attack=settings["method"], budget=budget, data=test.name, seed=job.seed,
               threads=job.threads, seconds=result.seconds, flags=result.flags, extra=lineage)  # fmt: skip
    packed = pack_model(result.value.model, {"lineage": canonical_json(lineage).decode()})
    return Outcome([row.as_json()], packed.arrays, packed.facts)
