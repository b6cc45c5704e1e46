"""How figures are written: percentages with intervals, times for people, what was not measured as words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelward.core.wording import told

__all__ = ["interval", "number", "seconds", "told"]


def seconds(value: float | None) -> str:
    """Return a duration for people.

    >>> seconds(80.4), seconds(0.25)
    ('1 min 20 s', '0.25 s')
    """
    if value is None:
        return "not measured"
    if value < 10:
        return f"{value:.2g} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def number(value: float | None, unit: str) -> str:
    """Return a figure in its unit: fractions as percentages.

    >>> number(0.831, "fraction"), number(None, "auc")
    ('83.1 %', 'not measured')
    """
    if value is None:
        return "not measured"
    if unit == "fraction":
        return f"{value * 100:.1f} %"
    return seconds(value) if unit == "s" else f"{value:.4g}"


def interval(row: Mapping[str, Any]) -> str:
    """Return the 95 % interval of a row, or a dash."""
    low, high = row.get("ci_low"), row.get("ci_high")
    if low is None or high is None:
        return "–"  # noqa: RUF001  # a typographic dash
    return f"[{number(low, row['unit'])}, {number(high, row['unit'])}]"
