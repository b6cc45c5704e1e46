"""Work: enrol one ownership method, verify every suspect of the farm, and say how well thieves and independents are told apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from modelward.core.catalogue import find
from modelward.core.errors import InputError, UsageError
from modelward.core.families import OwnershipMethod
from modelward.core.rng import generator
from modelward.core.suspect import Access, Suspect
from modelward.core.verdict import Verdict
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.family import family_of_job
from modelward.evaluation.parcels import get_images, get_model
from modelward.evaluation.remembering import Remembering
from modelward.evaluation.rows import Row, from_interval, rate
from modelward.evaluation.store import Store
from modelward.evaluation.work_training import lineage_of
from modelward.statistics import auc_delong, mann_whitney, upper_bound, wilson


def assess(job: Job) -> Outcome:
    """Enrol and verify.

    Settings: ``method``, ``fields``, ``access``, ``family``. Inputs: ``victim``, ``probes``, ``null/I``, ``validation/I``, ``thief/I``,
    ``stranger/I``, and those of a family of siblings (`modelward.evaluation.family`).

    Rows: one ``statistic`` per suspect with its verdict, one ``auc`` per group, recognised thieves, accused null models.
    """
    torch.set_num_threads(job.threads)
    settings = job.settings
    method = find(settings["method"]).configured(dict(settings["fields"]))
    if not isinstance(method, OwnershipMethod):
        message = f"{settings['method']} proves no ownership"
        raise UsageError(message)
    nulls, validation, thieves, strangers = (group_of(job, prefix) for prefix in ("null", "validation", "thief", "stranger"))
    opened = get_model if method.needs is Access.WEIGHTS else _remembered
    load = {digest: opened(job.store, digest) for digest in {**nulls, **validation, **thieves, **strangers}.values()}
    victim = get_model(job.store, job.inputs["victim"])
    _, key = method.protect(
        victim, get_images(job.store, job.inputs["probes"]), siblings=family_of_job(job), nulls=[load[d] for d in nulls.values()],
        thieves=[load[d] for d in validation.values()], rng=generator(job.seed),
    )  # fmt: skip
    suspects = [("independent", digest) for digest in nulls.values()]
    suspects += [("thief", digest) for digest in thieves.values()] + [("stranger", digest) for digest in strangers.values()]
    access = Access(settings.get("access", "weights"))
    verdicts = [(side, digest, method.verify(Suspect.of_model(load[digest], access=access), key)) for side, digest in suspects]
    facts = {digest: lineage_of(Store(job.store).get(digest)[1]) for _, digest in suspects}
    return Outcome([row.as_json() for row in _rows(settings, verdicts, facts, job)])


def _remembered(store: str, digest: str) -> Remembering:
    """Return a model of the farm that answers each batch once."""
    return Remembering(get_model(store, digest), digest)


def group_of(job: Job, prefix: str) -> dict[str, str]:
    """Return the inputs under ``prefix`` in order of their number."""
    chosen = [name for name in job.inputs if name.startswith(f"{prefix}/")]
    return {name: job.inputs[name] for name in sorted(chosen, key=lambda name: int(name.rpartition("/")[2]))}


def _rows(settings: Mapping[str, Any], verdicts: list[tuple[str, str, Verdict]], facts: dict[str, dict[str, Any]], job: Job) -> list[Row]:
    """Return the rows of one enrolment; suspects that the key cannot be read from are counted apart, and stand in no other figure."""
    whole, verdicts = len(verdicts), [one for one in verdicts if not math.isnan(one[2].statistic)]
    if not verdicts:
        message = f"{settings['method']}: the key can be read from none of {whole} suspects"
        raise InputError(message)
    common = {"method": settings["method"], "variant": verdicts[0][2].variant, "budget": verdicts[0][2].statistic_name, "seed": job.seed}
    rows = [
        Row(metric="statistic", value=v.statistic, n=v.queries, unit="distance", attack=str(facts[digest].get("method", "none")), model=digest, **common,
            extra={"side": side, "group": facts[digest].get("group"), "useful": bool(facts[digest].get("useful", True)), "p": v.p_value,
                   "accuracy": facts[digest].get("accuracy"), "decision": v.decision.value, "matches": v.matches, "fields": facts[digest].get("fields", {})})
        for side, digest, v in verdicts
    ]  # fmt: skip
    independent = [row for row in rows if row.extra.get("side") == "independent"]
    useful = [row for row in rows if row.extra.get("side") == "thief" and row.extra["useful"]]
    if independent:  # those that can be read
        rows += [_auc(group, [r for r in useful if r.extra["group"] == group], independent, common) for group in _order(useful)]
    if useful:
        rows += [_auc("all thieves", useful, independent, common)] if independent else []
        caught = sum(row.extra["matches"] for row in useful)  # a key that can be forged says no more without a commitment
        rows.append(rate("recognised", caught, len(useful), attack="all thieves", **common))
    last, accused = verdicts[0][2], sum(row.extra["matches"] for row in independent)
    rows.append(
        rate("false_claims", accused, len(independent), attack="independent models", **common,
             extra={"bound": upper_bound(accused, len(independent)) if independent else None, "draws": last.draws, "draws_of": last.draws_of,
                    "misses": [last.misses.missed, last.misses.tried]})
    )  # fmt: skip
    if len(verdicts) < whole:
        rows.append(rate("unreadable", whole - len(verdicts), whole, attack="suspects", **common))
    strangers = [row for row in rows if row.extra.get("side") == "stranger"]
    for group in _order(strangers):
        alike = [row for row in strangers if row.extra["group"] == group]
        accused = sum(row.extra["matches"] for row in alike)
        rows.append(rate("accused", accused, len(alike), attack=group, **common))
    return rows + (_matched(useful, independent, common) if independent else [])


def _order(rows: list[Row]) -> list[str]:
    """Return the groups in order of appearance."""
    return list(dict.fromkeys(str(row.extra["group"]) for row in rows))


def _auc(group: str, thieves: list[Row], independent: list[Row], common: dict[str, Any]) -> Row:
    """Return the AUC of one group against all independent models: thieves have the smaller distances."""
    positive, negative = (np.array([-row.value for row in rows]) for rows in (thieves, independent))
    interval = auc_delong(positive, negative)
    extra = {"thieves": len(thieves), "independents": len(independent), "p_mann_whitney": mann_whitney(positive, negative)}
    return from_interval("auc", interval, attack=group, unit="auc", **common, extra=extra)


def _matched(useful: list[Row], independent: list[Row], common: dict[str, Any], width: float = 0.02) -> list[Row]:
    """Return, per group of thieves, the AUC against the independent models whose accuracy is within 2 points of that group's mean."""
    rows = []
    for group in _order(useful):
        thieves = [row for row in useful if row.extra["group"] == group]
        mean = float(np.mean([row.extra["accuracy"] for row in thieves]))
        alike = [row for row in independent if abs(float(row.extra["accuracy"]) - mean) <= width]
        if alike:
            row = _auc(group, thieves, alike, common)
            rows.append(Row(**{**vars(row), "metric": "auc_accuracy_matched"}))
    return rows


def accuser(job: Job) -> Outcome:
    """Let a stranger enrol a model of his own and accuse the victim: he must not win.

    Inputs: ``victim``, ``accuser/I``, ``probes``, and a family of siblings, which the stranger passes off as his own; settings as in `assess`.
    """
    torch.set_num_threads(job.threads)
    method = find(job.settings["method"]).configured(dict(job.settings["fields"]))
    assert isinstance(method, OwnershipMethod)  # noqa: S101  # assess checks the same settings first
    victim = get_model(job.store, job.inputs["victim"])
    siblings = family_of_job(job)
    won, rows = 0, group_of(job, "accuser")
    details = []
    for digest in rows.values():
        _, key = method.protect(
            get_model(job.store, digest), get_images(job.store, job.inputs["probes"]), siblings=siblings, rng=generator(job.seed)
        )
        verdict = method.verify(Suspect.of_model(victim), key)
        won += verdict.found
        details.append({"accuser": digest, "statistic": verdict.statistic, "p": verdict.p_value, "decision": verdict.decision.value})
    interval = wilson(won, len(rows))
    row = from_interval(
        "unrelated_accuser_wins", interval, method=job.settings["method"], attack="unrelated accuser", extra={"claims": details}
    )
    return Outcome([row.as_json()])
