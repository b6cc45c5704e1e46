"""Work: randomise a model's layers from the last one on, and see when its fingerprint is gone."""

from __future__ import annotations

import torch

from modelward.core.catalogue import find
from modelward.core.errors import UsageError
from modelward.core.guard import private_copy
from modelward.core.ownership import OwnershipMethod
from modelward.core.rng import generator
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.family import family_of_job
from modelward.evaluation.parcels import get_images, get_model
from modelward.evaluation.rows import Row
from modelward.models.parts import reinitialise, weight_layers


def cascade(job: Job) -> Outcome:
    """Return the statistic of the victim with its last 0, 1, 2, ... weight layers drawn anew (Adebayo et al., NeurIPS 2018).

    A fingerprint that depends on the whole model is lost with the last layer; one that outlives it says something of the early layers, or of
    the images. Settings: ``method``, ``fields``. Inputs: ``victim``, ``probes``, and those of a family.
    """
    torch.set_num_threads(job.threads)
    method = find(job.settings["method"]).configured(dict(job.settings["fields"]))
    if not isinstance(method, OwnershipMethod):
        message = f"{job.settings['method']} proves no ownership"
        raise UsageError(message)
    victim = get_model(job.store, job.inputs["victim"])
    _, key = method.protect(victim, get_images(job.store, job.inputs["probes"]), siblings=family_of_job(job), rng=generator(job.seed))
    copied, rng = private_copy(victim), generator(job.seed)
    rows = []
    for count, (name, layer) in enumerate([("none", None), *reversed(list(weight_layers(copied)))]):
        if layer is not None:
            reinitialise(layer, rng=rng)
        verdict = method.verify(copied, key)
        row = Row(
            metric="cascade", value=verdict.statistic, n=verdict.queries, unit="distance", method=job.settings["method"], variant=verdict.variant,
            attack=f"last {count} layers random", budget=verdict.statistic_name, seed=job.seed, extra={"layer": name, "matches": verdict.matches},
        )  # fmt: skip
        rows.append(row.as_json())
    return Outcome(rows)
