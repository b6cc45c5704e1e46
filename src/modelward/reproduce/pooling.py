"""Rates of several seeds told as one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from modelward.statistics import wilson

Found = dict[str, Any] | None


def pooled(rows: Iterable[dict[str, Any]]) -> Found:
    """Return rates over several seeds as one, with its interval.

    >>> row = pooled([{"value": 0.5, "n": 10}, {"value": 1.0, "n": 10}, {"value": None, "n": 0}])
    >>> row["value"], row["n"]
    (0.75, 20)
    """
    known = [row for row in rows if row["n"]]
    n = sum(row["n"] for row in known)
    if not n:
        return None
    found = wilson(round(sum(row["value"] * row["n"] for row in known)), n)
    return {"value": found.value, "ci_low": found.low, "ci_high": found.high, "n": n}
