"""The shape of a report section, and how figures are put into words."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Run


def section(
    name: str,
    title: str,
    status: str,
    lead: str,
    *,
    rows: Sequence[dict[str, Any]] = (),
    checks: Sequence[dict[str, str]] = (),
    plots: Sequence[dict[str, Any]] = (),
    flags: Sequence[str] = (),
    not_tested: Sequence[str] = (),
) -> dict[str, Any]:
    """Return one section of a report document."""
    return {
        "id": name, "title": title, "status": status, "lead": lead, "rows": list(rows), "checks": list(checks), "plots": list(plots),
        "flags": list(flags), "not_tested": list(not_tested),
    }  # fmt: skip


def rows_of(run: Run, cell: Cell) -> list[dict[str, Any]]:
    """Return (copies of) the rows of a finished cell, none for a failed one."""
    finished = run.of(cell)
    return copy.deepcopy(finished.rows) if finished else []


def percent(row: dict[str, Any]) -> str:
    """Return a rate with its interval: ``"83.1 % [80.6, 85.3]"``.

    >>> percent({"value": 0.831, "ci_low": 0.806, "ci_high": 0.853})
    '83.1 % [80.6, 85.3]'
    """
    if row["value"] is None:
        return "not measured"
    interval = f" [{row['ci_low'] * 100:.1f}, {row['ci_high'] * 100:.1f}]" if row.get("ci_low") is not None else ""
    return f"{row['value'] * 100:.1f} %{interval}"
