"""Work: accuracy over eps under one attack, for floats and after rounding to 8 bits."""

from __future__ import annotations

import math

import numpy as np
import torch

from modelward.attacks.evasion.flags import masking_flags
from modelward.core.catalogue import find
from modelward.core.errors import UsageError
from modelward.core.families import EvasionMethod
from modelward.core.guard import predict
from modelward.core.rng import derive_seed, generator
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_model
from modelward.evaluation.robustness import robust_under
from modelward.evaluation.rows import rate


def curve(job: Job) -> Outcome:
    """Attack the first ``count`` test images at each eps; images that are misclassified anyway are not attacked and count as lost.

    Settings: ``method``, ``fields`` (``step`` may be left to eps / 4), ``norm``, ``eps`` (list), ``count``. Inputs: ``model``, ``test``.
    Arrays: ``robust_8bit`` and ``robust_float``, bool (len(eps), count).
    """
    torch.set_num_threads(job.threads)
    settings = job.settings
    images, model = get_images(job.store, job.inputs["test"]), get_model(job.store, job.inputs["model"])
    images = images.few(int(settings["count"]))
    correct = predict(model, images.pixels).argmax(1) == images.labels
    rounded, exact, rows = [], [], []
    for eps in settings["eps"]:
        method = _at(settings["method"], dict(settings["fields"]), settings["norm"], float(eps))
        found = robust_under(method, model, images, rng=generator(derive_seed(job.seed, eps)), correct=correct)
        rounded.append(found.robust_8bit.numpy())
        exact.append(found.robust.numpy())
        budget = f"{settings['norm']} {radius_words(eps, settings['norm'])}"
        extra = {"eps": eps, "norm": settings["norm"], "float_accuracy": float(found.robust.float().mean()), "max_change": found.worst,
                 "unchanged": int(correct.sum())}  # fmt: skip
        rows.append(
            rate("accuracy", int(found.robust_8bit.sum()), len(correct), attack=settings["method"], budget=budget, data=images.name, seed=job.seed,
                 threads=job.threads, seconds=found.seconds, flags=found.flags, extra=extra).as_json()
        )  # fmt: skip
    return Outcome(rows, {"robust_8bit": np.stack(rounded), "robust_float": np.stack(exact), "correct": correct.numpy()})


def radius_words(eps: float, norm: str) -> str:
    """Return eps as people write it: a fraction of 255 for Linf."""
    if math.isinf(eps):
        return "without a cap"
    return f"{round(eps * 255)}/255" if norm == "linf" and abs(eps * 255 - round(eps * 255)) < 1e-6 else f"{eps:g}"


def _at(name: str, fields: dict[str, object], norm: str, eps: float) -> EvasionMethod:
    """Return the attack at one eps; iterated attacks step eps / 4 unless told otherwise."""
    kind = find(name)
    if "step" in {*getattr(kind, "__dataclass_fields__", {})} and "step" not in fields:
        fields["step"] = eps / 4
    method = kind.configured({**fields, "norm": norm, "eps": eps})
    if not isinstance(method, EvasionMethod):
        message = f"{name} is no evasion attack"
        raise UsageError(message)
    return method


def signs(job: Job) -> Outcome:
    """Look for the signs of masked gradients on the first ``count`` test images. Inputs: ``model``, ``test``."""
    torch.set_num_threads(job.threads)
    images, model = get_images(job.store, job.inputs["test"]), get_model(job.store, job.inputs["model"])
    images = images.few(int(job.settings["count"]))
    found = masking_flags(model, images.batch(slice(None)), images.labels)
    row = rate("masking_signs", len(found), 5, unit="count of 5", data=images.name, seed=job.seed, extra={"found": found})
    return Outcome([row.as_json()])
