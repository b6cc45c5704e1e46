"""A family of siblings as inputs of a cell: what an enrolment inside a cell is given, and reads back."""

from __future__ import annotations

from typing import Any

from modelward.core.siblings import Siblings, TuningThief
from modelward.evaluation.cell import Cell, Job
from modelward.evaluation.parcels import get_images, get_model
from modelward.evaluation.siblings import Plan

GROUPS = ("sibling", "tuning", "tuned")


def family_inputs(made: Plan | None, images: str) -> tuple[dict[str, str | Cell], dict[str, Any]]:
    """Return the inputs and settings that tell a cell of its family; ``images`` is the digest of the stored training set.

    >>> family_inputs(None, "00")
    ({}, {})
    """
    if made is None:
        return {}, {}
    cells = {"sibling": made.ranked, "tuning": made.tuning, "tuned": [cell for _, _, cell in made.thefts]}
    inputs: dict[str, str | Cell] = {f"{name}/{index}": cell for name in GROUPS for index, cell in enumerate(cells[name])}
    about = made.about
    told = {
        "origin": about.origin, "start": about.start, "start_digest": about.start_digest, "code": about.code, "smoke": about.smoke, "root": about.root,
        "seeds": [cell.seed for cell in made.ranked], "tuned": [[of, spec.group] for of, spec, _ in made.thefts],
    }  # fmt: skip
    return {"trained on": images, **inputs}, {"family": told}


def family_of_job(job: Job) -> Siblings:
    """Return the family that a job was given; an empty one where it was given none."""
    told = job.settings.get("family")
    if told is None:
        return Siblings()
    groups = {name: [get_model(job.store, job.inputs[f"{name}/{index}"]) for index in range(_count(job, name))] for name in GROUPS}
    thieves = tuple(TuningThief(of, model, kind) for (of, kind), model in zip(told["tuned"], groups["tuned"], strict=True))
    return Siblings(
        models=tuple(groups["sibling"]), origin=told["origin"], start=told["start"], start_digest=told["start_digest"], code=told["code"],
        images=get_images(job.store, job.inputs["trained on"]), seeds=tuple(told["seeds"]), tuning=tuple(groups["tuning"]), thieves=thieves,
        smoke=bool(told["smoke"]), root=told.get("root"),
    )  # fmt: skip


def _count(job: Job, prefix: str) -> int:
    """Return how many inputs a job has under a prefix."""
    return sum(name.startswith(f"{prefix}/") for name in job.inputs)
