"""Run an audit: plan, cells, report document."""

from __future__ import annotations

import collections
import datetime as dt
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelward._version import __version__
from modelward.audit.fingerprint_section import fingerprint_section
from modelward.audit.model_sections import clean_section, corruption_section, cost_section, evasion_section, intake_section
from modelward.audit.plan import WORDS, Plan, make_plan
from modelward.audit.question import Ground, Question, prepare, subject
from modelward.audit.section import section
from modelward.audit.theft_section import theft_section
from modelward.core.errors import ModelwardError
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine, Run, closure
from modelward.evaluation.environment import environment as surroundings
from modelward.evaluation.store import Store
from modelward.report.conditions import condition_checks

WORKER_BYTES = 420 * 2**20


@dataclass(frozen=True)
class Estimate:
    """What a plan would cost: cells, those already in the store, seconds and bytes of memory, and (kind, count, seconds) lines."""

    cells: int
    cached: int
    seconds: float
    memory_bytes: int
    lines: list[tuple[str, int, float]]


def estimate(cells: list[Cell], store: Store, jobs: int | None = None) -> Estimate:
    """Return what running ``cells`` would cost on this machine with ``jobs`` processes."""
    workers = Engine(store, jobs=jobs).jobs
    ordered = closure(cells)
    done = store.find_many(cell.key for cell in ordered)
    kinds: dict[str, list[float]] = collections.defaultdict(list)
    for cell in ordered:
        kinds[WORDS.get(cell.work.rpartition(".")[2], cell.work)].append(0.0 if cell.key in done else cell.seconds)
    seconds = sum(sum(times) for times in kinds.values()) / workers
    lines = [(kind, len(times), sum(times)) for kind, times in kinds.items()]
    return Estimate(len(ordered), len(done), seconds, (workers + 1) * WORKER_BYTES, lines)


def dry_run(question: Question, store: Store, *, jobs: int | None = None) -> Estimate:
    """Return what the audit would do and cost, without doing it."""
    return estimate(list(make_plan(prepare(question, store)).cells()), store, jobs)


def audit(question: Question, store: Store, *, jobs: int | None = None, command: str = "") -> dict[str, Any]:
    """Audit a model and return the report document (schema ``modelward/report``, version 1).

    Finished cells come from the store; the same call after an interruption goes on where it stopped.

    Raises
    ------
    ModelwardError
        when model or data cannot be used, or when nothing could be measured.
    """
    started = time.perf_counter()
    ground = prepare(question, store)
    plan = make_plan(ground)
    run = Engine(store, jobs=jobs).run(list(plan.cells()), task="audit")
    if not run.finished:
        message = f"no cell of the audit could be finished: {next(iter(run.failed.values()), 'nothing was planned')}"
        raise ModelwardError(message)
    return document(ground, plan, run, command, time.perf_counter() - started)


def document(ground: Ground, plan: Plan, run: Run, command: str, seconds: float) -> dict[str, Any]:
    """Return the report document of a finished run."""
    sections = [
        intake_section(ground, plan, run), clean_section(ground, plan, run), evasion_section(ground, plan, run),
        corruption_section(ground, plan, run), theft_section(ground, plan, run), fingerprint_section(ground, plan, run),
    ]  # fmt: skip
    if ground.question.fail_if:
        sections.append(conditions_section(ground.question.fail_if, sections))
    cost = cost_section(plan, run, seconds)
    for part in sections:
        for row in part["rows"]:
            row.update(profile=ground.question.profile, command=command, model=row["model"] or ground.victim[:16])
    return {
        "schema": "modelward/report", "version": 1, "modelward": __version__, "command": command, "profile": ground.question.profile,
        "title": f"Audit of {subject(ground)['model']}", "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "subject": subject(ground), "verdict": _verdict(sections, ground), "environment": environment(ground), "sections": [*sections, cost],
        "cost": {"seconds": seconds, "cells": len(closure(plan.cells())), "cached": sum(f.cached for f in run.finished.values()),
                 "work_seconds": sum(f.seconds for f in run.finished.values()), "failed": run.failed},
    }  # fmt: skip


def conditions_section(texts: Sequence[str], sections: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Say which of the user's conditions are met; one that no figure is about fails too: a gate must not pass unseen."""
    checks = condition_checks(texts, sections)
    met, blind = ([check["name"] for check in checks if check["status"] == status] for status in ("failed", "not tested"))
    lead = f"{len(met)} of {len(checks)} conditions to fail on are met{': ' if met else ''}{'; '.join(met)}."
    lead += f" No figure was measured for {'; '.join(blind)}." if blind else ""
    return section("conditions", "Conditions", "failed" if met or blind else "passed", lead, checks=checks)


def _verdict(sections: list[dict[str, Any]], ground: Ground) -> dict[str, Any]:
    """Return the verdict: the lead of every section in one sentence each, the worst status."""
    by_status = collections.Counter(section["status"] for section in sections)
    failed = [_short(section["title"]) for section in sections if section["status"] == "failed"]
    flagged = [_short(section["title"]) for section in sections if section["status"] == "flagged"]
    if failed:
        headline = f"This model needs attention: {_and(failed)}."
    elif flagged:
        headline = f"Nothing failed, but look at {_and(flagged)}."
    else:
        headline = "Every check passed."
    smoke = ["This was a smoke run: too few images and models to be evidence."] if ground.question.profile == "smoke" else []
    status = "failed" if by_status["failed"] else "flagged" if by_status["flagged"] else "passed"
    return {"headline": headline, "status": status, "sentences": [*smoke, *(section["lead"] for section in sections), *ground.notes]}


def _short(title: str) -> str:
    """Return a section's title as it stands in a sentence.

    >>> _short("Recognising thieves: SAC-JC")
    'recognising thieves'
    """
    name = title.partition(":")[0]
    return name[:1].lower() + name[1:]


def _and(names: list[str]) -> str:
    """Join names as one does in a sentence.

    >>> _and(["a", "b", "c"])
    'a, b and c'
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def environment(ground: Ground) -> dict[str, Any]:
    """Return what a result may depend on besides its seeds."""
    return {
        **surroundings(), "threads a cell": ground.question.threads, "seed": ground.question.seed, "figures": "fp32, images rounded to 8 bits",
        "training": "bf16 autocast where the processor multiplies it by itself", "trained on": ground.study.owner.name,
    }  # fmt: skip
