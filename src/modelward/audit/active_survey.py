"""The survey of active protection: every lock, who can use what it locked, and what undoing it takes (Xue et al., arXiv 2310.09822)."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from modelward._version import __version__
from modelward.audit.matrix import SMOKE_IMAGES
from modelward.audit.matrix_document import SMOKE, data_name
from modelward.core.catalogue import catalogue, find
from modelward.core.errors import FormatError, ModelwardError, UsageError
from modelward.core.image_locks import DataLock
from modelward.core.locking import LockMethod
from modelward.core.nearest import nearest
from modelward.core.rng import derive_seed
from modelward.data import Study, load_data, study
from modelward.evaluation.candidate import Candidate
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine, Run, closure
from modelward.evaluation.environment import environment
from modelward.evaluation.locks import Attempts, asides, attempts, images_cell, lock_cell, lock_of, rows_of, unlock_specs
from modelward.evaluation.matrix import VARIANTS
from modelward.evaluation.store import Store
from modelward.evaluation.zoo import NullSpec, null_recipe, put_parts, train_cell
from modelward.io.documents import read_document
from modelward.report.active_survey import summary

SCHEMA = "modelward/active-survey"
MOST_BYTES = 64 * 2**20
PROFILES = ("smoke", "quick", "full")


def active_survey(
    *, arch: str = "lenet5", data: str = "fashion-mini", profile: str = "quick", methods: Sequence[str] = (),
    variants: Sequence[str] = ("hardened",), seed: int = 0, store: Store, jobs: int | None = None, command: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Measure every lock against what the survey asks of active protection; return the document (schema ``modelward/active-survey``, version 1).

    Parameters
    ----------
    arch, data
        architecture and images of the model that is locked, which is trained for this.
    profile
        ``smoke``, ``quick`` or ``full``.
    methods, variants
        rows of the survey; every lock when none is named.

    Raises
    ------
    UsageError
        for an unknown lock, variant or profile.
    ModelwardError
        when nothing could be locked.
    """
    started = time.perf_counter()
    engine = Engine(store, jobs=jobs)
    source, made, parts = _plan(engine, arch, data, profile, methods, variants, seed)
    run = engine.run([tried.cell for tried in made], task="locks")
    if not any(run.of(tried.cell) for tried in made):
        message = f"nothing could be locked: {next(iter(run.failed.values()), 'no method was chosen')}"
        raise ModelwardError(message)
    stolen = engine.run([cell for tried in made if run.of(tried.cell) for cell in tried.cells], task="unlocks")
    whole = Run(run.finished | stolen.finished, run.failed | stolen.failed, run.store)
    rows = [{**row, "profile": profile, "command": command} for tried in made for row in rows_of(tried, whole)]
    unmade = {tried.locking.name: run.failed[tried.cell.key] for tried in made if tried.cell.key in run.failed}
    failed = {tried.locking.name: _failures(tried, whole) for tried in made if tried.locking.name not in unmade}
    trained = whole.of(source)
    told = {tried.locking.method: vars(active) for tried in made if (active := find(tried.locking.method).card.active) is not None}
    facts = {
        "command": command, "profile": profile, "seed": seed, "arch": arch, "data": data_name(parts),
        "accuracy": trained.rows[0]["value"] if trained else None, "seconds": time.perf_counter() - started,
    }  # fmt: skip
    return _document(rows, told, unmade, failed, parts, facts)


def dry_run_survey(
    *, arch: str, data: str, profile: str, methods: Sequence[str], variants: Sequence[str], seed: int, store: Store, jobs: int | None
) -> list[Cell]:
    """Return the cells of a survey."""
    _, made, _ = _plan(Engine(store, jobs=jobs), arch, data, profile, methods, variants, seed)
    return closure([cell for tried in made for cell in (tried.cell, *tried.cells)])


def read_survey(path: Path) -> dict[str, Any]:
    """Return the document in an ``active-survey.json``, its table made again from its rows alone.

    Raises
    ------
    FormatError
        for a file that is no such document, or one of a newer version.
    """
    document = read_document(path, SCHEMA, 1, cap=MOST_BYTES)
    try:
        return {**document, "survey": summary(document["rows"], document["active"], document["unmade"])}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        message = f"{path.name} is damaged: its rows lack {error}"
        raise FormatError(message) from error


def lockings(methods: Sequence[str], variants: Sequence[str], profile: str) -> list[Candidate]:
    """Return the rows of the survey.

    Raises
    ------
    UsageError
        for an unknown lock or variant.

    Examples
    --------
    >>> [row.name for row in lockings(["advparams"], ["hardened", "paper"], "quick")]
    ['advparams, hardened', 'advparams, paper']
    """
    known = [name for name, kind in catalogue().items() if issubclass(kind, LockMethod)]
    for name in methods:
        if name not in known:
            kind = catalogue().get(name)
            hint = (
                "; marks and fingerprints are measured without --view"
                if kind is not None and kind.family == "ownership"
                else nearest(name, known)
            )
            message = f"{name!r} is no lock{hint}; known: {', '.join(known)}"
            raise UsageError(message)
    for variant in variants:
        if variant not in VARIANTS:
            message = f"variant is {' or '.join(VARIANTS)}, not {variant!r}"
            raise UsageError(message)
    if profile not in PROFILES:
        message = f"profile is {', '.join(PROFILES)}, not {profile!r}{nearest(profile, PROFILES)}"
        raise UsageError(message)
    return [
        Candidate(name, variant, dict(getattr(find(name), "small", {})) if profile == "smoke" else {})
        for name in methods or known
        for variant in variants
    ]


def _plan(
    engine: Engine, arch: str, data: str, profile: str, methods: Sequence[str], variants: Sequence[str], seed: int
) -> tuple[Cell, list[Attempts], Study]:
    """Return the source, every lock with what is tried on it, and the parts of the data set."""
    rows = lockings(methods, variants, profile)
    ground = study(load_data(data, limit=SMOKE_IMAGES if profile == "smoke" else None), trained_on="owner", seed=seed)
    parts = put_parts(engine.store, ground)
    source = train_cell(NullSpec(arch, "owner", 1.0, "source", 0), null_recipe(arch), parts, ground, derive_seed(seed, "matrix source"))
    made = []
    for row in rows:
        if issubclass(find(row.method), DataLock):
            made.append(Attempts(row, images_cell(row, source, parts, ground, arch, seed=seed), []))
            continue
        cell = lock_cell(row, source, parts, ground, arch, seed=seed)
        specs = unlock_specs(lock_of(row), arch, len(ground.owner), profile)
        own = derive_seed(seed, "survey")
        more = asides(row, cell, source, arch, parts, ground, profile=profile, seed=own)
        made.append(replace(attempts(row, cell, source, arch, parts, ground, specs, seed=own), more=more))
    return source, made, ground


def _failures(tried: Attempts, run: Run) -> dict[str, str]:
    """Return, by attack, why an attempt could not be run."""
    cells = [*((spec.method, theft) for spec, theft, _ in tried.tries), *((aside.cell.label, aside.cell) for aside in tried.more)]
    return {name: run.failed.get(cell.key, "not run") for name, cell in cells if run.of(cell) is None}


def _document(
    rows: list[dict[str, Any]], active: dict[str, Any], unmade: dict[str, str], failed: dict[str, dict[str, str]], parts: Study,
    facts: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Return the document of a finished run."""
    table = summary(rows, active, unmade)
    denied = [line for line in table["rows"] if line["requirements"]["denial"]["passes"]]
    kept = [line for line in denied if line["requirements"]["robustness"]["passes"]]
    headline = (
        f"{len(denied)} of {len(table['rows'])} locks leave nothing to whoever lacks the key; "
        f"{len(kept)} of them also {'leaves' if len(kept) == 1 else 'leave'} a thief with images no more than training from scratch would."
    )
    told = (
        f"One {facts['arch']} on {facts['data']}; owner {len(parts.owner)}, thieves up to 10 % as many of {len(parts.attacker)} other images, "
        f"test {len(parts.test)}, seed {facts['seed']}."
    )
    sentences = [SMOKE] if facts["profile"] == "smoke" else []
    sentences += [
        told,
        "An unlock counts when it reaches more than chance + 15 points and more than training from scratch on the same labelled images.",
        *(f"Not made: {name}: {why}" for name, why in unmade.items()),
    ]
    return {
        "schema": SCHEMA, "version": 1, "modelward": __version__, "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "title": f"Locks, profile {facts['profile']}", "headline": headline, "sentences": sentences, "survey": table, "active": active,
        "failed": failed, "unmade": unmade, "rows": rows, **facts,
        "environment": environment(),
    }  # fmt: skip
