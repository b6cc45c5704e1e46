"""The matrix as cells: a source, null models, protections, thefts of what they protect, and every key asked about every theft."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelward.core.canonical import digest_of
from modelward.core.catalogue import catalogue, find
from modelward.core.errors import UsageError
from modelward.core.families import OwnershipMethod
from modelward.core.nearest import nearest
from modelward.core.rng import derive_seed
from modelward.core.wording import told
from modelward.data import Study
from modelward.evaluation import rules
from modelward.evaluation.budget import train_seconds
from modelward.evaluation.candidate import Candidate
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine, Run
from modelward.evaluation.family import family_inputs
from modelward.evaluation.farm import TheftSpec, theft_cell
from modelward.evaluation.siblings import COUNTS
from modelward.evaluation.siblings import Plan as FamilyPlan
from modelward.evaluation.siblings import plan as family_cells
from modelward.evaluation.zoo import NullSpec, null_cells, null_recipe, put_parts, train_cell

GUESSES = {"smoke": 5, "quick": 100, "full": 1000}
FORGERIES = {"smoke": 2, "quick": 100, "full": 100}
STRANGERS = {"smoke": 1, "quick": 4, "full": 10}
VARIANTS = ("hardened", "paper")


@dataclass
class Plan:
    """What is to be done with one source, in two steps: ``protect`` first, so that thresholds stand before any attacked model exists, then ``attack``.

    Protections go by their names in the matrix.
    """

    arch: str
    seed: int
    source: Cell
    protections: dict[str, Cell]
    thefts: dict[str, list[tuple[TheftSpec, Cell]]]


def ownership_of(row: Candidate) -> OwnershipMethod:
    """Return the method of a row; raises `UsageError` for one that proves no ownership."""
    made = row.configured()
    if not isinstance(made, OwnershipMethod):
        message = f"{row.method} proves no ownership"
        raise UsageError(message)
    return made


def protections(methods: Sequence[str], variants: Sequence[str], profile: str) -> list[Candidate]:
    """Return the rows of the matrix, every ownership method of the catalogue when none is named.

    Raises
    ------
    UsageError
        for an unknown method or variant.

    Examples
    --------
    >>> [row.name for row in protections(["zhang"], ["hardened", "paper"], "quick")]
    ['zhang, hardened', 'zhang, paper']
    """
    known = [name for name, kind in catalogue().items() if issubclass(kind, OwnershipMethod)]
    for name in methods:
        if name not in known:
            kind = catalogue().get(name)
            hint = (
                "; the locks are measured by --view active-survey" if kind is not None and kind.family == "lock" else nearest(name, known)
            )
            message = f"{name!r} is no ownership method{hint}; known: {', '.join(known)}"
            raise UsageError(message)
    for variant in variants:
        if variant not in VARIANTS:
            message = f"variant is {' or '.join(VARIANTS)}, not {variant!r}"
            raise UsageError(message)
    return [Candidate(name, variant, _small(name) if profile == "smoke" else {}) for name in methods or known for variant in variants]


def _small(name: str) -> dict[str, Any]:
    """Return settings with which a method is done in seconds on a few hundred images: its own, or the usual ones reduced."""
    kind = find(name)
    own: Mapping[str, Any] = getattr(kind, "small", {})
    fields = {entry.name for entry in dataclasses.fields(kind)}
    usual = {**_REDUCED, **(_TRAINED if getattr(kind, "marks", False) else {})}
    return {**{name: value for name, value in usual.items() if name in fields}, **own}


_REDUCED = {"count": 40, "steps": 20}
_TRAINED = {"epochs": 40}  # of four batches each


def plan(rows: Mapping[str, Candidate], arch: str, study: Study, engine: Engine, *, profile: str, seed: int) -> Plan:
    """Return the cells of a matrix, or of that part of it which one source makes; nothing is run.

    Parameters
    ----------
    rows
        the protections by their names.
    arch
        architecture of the source.
    study
        disjoint parts of one data set.
    """
    if profile not in GUESSES:
        message = f"profile is {', '.join(GUESSES)}, not {profile!r}{nearest(profile, GUESSES)}"
        raise UsageError(message)
    parts = put_parts(engine.store, study)
    source = train_cell(NullSpec(arch, "owner", 1.0, "source", 0), null_recipe(arch), parts, study, derive_seed(seed, "matrix source"))
    nulls = null_cells(arch, study, parts, profile=profile, seed=seed)
    members = family_cells(null_recipe(arch), study.owner, COUNTS[profile], model=source, store=engine.store, tuning=0)
    strangers = [
        train_cell(NullSpec(arch, part, 1.0, "stranger", index), null_recipe(arch), parts, study, derive_seed(seed, "matrix stranger"))
        for index in range(STRANGERS[profile]) for part in ("owner", "attacker")
    ]  # fmt: skip
    made = Plan(arch, seed, source, {}, {})
    for name, row in rows.items():
        method = ownership_of(row)
        made.protections[name] = cell = _protect(row, method, source, nulls, strangers, members, parts, study, arch, profile, seed)
        victim = cell if method.marks else source
        specs = rules.specs(method, arch, profile)
        made.thefts[name] = [(spec, theft_cell(spec, victim, arch, parts, study, seed=derive_seed(seed, "matrix"))) for spec in specs]
    return made


def _protect(
    row: Candidate, method: OwnershipMethod, source: Cell, nulls: list[Cell], strangers: list[Cell], members: FamilyPlan, parts: dict[str, str], study: Study,
    arch: str, profile: str, seed: int,
) -> Cell:  # fmt: skip
    """Return the cell that protects the source and measures what can be said without an attack."""
    inputs: dict[str, str | Cell] = {"victim": source, **{name: parts[name] for name in ("owner", "probes", "test")}}
    inputs |= {f"null/{index}": cell for index, cell in enumerate(nulls)}
    found, told = ({}, {}) if method.marks else family_inputs(members, parts["owner"])
    inputs |= found
    inputs |= {f"stranger/{index}": cell for index, cell in enumerate(strangers)}
    epochs = float(getattr(method, "epochs", 2)) * 1.5 + 5
    return Cell(
        work="modelward.evaluation.work_protect:protect", inputs=inputs, label=f"protect: {row.name}", uses=(type(method).__module__,),
        settings={"method": row.method, "fields": {**row.fields, "variant": row.variant}, "guesses": GUESSES[profile],
                  "forgeries": FORGERIES[profile], **told},
        seed=derive_seed(seed, "protect", row.method, row.variant, row.fields), seconds=train_seconds(arch, len(study.owner), epochs, study.test.shape),
    )  # fmt: skip


def budget_of(spec: TheftSpec) -> str:
    """Return the settings of a theft in words.

    >>> budget_of(TheftSpec("prune", "prune", {"sparsity": 0.5}))
    'sparsity 0.5'
    >>> budget_of(TheftSpec("combined", "combined", {"steps": ["permute", ["ftal", {"lr": 0.1}]]}))
    'permute, then ftal (lr 0.1)'
    """
    return told(spec.fields)


def frozen(run: Run, cells: dict[str, Cell]) -> tuple[str, dict[str, Any]]:
    """Return the digest over all keys, and the keys by row of the matrix, as they stand before any attacked model exists."""
    stand: dict[str, Any] = {}
    for name, cell in cells.items():
        finished = run.of(cell)
        stand[name] = None
        if finished is not None:
            said = next(row["extra"] for row in finished.rows if row["metric"] == "verification")
            stand[name] = {"model": said["model_digest"], "key": finished.artifact}
    return digest_of(stand), stand


def verifications(made: Plan, run: Run) -> dict[str, Cell]:
    """Return the cells that ask each key about the thefts that succeeded: one that failed leaves its own place empty, not the whole row."""
    cells = {}
    for name, protected in made.protections.items():
        stolen = [(spec, theft) for spec, theft in made.thefts[name] if run.of(theft) is not None]
        if run.of(protected) is None or not stolen:
            continue
        settings = {
            "method": protected.settings["method"],
            "fields": protected.settings["fields"],
            "budgets": [budget_of(spec) for spec, _ in stolen],
        }
        inputs: dict[str, str | Cell] = {"protected": protected, **{f"suspect/{index}": theft for index, (_, theft) in enumerate(stolen)}}
        cells[name] = Cell(
            work="modelward.evaluation.work_verify:verify", settings=settings, inputs=inputs, seed=protected.seed, label=f"verify: {name}",
            seconds=2, uses=protected.uses,
        )  # fmt: skip
    return cells
