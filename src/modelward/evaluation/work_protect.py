"""Work: protect a model with one method, and measure all that can be said before anybody attacks it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from modelward.core.catalogue import find
from modelward.core.errors import InputError, UsageError
from modelward.core.families import OwnershipMethod
from modelward.core.guard import predict
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.core.suspect import Suspect
from modelward.core.verdict import Decision, Verdict
from modelward.evaluation.capacity import capacity
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.dating import OLDER, says_so
from modelward.evaluation.family import family_of_job
from modelward.evaluation.forging import forging, guessing, secret_of
from modelward.evaluation.parcels import get_images, get_model, pack_key
from modelward.evaluation.rows import Row, from_interval, points_lost, rate
from modelward.evaluation.stealth import weight_stealth
from modelward.evaluation.work_fingerprint import group_of
from modelward.statistics import auc_delong, upper_bound


def configured(settings: Mapping[str, Any]) -> OwnershipMethod:
    """Return the ownership method of a cell's settings."""
    method = find(settings["method"]).configured(dict(settings["fields"]))
    if not isinstance(method, OwnershipMethod):
        message = f"{settings['method']} proves no ownership"
        raise UsageError(message)
    return method


def protect(job: Job) -> Outcome:
    """Protect, and measure without any attack; the artefact holds the key, and the model where protecting changed it.

    Settings: ``method``, ``fields``, ``guesses`` (keys of other secrets tried on the protected model), ``forgeries`` (made for a stranger).

    Inputs: ``victim``, ``owner``, ``probes``, ``test``, ``null/I``, ``validation/I``, ``stranger/I``, and those of a family of siblings.
    """
    torch.set_num_threads(job.threads)
    method, victim = configured(job.settings), get_model(job.store, job.inputs["victim"])
    nulls, thieves, strangers = (_models(job, name) for name in _GROUPS)
    data = get_images(job.store, job.inputs["owner" if method.marks else "probes"])
    started = time.perf_counter()
    model, key = method.protect(
        victim, data, secret=secret_of(job.seed), siblings=family_of_job(job), nulls=nulls, thieves=thieves, rng=generator(job.seed)
    )
    spent = time.perf_counter() - started
    test = get_images(job.store, job.inputs["test"])
    found = [*_fidelity(victim, model, test), *_verification(method, model, key, spent), *_uniqueness(method, key, strangers)]
    found += capacity(method, model, key)
    found += guessing(method, model, key, data, source=victim, seed=job.seed, count=int(job.settings["guesses"]))
    found += forging(method, strangers, data, nulls, siblings=family_of_job(job), seed=job.seed, count=int(job.settings["forgeries"]))
    found += _stealth(key, nulls, test)
    found += weight_stealth(model, key, nulls) if method.marks else []
    rows = [{**row.as_json(), "method": method.card.name, "variant": method.variant, "seed": job.seed} for row in found]
    packed = pack_key(key, model if method.marks else None)
    return Outcome(rows, packed.arrays, packed.facts)


def _models(job: Job, prefix: str) -> list[nn.Module]:
    """Return the models that the job was given under ``prefix``."""
    return [get_model(job.store, digest) for digest in group_of(job, prefix).values()]


_GROUPS = ("null", "validation", "stranger")


def _fidelity(before: nn.Module, after: nn.Module, test: Any) -> list[Row]:
    """Return how much accuracy protecting costs, paired over the test images, and the share of them that an extra class takes."""
    answers = [predict(model, test.pixels).argmax(1) for model in (before, after)]
    right = [(answer == test.labels).numpy().astype(float) for answer in answers]
    beyond = int((answers[1] >= len(test.classes)).sum())
    return [points_lost(right[0], right[1]), rate("answers_beyond_classes", beyond, len(test))]


def _verification(method: OwnershipMethod, model: nn.Module, key: Key, seconds: float) -> list[Row]:
    """Return the verdict on the protected model itself, the null models that the key accuses, and what protecting and asking cost."""
    started = time.perf_counter()
    verdict = method.verify(Suspect.of_model(model), key, commitment=OLDER)
    took = time.perf_counter() - started
    bound = upper_bound(verdict.false_claims, verdict.nulls) if verdict.nulls else None
    facts = {
        "matches": says_so(verdict, key), "decision": verdict.decision.value, "threshold": verdict.threshold, "p": verdict.p_value,
        "parametric_p": verdict.parametric_p, "nulls": verdict.nulls,
        "draws": verdict.draws, "draws_of": verdict.draws_of, "statistic": verdict.statistic_name, "model_digest": key.model_digest,
        "forgeable": method.forgeable, "needs": method.needs.value,
    }  # fmt: skip
    return [
        Row(metric="verification", value=verdict.statistic, n=1, unit="statistic", seconds=took, extra=facts),
        rate("false_claims", verdict.false_claims, verdict.nulls, extra={"bound": bound}),
        Row(metric="queries", value=float(verdict.queries), n=1, unit="images"),
        Row(metric="protect_seconds", value=seconds, n=1, unit="seconds", seconds=seconds),
    ]


def _read(method: OwnershipMethod, model: nn.Module, key: Key) -> Verdict | None:
    """Return the verdict, or ``None`` when the model has nothing that the key could be read from."""
    try:
        return method.verify(Suspect.of_model(model), key, commitment=OLDER)
    except InputError:
        return None


def _uniqueness(method: OwnershipMethod, key: Key, strangers: list[nn.Module]) -> list[Row]:
    """Return how many models that calibrated nothing the key fits."""
    verdicts = [verdict for model in strangers if (verdict := _read(method, model, key)) is not None]
    accused = sum(says_so(verdict, key) for verdict in verdicts)
    extra = {
        "bound": upper_bound(accused, len(verdicts)) if verdicts else None,
        "undecided": sum(v.decision is Decision.UNDECIDED for v in verdicts),
    }
    return [rate("strangers_accused", accused, len(verdicts), extra=extra)]


def _stealth(key: Key, nulls: list[nn.Module], test: Any) -> list[Row]:
    """Return the AUC with which an independent model's confidence tells key images from ordinary ones: .5 is stealthy."""
    probes = key.tensors.get("probes")
    if probes is None or not nulls or probes.shape[1:] != test.pixels.shape[1:]:
        return []
    odd, usual = (-predict(nulls[0], pixels).softmax(1).amax(1).numpy().astype(np.float64) for pixels in (probes, test.pixels))
    interval = auc_delong(odd, usual)
    return [from_interval("key_image_auc", interval, unit="auc")]
