"""The matrix: protect a source by every method, steal what was protected in every way, ask every key; thresholds stand before the thefts."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelward._version import __version__
from modelward.core.claims import Claim
from modelward.core.errors import FormatError, ModelwardError
from modelward.data import Study, load_data, study
from modelward.evaluation.candidate import Candidate
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine, Run, closure
from modelward.evaluation.environment import environment
from modelward.evaluation.matrix import Plan, budget_of, frozen, plan, protections, verifications
from modelward.evaluation.store import Store
from modelward.io.documents import read_document
from modelward.report.matrix import leaders, summary

SMOKE_IMAGES = 500
MOST_BYTES = 64 * 2**20
SMOKE = "smoke: not evidence. Too few images and hardly any training; it shows that every cell runs."


def matrix(
    *, arch: str = "lenet5", data: str = "fashion-mini", profile: str = "quick", methods: Sequence[str] = (),
    variants: Sequence[str] = ("hardened",), seed: int = 0, store: Store, jobs: int | None = None, command: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Measure which protection survives which thief; return the document (schema ``modelward/matrix``, version 1).

    Finished cells come from the store; the same call after an interruption goes on where it stopped.

    Parameters
    ----------
    arch, data
        architecture and images of the source, which is trained for this.
    profile
        ``smoke``, ``quick`` or ``full``.
    methods, variants
        rows of the matrix; every ownership method when none is named.

    Raises
    ------
    UsageError
        for an unknown method, variant or profile.
    ModelwardError
        when no protection could be made.
    """
    started = time.perf_counter()
    rows, parts = protections(methods, variants, profile), _study(data, profile, seed)
    engine = Engine(store, jobs=jobs)
    made = plan(rows, arch, parts, engine, profile=profile, seed=seed)
    run = engine.run(list(made.protections.values()), task="protections")
    if not any(run.of(cell) for cell in made.protections.values()):
        message = f"nothing could be protected: {next(iter(run.failed.values()), 'no method was chosen')}"
        raise ModelwardError(message)
    digest, thresholds = frozen(run, made.protections)
    stolen = engine.run([cell for name, row in made.thefts.items() if run.of(made.protections[name]) for _, cell in row], task="thefts")
    asked = verifications(made, _joined(run, stolen))
    verified = engine.run(list(asked.values()), task="verification")
    whole = _joined(run, stolen, verified)
    return _document(made, rows, whole, asked, parts, {
        "command": command, "profile": profile, "seed": seed, "arch": arch, "frozen": digest, "thresholds": thresholds,
        "seconds": time.perf_counter() - started,
    })  # fmt: skip


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
    *, arch: str, data: str, profile: str, methods: Sequence[str], variants: Sequence[str], seed: int, store: Store, jobs: int | None
) -> list[Cell]:
    """Return the cells of a matrix that are known beforehand: all but the asking itself, which takes seconds."""
    engine = Engine(store, jobs=jobs)
    made = plan(protections(methods, variants, profile), arch, _study(data, profile, seed), engine, profile=profile, seed=seed)
    return closure([*made.protections.values(), *(cell for row in made.thefts.values() for _, cell in row)])


def _study(data: str, profile: str, seed: int) -> Study:
    """Return the parts of the data set."""
    return study(load_data(data, limit=SMOKE_IMAGES if profile == "smoke" else None), trained_on="owner", seed=seed)


def _joined(*runs: Run) -> Run:
    """Return several runs as one."""
    return Run(
        {k: v for run in runs for k, v in run.finished.items()}, {k: v for run in runs for k, v in run.failed.items()}, runs[0].store
    )


def _document(
    made: Plan, rows: Sequence[Candidate], run: Run, asked: Mapping[str, Cell], parts: Study, facts: dict[str, Any]
) -> dict[str, Any]:
    """Return the document of a finished run."""
    found = [{**row, "profile": facts["profile"], "command": facts["command"]} for row in _rows(made, run, asked)]
    unmade = {name: run.failed[cell.key] for name, cell in made.protections.items() if cell.key in run.failed}
    failed = {name: _failures(made, run, name) for name in made.protections if name not in unmade}
    claims = {row.method: [c for c in row.configured().card.claims if isinstance(c, Claim)] for row in rows}
    table = summary(found, failed, claims, unmade)
    source = run.of(made.source)
    board = leaders(table)
    best = board[0] if board and board[0]["decided"] else None
    sentences = [SMOKE] if facts["profile"] == "smoke" else []
    told = (
        f"{len(table['rows'])} protection{'s' * (len(table['rows']) != 1)} of one {facts['arch']} on {data_name(parts)}, {len(table['attacks'])} attacks; "
        f"owner {len(parts.owner)}, thieves {len(parts.attacker)} other images, test {len(parts.test)}, seed {facts['seed']}."
    )
    sentences += [
        told,
        "An attack works when the thief loses at most 5 points of accuracy and the key no longer fits.",
        *(f"Not made: {name}: {why}" for name, why in unmade.items()),
    ]
    return {
        "schema": "modelward/matrix", "version": 1, "modelward": __version__, "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "title": f"Matrix of protections and thieves, profile {facts['profile']}",
        "headline": _headline(best), "sentences": sentences, "data": data_name(parts),
        "accuracy": source.rows[0]["value"] if source else None, "matrix": table, "failed": failed, "unmade": unmade, "rows": found, **facts,
        "environment": environment(),
    }  # fmt: skip


def data_name(parts: Study) -> str:
    """Return what the data set is called."""
    return parts.owner.name.removesuffix(" owner").removesuffix(" train")


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
        yield from finished.rows if finished else ()
        spent = {(spec.method, budget_of(spec)): theft for spec, cell in made.thefts[name] if (theft := run.of(cell)) is not None}
        for row in verified.rows if verified else ():
            theft = spent[row["attack"], row["budget"]]
            yield {**row, "seconds": theft.seconds, "flags": [*row["flags"], *theft.rows[0]["flags"]]}


def _failures(made: Plan, run: Run, name: str) -> dict[str, str]:
    """Return, by attack, why no theft of that kind could be run on what ``name`` protects."""
    done = {spec.method for spec, cell in made.thefts[name] if run.of(cell) is not None}
    return {spec.method: run.failed.get(cell.key, "not run") for spec, cell in made.thefts[name] if spec.method not in done}
