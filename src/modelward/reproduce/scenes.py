"""Scenes of a recipe: a network of one architecture trained on a study of its own seed, and the cells whose rows are told with it."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Any

from modelward.core.rng import derive_seed
from modelward.data import Study, load_data, study
from modelward.evaluation.cell import Cell, Finished
from modelward.evaluation.engine import Run
from modelward.evaluation.farm import TheftSpec
from modelward.evaluation.locks import Attempts, rows_of
from modelward.evaluation.scratch import facts_of
from modelward.evaluation.store import Store
from modelward.evaluation.zoo import NullSpec, null_recipe, put_parts, train_cell


@dataclass(frozen=True, eq=False)
class Ground:
    """One architecture and seed: the parts of the data, the model that is locked, and the seed of all else."""

    arch: str
    number: int
    study: Study
    parts: dict[str, str]
    source: Cell
    seed: int

    def told(self, configuration: str, **more: Any) -> dict[str, Any]:
        """Return what is written into every row."""
        return {"arch": self.arch, "scene": self.number, "configuration": configuration, **more}


def ground(recipe: str, data: str, limit: int | None, arch: str, number: int, *, seed: int, store: Store) -> Ground:
    """Return the ground of one architecture and seed of ``recipe``, with its images in the store."""
    own = derive_seed(recipe, seed, number)
    made = study(load_data(data, limit=limit), seed=own)
    parts = put_parts(store, made)
    source = train_cell(NullSpec(arch, "owner", 1.0, "source", number), null_recipe(arch), parts, made, derive_seed(own, "source"))
    return Ground(arch, number, made, parts, source, derive_seed(own, arch))


@dataclass
class Plan:
    """The cells of a run: those whose rows are read as they are, and attempts with their references."""

    plain: list[tuple[dict[str, Any], Cell]] = field(default_factory=list)
    tried: list[tuple[dict[str, Any], Attempts]] = field(default_factory=list)

    def cells(self) -> list[Cell]:
        """Return all cells."""
        return [*(cell for _, cell in self.plain), *(cell for _, tried in self.tried for cell in (tried.cell, *tried.cells))]

    def rows(self, run: Run, metrics: Container[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield all rows with what they are rows of; an attempt whose training diverged is a row without a value.

        ``metrics``: of a lock's own cell and the attempts on it, these alone.
        """
        for told, cell in self.plain:
            finished = run.of(cell)
            yield from ({**row, **told} for row in (finished.rows if finished else []))
        for told, tried in self.tried:
            yield from ({**row, **told} for row in rows_of(tried, run) if metrics is None or row["metric"] in metrics)
            for spec, theft, reference in tried.tries:
                if "diverged" in run.failed.get(theft.key, ""):
                    yield {**_diverged(spec, None if reference is None else run.of(reference)), **told}

    @staticmethod
    def broken(run: Run) -> list[str]:
        """Return why cells failed, but for trainings that diverged, which are a finding."""
        return [text for text in run.failed.values() if "diverged" not in text]


def _diverged(spec: TheftSpec, reference: Finished | None) -> dict[str, Any]:
    """Return the row of an attempt whose training diverged: all that the others have, training from scratch beside it, and no value."""
    return {
        "metric": "recovered", "value": None, "ci_low": None, "ci_high": None, "n": 0, "attack": spec.method, "flags": ["diverged"],
        "budget": ", ".join(f"{name} {value}" for name, value in spec.fields.items()), "extra": facts_of(spec, reference),
    }  # fmt: skip
