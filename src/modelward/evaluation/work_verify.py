"""Work: ask one key about every model that was stolen from what it protects."""

from __future__ import annotations

import torch

from modelward.core.errors import InputError
from modelward.core.suspect import Suspect
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.dating import OLDER, says_so
from modelward.evaluation.parcels import get_key, get_model
from modelward.evaluation.rows import Row
from modelward.evaluation.store import Store
from modelward.evaluation.work_fingerprint import group_of
from modelward.evaluation.work_protect import configured
from modelward.evaluation.work_training import lineage_of

METRIC = "after_attack"


def verify(job: Job) -> Outcome:
    """Verify suspects with the key of a protection.

    Settings: ``method``, ``fields``, ``budgets`` (the settings of each suspect's theft, in words). Inputs: ``protected`` and ``suspect/I``.

    Rows: one a suspect, the statistic with what the thief's model is worth and whether the owner, whose key is older, finds it. A suspect that has
    nothing which the key could be read from counts as one that it does not fit.
    """
    torch.set_num_threads(job.threads)
    method, key = configured(job.settings), get_key(job.store, job.inputs["protected"])
    rows = []
    for number, digest in enumerate(group_of(job, "suspect").values()):
        lineage = lineage_of(Store(job.store).get(digest)[1])
        facts = {name: lineage.get(name) for name in ("accuracy", "drop", "useful", "agreement", "labels", "images", "group", "queries")}
        facts["log"] = {name: value for name, value in dict(lineage.get("log") or {}).items() if isinstance(value, int | float | str)}  # type: ignore[call-overload]
        common = {
            "metric": METRIC, "unit": "statistic", "method": method.card.name, "variant": method.variant, "seed": job.seed, "model": digest,
            "attack": str(lineage.get("method")), "budget": job.settings["budgets"][number],
        }  # fmt: skip
        try:
            verdict = method.verify(Suspect.of_model(get_model(job.store, digest)), key, commitment=OLDER)
        except InputError as error:
            rows.append(Row(value=float("nan"), n=0, flags=(f"not readable: {error}",), extra={**facts, "matches": False}, **common))
            continue
        said = {
            "matches": says_so(verdict, key),
            "decision": verdict.decision.value,
            "threshold": verdict.threshold,
            "p": verdict.p_value,
            "parametric_p": verdict.parametric_p,
        }
        rows.append(Row(value=verdict.statistic, n=1, extra={**facts, **said}, **common))
    return Outcome([row.as_json() for row in rows])
