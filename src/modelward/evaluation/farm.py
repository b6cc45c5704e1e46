"""The suspect farm: thieves of every kind with lineage and a utility gate, made once and verified by every method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from modelward.core.catalogue import find
from modelward.core.rng import derive_seed
from modelward.data import Study
from modelward.evaluation.budget import train_seconds
from modelward.evaluation.cell import Cell
from modelward.models.custom import modules_of


@dataclass(frozen=True)
class TheftSpec:
    """One theft: the method with its settings, the thief's labels and architecture, the group it is reported in."""

    method: str
    group: str
    fields: dict[str, Any] = field(default_factory=dict)
    labels: str = "true"
    arch: str | None = None
    index: int = 0


_GROUPS: tuple[tuple[str, str, dict[str, Any], str], ...] = (
    ("ftal", "FTAL", {}, "true"),
    ("ftll", "FTLL", {}, "true"),
    ("rtal", "RTAL", {}, "true"),
    ("extract-l", "extract-L", {}, "stolen"),
    ("extract-p", "extract-P", {}, "stolen"),
)
PRUNING = (0.1, 0.2, 0.3, 0.4, 0.5)
BITS = (8, 4)


def thefts(arch: str, copies: int, others: Sequence[str] = ()) -> list[TheftSpec]:
    """Return the thefts of the audit: ``copies`` of each trained kind, one of each pruning and quantisation level.

    Extractions take turns between the victim's architecture and ``others``.
    """
    made = [
        TheftSpec(
            name, group, dict(fields), labels, [arch, *others][index % (1 + len(others))] if name.startswith("extract") else None, index
        )
        for name, group, fields, labels in _GROUPS
        for index in range(copies)
    ]
    made += [TheftSpec("prune", "prune", {"sparsity": sparsity}, "none") for sparsity in PRUNING]
    return made + [TheftSpec("quantise", "quantise", {"bits": bits}, "none") for bits in BITS]


def theft_cell(
    spec: TheftSpec, victim: str | Cell, victim_arch: str, parts: dict[str, str], study: Study, *, seed: int, part: str = "attacker"
) -> Cell:
    """Return the cell of one theft; ``victim`` is the digest of a stored model or the cell that makes it."""
    method = find(spec.method)
    epochs = spec.fields.get("epochs", getattr(method, "epochs", 0))
    black_box = {"extract-l": "label", "extract-p": "probabilities"}
    return Cell(
        work="modelward.evaluation.work_theft:steal",
        settings={
            "method": spec.method, "fields": spec.fields, "labels": spec.labels, "arch": spec.arch, "group": spec.group,
            "access": black_box.get(spec.method, "weights"),
        },
        inputs={"victim": victim, "images": parts[part], "test": parts["test"]},
        seed=derive_seed(seed, "theft", spec.method, spec.fields, spec.arch, spec.index, parts[part]),
        label=f"{spec.group} {' '.join(str(v) for v in spec.fields.values())}".strip() + f" #{spec.index}",
        seconds=train_seconds(spec.arch or victim_arch, len(getattr(study, part)), epochs, study.test.shape),
        uses=(method.__module__, *modules_of(spec.arch or victim_arch)),
    )  # fmt: skip
