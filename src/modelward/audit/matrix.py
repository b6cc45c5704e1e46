"""The matrix: protect sources by every method, steal what was protected in every way, ask every key; thresholds stand before the thefts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from modelward.audit.matrix_document import Facts, matrix_document
from modelward.core.claims import Claim
from modelward.core.errors import FormatError, ModelwardError, UsageError
from modelward.data import Study, load_data, study
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine, Run, closure
from modelward.evaluation.matrix import Plan, frozen, plan, protections, verifications
from modelward.evaluation.store import Store
from modelward.io.documents import read_document
from modelward.report.matrix import summary

SMOKE_IMAGES = 500
MOST_BYTES = 64 * 2**20


def matrix(
    *, archs: Sequence[str] = ("lenet5",), data: str = "fashion-mini", profile: str = "quick", methods: Sequence[str] = (),
    variants: Sequence[str] = ("hardened",), seed: int = 0, seeds: int = 1, store: Store, jobs: int | None = None, command: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Measure which protection survives which thief; return the document (schema ``modelward/matrix``, version 1).

    Finished cells come from the store; the same call after an interruption goes on where it stopped.

    Parameters
    ----------
    archs, data
        architectures and images of the sources, which are trained for this; each architecture has its own rows.
    profile
        ``smoke``, ``quick`` or ``full``.
    methods, variants
        rows of the matrix; every ownership method when none is named.
    seed, seeds
        the first seed and how many: each has its own split of the images, sources, keys and thieves, and they are pooled in one row.

    Raises
    ------
    UsageError
        for an unknown method, variant or profile, and an architecture named twice.
    ModelwardError
        when no protection could be made.
    """
    started = time.perf_counter()
    engine = Engine(store, jobs=jobs)
    plans = _plans(engine, archs, data, profile, methods, variants, range(seed, seed + seeds))
    cells = [cell for made, _ in plans for cell in made.protections.values()]
    run = engine.run(cells, task="protections")
    if not any(run.of(cell) for cell in cells):
        message = f"nothing could be protected: {next(iter(run.failed.values()), 'no method was chosen')}"
        raise ModelwardError(message)
    digest, thresholds = frozen(run, dict(_by_name(plans, seeds)))
    todo = [cell for made, _ in plans for name, row in made.thefts.items() if run.of(made.protections[name]) for _, cell in row]
    stolen = engine.run(todo, task="thefts")
    asked = [verifications(made, _joined(run, stolen)) for made, _ in plans]
    verified = engine.run([cell for cells in asked for cell in cells.values()], task="verification")
    facts: Facts = {
        "command": command, "profile": profile, "seed": seed, "arch": ", ".join(archs), "frozen": digest, "thresholds": thresholds,
        "seconds": time.perf_counter() - started,
    }  # fmt: skip
    parts = [(made, cells, study) for (made, study), cells in zip(plans, asked, strict=True)]
    return matrix_document(parts, _joined(run, stolen, verified), facts)


def read_matrix(path: Path) -> dict[str, Any]:
    """Return the document in a ``matrix.json``, its table made again from its rows alone.

    Raises
    ------
    FormatError
        for a file that is no such document, or one of a newer version.
    """
    document = read_document(path, "modelward/matrix", 1, cap=MOST_BYTES)
    try:
        said = {row["name"].partition(",")[0]: [Claim(**claim) for claim in row["said"]] for row in document["matrix"]["rows"]}
        return {**document, "matrix": summary(document["rows"], document["failed"], said, document["unmade"])}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        message = f"{path.name} is damaged: its rows lack {error}"
        raise FormatError(message) from error


def dry_run_matrix(
    *, archs: Sequence[str], data: str, profile: str, methods: Sequence[str], variants: Sequence[str], seed: int, seeds: int, store: Store,
    jobs: int | None,
) -> list[Cell]:  # fmt: skip
    """Return the cells of a matrix that are known beforehand: all but the asking itself, which takes seconds."""
    plans = _plans(Engine(store, jobs=jobs), archs, data, profile, methods, variants, range(seed, seed + seeds))
    return closure(
        [cell for made, _ in plans for cell in (*made.protections.values(), *(c for row in made.thefts.values() for _, c in row))]
    )


def _plans(
    engine: Engine, archs: Sequence[str], data: str, profile: str, methods: Sequence[str], variants: Sequence[str], seeds: range
) -> list[tuple[Plan, Study]]:  # fmt: skip
    """Return what is to be done with the source of each architecture and seed, and the images it has."""
    if len(set(archs)) < len(archs) or not archs:
        message = f"each architecture once, and at least one; got {', '.join(archs) or 'none'}"
        raise UsageError(message)
    if not seeds:
        raise UsageError("a matrix needs at least one seed")
    rows, studies = protections(methods, variants, profile), {seed: _study(data, profile, seed) for seed in seeds}
    named = {arch: {row.name + (f", {arch}" if len(archs) > 1 else ""): row for row in rows} for arch in archs}
    return [
        (plan(named[arch], arch, parts, engine, profile=profile, seed=seed), parts) for arch in archs for seed, parts in studies.items()
    ]


def _by_name(plans: Sequence[tuple[Plan, Study]], seeds: int) -> Iterator[tuple[str, Cell]]:
    """Yield all protections by name, and by seed where there are several."""
    for made, _ in plans:
        for name, cell in made.protections.items():
            yield name + (f", seed {made.seed}" if seeds > 1 else ""), cell


def _study(data: str, profile: str, seed: int) -> Study:
    """Return the parts of the data set."""
    return study(load_data(data, limit=SMOKE_IMAGES if profile == "smoke" else None), trained_on="owner", seed=seed)


def _joined(*runs: Run) -> Run:
    """Return several runs as one."""
    return Run(
        {k: v for run in runs for k, v in run.finished.items()}, {k: v for run in runs for k, v in run.failed.items()}, runs[0].store
    )
