"""How settings are written for people, alike wherever they are written: rows are joined by these words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def told(fields: Mapping[str, Any]) -> str:
    """Return the settings of a theft in words, the steps of a combined one in order.

    Examples
    --------
    >>> told({"images": 250, "points": 7})
    'images 250, points 7'
    >>> told({"steps": ["permute", ["ftal", {"lr": 0.1}], ["distil", {}]]})
    'permute, then ftal (lr 0.1), then distil'
    >>> told({"method": "zhang", "fields": {"epochs": 1}})
    'fields (epochs 1), method zhang'
    """
    if "steps" not in fields or not isinstance(fields["steps"], Sequence):
        return ", ".join(f"{name} {_value(fields[name])}" for name in sorted(fields))
    steps = [(step, {}) if isinstance(step, str) else step for step in fields["steps"]]
    return ", then ".join(name + (f" ({told(settings)})" if settings else "") for name, settings in steps)


def _value(value: object) -> str:
    """Return one setting; those inside another in brackets."""
    return (f"({told(value)})" if value else "none") if isinstance(value, Mapping) else str(value)
