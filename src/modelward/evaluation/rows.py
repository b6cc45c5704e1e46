"""Rows: what an evaluation measured, one figure each, as the reports and result files hold them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelward.core.canonical import plain
from modelward.statistics import Interval, mcnemar, mean_interval, wilson


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure.

    Parameters
    ----------
    metric, value, n, ci_low, ci_high, unit
        the figure with its sample size and 95 % interval; a NaN with ``n = 0`` is written as null.
    method, variant, attack, budget
        what was measured under what: ``budget`` is the attack's setting in words, ``"linf 8/255"``.
    model, data
        digests or names.
    flags
        reasons not to trust the figure.
    extra
        further JSON values, such as lineage or the group of a suspect.
    """

    metric: str
    value: float
    n: int
    ci_low: float = float("nan")
    ci_high: float = float("nan")
    unit: str = "fraction"
    method: str = ""
    variant: str = ""
    profile: str = ""
    attack: str = ""
    budget: str = ""
    model: str = ""
    data: str = ""
    seed: int = 0
    threads: int = 1
    precision: str = "fp32"
    seconds: float = 0.0
    flags: Sequence[str] = ()
    command: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the row as plain JSON values."""
        values: dict[str, Any] = plain(asdict(self))
        return values


def rate(metric: str, successes: int, n: int, **rest: Any) -> Row:
    """Return a row for ``successes`` of ``n`` with its Wilson interval.

    >>> row = rate("accuracy", 8, 10)
    >>> row.value, row.n, round(row.ci_low, 2), round(row.ci_high, 2)
    (0.8, 10, 0.49, 0.94)
    """
    return from_interval(metric, wilson(successes, n), **rest)


def points_lost(before: NDArray[np.float64], after: NDArray[np.float64]) -> Row:
    """Return how much accuracy a protection costs, paired over the test images; ``before`` and ``after`` are 1 where an answer was right.

    >>> import numpy as np
    >>> row = points_lost(np.array([1.0, 1.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0, 1.0]))
    >>> row.value, row.n, row.extra["before"]
    (0.25, 4, 0.75)
    """
    extra = {"before": float(before.mean()), "after": float(after.mean()), "mcnemar_p": mcnemar(before, after)}
    return from_interval("fidelity_drop", mean_interval(before - after), extra=extra)


def from_interval(metric: str, interval: Interval, **rest: Any) -> Row:
    """Return a row for a figure whose interval is known."""
    return Row(metric=metric, value=interval.value, n=interval.n, ci_low=interval.low, ci_high=interval.high, **rest)
