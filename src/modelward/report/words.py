"""How figures are written: percentages with intervals, times for people, what was not measured as words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


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


def told(fields: Mapping[str, Any]) -> str:
    """Return the settings of a theft in words, the steps of a combined one in order.

    Examples
    --------
    >>> told({"images": 250, "points": 7})
    'images 250, points 7'
    >>> told({"steps": ["permute", ["ftal", {"lr": 0.1}], ["distil", {}]]})
    'permute, then ftal (lr 0.1), then distil'
    """
    if "steps" not in fields or not isinstance(fields["steps"], Sequence):
        return ", ".join(f"{name} {fields[name]}" for name in sorted(fields))
    steps = [(step, {}) if isinstance(step, str) else step for step in fields["steps"]]
    return ", then ".join(name + (f" ({told(settings)})" if settings else "") for name, settings in steps)
