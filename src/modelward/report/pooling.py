"""From several seeds to one line of the matrix: counts are added, losses averaged, and of what a key or an attack does the worst is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelward.statistics import wilson

Row = Mapping[str, Any]
WORST_FIRST = ("broken", "fragile", "robust", "useless", "failed", "not tested")
COUNTED = frozenset({"strangers_accused", "key_specificity", "payload_errors"})
MEASURED = frozenset({"broken", "fragile", "robust", "useless"})


def pooled_cell(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one cell of the matrix from those of several seeds: the worst of them, and in how many of the measured seeds it ended so.

    Examples
    --------
    >>> robust, broken = ({"state": state, "points": 1, "break_cost": None} for state in ("robust", "broken"))
    >>> cell = pooled_cell([robust, broken, robust])
    >>> cell["state"], cell["alike"], cell["seeds"], cell["points"]
    ('broken', 1, 3, 3)
    """
    worst = min(cells, key=lambda cell: WORST_FIRST.index(cell["state"]))
    states = [cell["state"] for cell in cells if cell["state"] in MEASURED]
    costs = [cell["break_cost"] for cell in cells if cell["break_cost"]]
    return {
        **worst, "points": sum(cell["points"] for cell in cells), "seeds": len(states), "alike": states.count(worst["state"]),
        "undecided": sum(cell.get("undecided", 0) for cell in cells), "break_cost": min(costs, key=lambda cost: cost["seconds"], default=None),
    }  # fmt: skip


def pooled_measure(metric: str, rows: Sequence[Row | None]) -> Row | None:
    """Return one measurement from those of several seeds, with how many ``rows`` it is made of; ``None`` where no seed measured it.

    Examples
    --------
    >>> pooled_measure("strangers_accused", [{"value": 0.0, "n": 8}, {"value": 0.25, "n": 8}])["value"]
    0.125
    """
    known = [row for row in rows if row is not None]
    measured = [row for row in known if row["value"] is not None]
    if len(known) < 2 or not measured:
        return known[0] if known else None
    return {**_pooled(metric, measured), "rows": len(measured)}


def _pooled(metric: str, measured: Sequence[Row]) -> Row:
    """Return what stands for all the seeds."""
    if metric == "verification":
        return max(measured, key=lambda row: (not row["extra"].get("matches"), row["extra"].get("p") or 0.0))
    if metric == "false_claims":
        return max(measured, key=lambda row: row["extra"].get("bound") or 0.0)
    if metric == "stealth":
        return max(measured, key=_seen)
    if metric == "forged_key_fits":
        return max(measured, key=lambda row: float(row["value"]))
    return _counted(measured) if metric in COUNTED else _averaged(measured)


def _seen(row: Row) -> float:
    """Return how far a mark stands out: an AUC from one half, a p from one."""
    return float(abs(row["value"] - 0.5)) if row["metric"] == "key_image_auc" else -float(row["value"])


def _counted(rows: Sequence[Row]) -> Row:
    """Return the rate over all seeds, with its interval."""
    n = sum(row["n"] for row in rows)
    hits = sum(round(row["value"] * row["n"]) for row in rows)
    bounds = wilson(hits, n)
    return {**rows[0], "value": hits / n, "n": n, "ci_low": bounds.low, "ci_high": bounds.high}


def _averaged(rows: Sequence[Row]) -> Row:
    """Return the mean over seeds; its interval takes the seeds for independent."""
    n, count = sum(row["n"] for row in rows), len(rows)
    made = {**rows[0], "value": sum(row["value"] for row in rows) / count, "n": n}
    if any(row.get("ci_low") is None or row.get("ci_high") is None for row in rows):
        return made
    half = sum(((row["ci_high"] - row["ci_low"]) / 2) ** 2 for row in rows) ** 0.5 / count
    return {**made, "ci_low": made["value"] - half, "ci_high": made["value"] + half}
