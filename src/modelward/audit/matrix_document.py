"""The document of a matrix: what was measured, and what it says in words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from modelward._version import __version__
from modelward.core.catalogue import find
from modelward.core.claims import all_claims
from modelward.data import Study
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Run
from modelward.evaluation.environment import environment
from modelward.evaluation.matrix import Plan, budget_of
from modelward.report.matrix import leaders, summary

SMOKE = "smoke: not evidence. Too few images and hardly any training; it shows that every cell runs."
Part = tuple[Plan, Mapping[str, Cell], Study]
"""What was done with one source: the plan, the cells that asked by protection, and the images."""


class Facts(TypedDict):
    """What a document says of the run that made it."""

    command: str
    profile: str
    seed: int
    arch: str
    frozen: str
    thresholds: dict[str, Any]
    seconds: float


def matrix_document(parts: Sequence[Part], run: Run, facts: Facts) -> dict[str, Any]:
    """Return the document of a finished run over the sources in ``parts``."""
    several = len({made.seed for made, _, _ in parts}) > 1
    name = data_name(parts[0][2])
    rows = [{**row, **_told(made, facts, name, several=several)} for made, asked, _ in parts for row in _rows(made, run, asked)]
    failed, unmade, partly = _lost(parts, run)
    methods = {name: cell.settings["method"] for made, _, _ in parts for name, cell in made.protections.items()}
    claims = {method: all_claims(find(method).card.claims) for method in methods.values()}
    table = summary(rows, failed, claims, unmade)
    board = leaders(table)
    sources = [
        {"arch": made.arch, "seed": made.seed, "accuracy": source.rows[0]["value"] if (source := run.of(made.source)) else None}
        for made, _, _ in parts
    ]
    sentences = [SMOKE] if facts["profile"] == "smoke" else []
    sentences += [
        f"{_count(len(table['rows']), 'protection')} of {_sources(parts)} on {name}, {len(table['attacks'])} attacks; {_sizes(parts)}.",
        "An attack works when the thief loses at most 5 points of accuracy and the key no longer fits.",
        *([POOLED] if several else []),
        *(f"Not made: {row}: {why}{_elsewhere(why, facts)}" for row, why in (unmade | partly).items()),
    ]
    return {
        "schema": "modelward/matrix", "version": 1, "modelward": __version__, "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "title": f"Matrix of protections and thieves, profile {facts['profile']}",
        "headline": _headline(board[0] if board and board[0]["decided"] else None), "sentences": sentences, "data": name,
        "accuracy": sources[0]["accuracy"], "sources": sources, "matrix": table, "failed": failed, "unmade": unmade, "rows": rows, **facts,
        "environment": environment(),
    }  # fmt: skip


POOLED = (
    "Over the seeds counts are added, losses averaged and the worst verification said; an attack that works with one seed works: how many did "
    "stands in its cell."
)


def data_name(parts: Study) -> str:
    """Return what the data set is called."""
    return parts.owner.name.removesuffix(" owner").removesuffix(" train")


def _elsewhere(why: str, facts: Facts) -> str:
    """Say how to get a row that this architecture cannot have, where the reason names one that can."""
    return " (--arch cnn gives this row)" if "cnn" in why and "cnn" not in facts["arch"] else ""


def _told(made: Plan, facts: Facts, data: str, *, several: bool) -> dict[str, Any]:
    """Return what each row says of the run."""
    told: dict[str, Any] = {"profile": facts["profile"], "command": facts["command"], "data": data}
    return {**told, "repeat": made.seed} if several else told


def _lost(parts: Sequence[Part], run: Run) -> tuple[dict[str, dict[str, str]], dict[str, str], dict[str, str]]:
    """Return why thefts failed, by protection and attack; why protections could not be made; and those that could not with some seeds."""
    failed: dict[str, dict[str, str]] = {}
    unmade, made_once = dict[str, tuple[int, str]](), set[str]()
    for made, _, _ in parts:
        for name, cell in made.protections.items():
            if cell.key in run.failed:
                unmade[name] = (made.seed, run.failed[cell.key])
                continue
            made_once.add(name)
            failed[name] = failed.get(name, {}) | _failures(made, run, name)
    never = {name: why for name, (_, why) in unmade.items() if name not in made_once}
    partly = {f"{name}, seed {seed}": why for name, (seed, why) in unmade.items() if name in made_once}
    return failed, never, partly


def _count(number: int, word: str) -> str:
    """Return a number with its word."""
    return f"{number} {word}{'s' * (number != 1)}"


def _sources(parts: Sequence[Part]) -> str:
    """Name the sources."""
    archs, seeds = list(dict.fromkeys(made.arch for made, _, _ in parts)), len({made.seed for made, _, _ in parts})
    return f"one {archs[0]}" if len(parts) == 1 else f"{' and '.join(archs)}" + (f", {seeds} seeds each," if seeds > 1 else "")


def _sizes(parts: Sequence[Part]) -> str:
    """Say how many images everybody had, and the seeds."""
    images, seeds = parts[0][2], sorted({made.seed for made, _, _ in parts})
    told = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    return f"owner {len(images.owner)}, thieves {len(images.attacker)} other images, test {len(images.test)}, {told}"


def _headline(best: Mapping[str, Any] | None) -> str:
    """Say in one sentence what came out."""
    if best is None:
        return "No attack left a thief with a useful model, so nothing was decided."
    if best["broken"]:
        return f"None withstood all that was tried against it; {best['name']} withstood most, {best['robust']} of {best['decided']}."
    return f"{best['name']} withstood all {best['decided']} attacks that left the thief a useful model."


def _rows(made: Plan, run: Run, asked: Mapping[str, Cell]) -> Iterator[dict[str, Any]]:
    """Yield the rows of protecting and of verifying; what the theft took is told with each."""
    for name, cell in made.protections.items():
        finished, verified = run.of(cell), run.of(asked[name]) if name in asked else None
        before = finished.rows if finished else ()
        protected = next((row["extra"]["model_digest"] for row in before if row["metric"] == "verification"), "")
        for row in before:
            yield {**row, "protection": name, "model": row.get("model") or protected}
        spent = {(spec.method, budget_of(spec)): theft for spec, cell in made.thefts[name] if (theft := run.of(cell)) is not None}
        for row in verified.rows if verified else ():
            theft = spent[row["attack"], row["budget"]]
            yield {**row, "protection": name, "seconds": theft.seconds, "flags": [*row["flags"], *theft.rows[0]["flags"]]}


def _failures(made: Plan, run: Run, name: str) -> dict[str, str]:
    """Return, by attack, why no theft of that kind could be run on what ``name`` protects."""
    done = {spec.method for spec, cell in made.thefts[name] if run.of(cell) is not None}
    return {spec.method: run.failed.get(cell.key, "not run") for spec, cell in made.thefts[name] if spec.method not in done}
