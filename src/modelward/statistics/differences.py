"""How far apart two rates are, with an interval."""

from __future__ import annotations

import math

from modelward.statistics.rates import Interval, wilson


def newcombe(first: tuple[int, int], second: tuple[int, int], level: float = 0.95) -> Interval:
    r"""Return how much larger the first rate is than the second, with Newcombe's hybrid score interval.

    .. math:: d - \sqrt{(p_1 - l_1)^2 + (u_2 - p_2)^2}, \quad d + \sqrt{(u_1 - p_1)^2 + (p_2 - l_2)^2}

    with the Wilson bounds l and u of each rate. The samples are independent; for two models on the same images it is too wide, if anything.

    Parameters
    ----------
    first, second
        (successes, trials).
    level
        confidence in (0, 1).

    Raises
    ------
    InputError
        for counts that no sample has.

    Notes
    -----
    Newcombe: Interval estimation for the difference between independent proportions, Statistics in Medicine 17(8), 1998, method 10.

    Examples
    --------
    >>> print(newcombe((56, 70), (48, 80)))
    0.2 [0.05243, 0.3339], n = 150
    """
    a, b = wilson(*first, level), wilson(*second, level)
    gap = a.value - b.value
    low, high = math.hypot(a.value - a.low, b.high - b.value), math.hypot(a.high - a.value, b.value - b.low)
    return Interval(gap, gap - low, gap + high, a.n + b.n, "newcombe")
