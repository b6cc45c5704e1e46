"""Work of the recipe ``gan-removal``: mark a model, look for a trigger in one, and ask a model for the mark. The thief's cells never see a key."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modelward.core.catalogue import find
from modelward.core.errors import UsageError
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_key, get_model, pack_key
from modelward.evaluation.rows import Row, rate
from modelward.keys.derive import derive
from modelward.marking.inversion import Inversion
from modelward.marking.scanning import scan
from modelward.ownership.mark import MarkMethod
from modelward.ownership.zhang import EVERY, Zhang


def marker(settings: Any) -> MarkMethod:
    """Return the marking method of a cell's settings."""
    method = find(settings["method"]).configured(dict(settings["fields"]))
    if not isinstance(method, MarkMethod):
        message = f"{settings['method']} marks no model"
        raise UsageError(message)
    return method


def _secret(seed: int) -> bytes:
    """Return the owner's secret of a cell."""
    return derive(seed.to_bytes(8, "big") * 2, "gan-removal")


def mark(job: Job) -> Outcome:
    """Mark a model. Settings: ``method``, ``fields``, ``secret`` (a seed). Inputs: ``victim``, ``owner``."""
    torch.set_num_threads(job.threads)
    method, victim = marker(job.settings), get_model(job.store, job.inputs["victim"])
    owner = get_images(job.store, job.inputs["owner"])
    model, key = method.protect(victim, owner, secret=_secret(job.settings["secret"]), rng=generator(job.seed))
    packed = pack_key(key, model)
    return Outcome(arrays=packed.arrays, facts=packed.facts)


def ask(job: Job) -> Outcome:
    """Measure how much of a mark is left in a suspect, on keys or stamped images that no thief saw, and what the suspect is worth.

    Settings: ``method``, ``fields``, ``secret``. Inputs: ``suspect``, ``marked`` (its artefact holds the key), ``test``.
    """
    torch.set_num_threads(job.threads)
    method, key = marker(job.settings), get_key(job.store, job.inputs["marked"])
    suspect, marked = (get_model(job.store, job.inputs[name]) for name in ("suspect", "marked"))
    test = get_images(job.store, job.inputs["test"])
    right = [int((predict(model, test.pixels).argmax(1) == test.labels).sum()) for model in (suspect, marked)]
    facts: dict[str, Any] = {"method": method.card.name, "variant": method.variant, "data": test.name, "seed": job.seed}
    extra = {"drop": (right[1] - right[0]) / len(test)}
    rows = [
        _retention(method, suspect, key, test, _secret(job.settings["secret"]), facts),
        rate("accuracy", right[0], len(test), **facts, extra=extra),
    ]
    return Outcome([row.as_json() for row in rows])


def _retention(method: MarkMethod, suspect: nn.Module, key: Key, test: ImageSet, secret: bytes, facts: dict[str, Any]) -> Row:
    """Return the share of stamped test images with the mark's class; of marks without a stamp, the share of the key that is found."""
    if isinstance(method, Zhang) and method.kind != "unrelated":
        pixels = _stamped(method, key, test, secret)
        hits = int((predict(suspect, pixels).argmax(1) == key.facts["target"]).sum())
        return rate("retention", hits, len(pixels), **facts, extra={"of": "stamped images that are in no key"})
    found = 1 - method.verify(suspect, key).statistic
    count = method.enrolled(key).counted(key) if "labels" in key.tensors else 0
    extra = {"of": "the key"}
    return (
        rate("retention", round(found * count), count, **facts, extra=extra)
        if count
        else Row(metric="retention", value=found, n=1, **facts, extra=extra)
    )


def _stamped(method: Zhang, key: Key, test: ImageSet, secret: bytes) -> Tensor:
    """Return test images of the source under the stamp."""
    source, target = key.facts["source"], key.facts["target"]
    chosen = test.labels != target if source == EVERY else test.labels == source
    return method.stamped(test.pixels[chosen], derive(secret, method.card.name, method.user))


def hunt(job: Job) -> Outcome:
    """Scan a model. Settings: ``steps``, ``restarts``, ``kind``, ``realism``; ``method``, ``fields``, ``secret`` where it is marked.

    Inputs: ``model``, ``images``, ``test``; ``marked``, opened after the scan alone, to see how much of the mask lies where the stamp is.
    """
    torch.set_num_threads(job.threads)
    settings, images = job.settings, get_images(job.store, job.inputs["images"])
    plan = Inversion(kind=settings["kind"], steps=settings["steps"], realism=settings["realism"])
    found = scan(get_model(job.store, job.inputs["model"]), images, plan=plan, restarts=settings["restarts"], rng=generator(job.seed))
    extra: dict[str, Any] = {
        "flagged": list(found.flagged), "anomaly": found.anomaly.tolist(), "sizes": found.sizes.tolist(), "p": found.p.tolist(),
        "success": found.success.tolist(),
    }  # fmt: skip
    if "marked" in job.inputs:
        method, key, test = marker(settings), get_key(job.store, job.inputs["marked"]), get_images(job.store, job.inputs["test"])
        extra["target"] = key.facts.get("target")
        if isinstance(method, Zhang) and method.kind == "content" and extra["target"] in found.classes:
            where = (method.stamped(test.pixels, _secret_of(method, settings)) != test.pixels).any(0).any(0)
            mask = found.masks[found.classes.index(extra["target"]), 0]
            extra["mass"] = float(mask[where].sum() / mask.sum())
    return Outcome([rate("flagged", len(found.flagged), len(found.classes), attack="scan", seed=job.seed, extra=extra).as_json()])


def _secret_of(method: Zhang, settings: Any) -> bytes:
    """Return the secret that a method's stamp comes from."""
    return derive(_secret(settings["secret"]), method.card.name, method.user)
