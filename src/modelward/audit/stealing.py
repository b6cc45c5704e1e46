"""Steal a model from the shell: the copy as a file with its lineage, next to what honest training gives at its budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from modelward.audit.plan import scratch_cells, theft_epochs
from modelward.audit.question import Ground, Question, cell_seed, prepare
from modelward.audit.run import Estimate, estimate
from modelward.audit.scope import require_family, require_one_of
from modelward.core.canonical import canonical_json
from modelward.core.errors import ModelwardError
from modelward.core.families import TheftMethod
from modelward.core.suspect import Access
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine
from modelward.evaluation.farm import TheftSpec, access_of, theft_cell
from modelward.evaluation.parcels import get_model
from modelward.evaluation.store import Store
from modelward.models import save_model
from modelward.models.nets import describe


def theft_spec(method: str, settings: dict[str, Any], *, labels: str | None = None, arch: str | None = None) -> TheftSpec:
    """Return the theft called ``method``; ``labels`` may be left to the method.

    Raises
    ------
    UsageError
        for another family, a setting that it does not have, labels that it does not work with, or an unknown architecture.
    """
    found = require_family(method, TheftMethod, "theft")
    found.configured(settings)
    known = [str(name) for name in found.labels]
    require_one_of(labels or known[0], known, f"labels of {method}")
    if arch is not None:
        describe(arch)
    return TheftSpec(method, method, settings, labels or known[0], arch)


def steal(question: Question, spec: TheftSpec, store: Store, *, out_model: Path, jobs: int | None = None) -> dict[str, Any]:
    """Steal a question's model, write the copy to ``out_model``, and return its lineage with the rows.

    The thief works with the attacker's part of the data, disjoint from the owner's. Finished work comes from the store.

    Raises
    ------
    ModelwardError
        when the theft fails.
    """
    ground = prepare(question, store)
    theft, scratch = _cells(ground, spec)
    run = Engine(store, jobs=jobs).run([theft, *scratch], task=f"theft by {spec.method}")
    finished = run.of(theft)
    if finished is None or finished.artifact is None:
        message = f"the theft failed: {next(iter(run.failed.values()), 'it made no model')}"
        raise ModelwardError(message)
    rows = finished.rows + [row for cell in scratch if (done := run.of(cell)) for row in done.rows]
    lineage = finished.rows[0]["extra"]
    facts = {"lineage": canonical_json(lineage).decode(), "source": f"stolen by {spec.method}"}
    save_model(out_model, get_model(str(store.folder), finished.artifact), facts)
    return {
        "method": spec.method,
        "model": str(out_model),
        "lineage": lineage,
        "rows": rows,
        "reference": rows[1] if len(rows) > 1 else None,
    }


def dry_run_steal(question: Question, spec: TheftSpec, store: Store, *, jobs: int | None = None) -> Estimate:
    """Return what the theft would cost."""
    theft, scratch = _cells(prepare(question, store), spec)
    return estimate([theft, *scratch], store, jobs)


def _cells(ground: Ground, spec: TheftSpec) -> tuple[Cell, list[Cell]]:
    """Return the theft and, where it trains, the model trained from scratch at its budget; who only asks is given the victim's architecture."""
    if spec.arch is None and access_of(spec) is not Access.WEIGHTS:
        spec = replace(spec, arch=ground.loaded.arch)
    cell = theft_cell(spec, ground.victim, ground.loaded.arch, ground.parts, ground.study, seed=cell_seed(ground, "steal"))
    return cell, list(scratch_cells(ground, [(spec, cell)]).values()) if theft_epochs(spec) else []
