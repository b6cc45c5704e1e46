"""Rates out of counts: an estimate with its interval, exact binomial tests, and how many matches prove something."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from modelward.core.errors import InputError, UsageError

Alternative = Literal["less", "greater", "two-sided"]


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Parameters
    ----------
    value
        the estimate; NaN where nothing was measured (``n = 0``).
    low, high
        the bounds, in the unit of ``value``; NaN where the sample is too small to give any.
    n
        how many observations stand behind ``value``.
    method
        how the bounds were computed, in words.

    Examples
    --------
    >>> print(Interval(0.8, 0.49, 0.94, 10, "wilson"))
    0.8 [0.49, 0.94], n = 10
    """

    value: float
    low: float
    high: float
    n: int
    method: str

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}], n = {self.n}"


def require_share(value: float, name: str) -> float:
    """Return ``value`` when it lies strictly between 0 and 1; raises `UsageError` otherwise."""
    if not 0 < value < 1:
        message = f"{name} lies between 0 and 1 (0.95 and 0.05 are usual), got {value}"
        raise UsageError(message)
    return float(value)


def require_probability(value: float, name: str) -> float:
    """Return ``value`` when it lies in [0, 1]; raises `InputError` otherwise."""
    if not 0 <= value <= 1:
        message = f"{name} is a probability in [0, 1], got {value}"
        raise InputError(message)
    return float(value)


def require_alternative(alternative: str, *, known: tuple[str, ...] = ("less", "greater", "two-sided")) -> None:
    """Raise `UsageError` unless ``alternative`` is one of ``known``."""
    if alternative not in known:
        message = f"the alternative is {' or '.join(known)}, not {alternative!r}"
        raise UsageError(message)


def require_count(value: int, name: str, *, least: int = 0) -> int:
    """Return ``value`` as an int of at least ``least``; raises `InputError` for negative or fractional counts."""
    try:
        count = operator.index(value)
    except TypeError:
        message = f"{name} is a whole number, got {value!r}"
        raise InputError(message) from None
    if count < least:
        message = f"{name} is at least {least}, got {count}"
        raise InputError(message)
    return count


def _counts(successes: int, n: int) -> tuple[int, int]:
    """Return both counts; raises `InputError` unless 0 <= successes <= n."""
    trials, hits = require_count(n, "the number of trials"), require_count(successes, "the number of successes")
    if hits > trials:
        message = f"{hits} successes cannot come from {trials} trials"
        raise InputError(message)
    return hits, trials


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    r"""Return a rate with its two-sided Wilson score interval.

    .. math:: \frac{k + z^2/2}{n + z^2} \pm \frac{z}{n + z^2} \sqrt{\frac{k (n - k)}{n} + \frac{z^2}{4}}

    Its mean coverage is close to ``level``; for a guarantee at every rate use `clopper_pearson`.

    Parameters
    ----------
    successes, n
        counts, 0 <= successes <= n; ``n = 0`` gives NaN.
    level
        confidence in (0, 1).

    Raises
    ------
    InputError
        for counts that cannot be.

    Examples
    --------
    >>> print(wilson(8, 10))
    0.8 [0.4902, 0.9433], n = 10
    """
    k, n = _counts(successes, n)
    z = -NormalDist().inv_cdf((1 - require_share(level, "level")) / 2)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0, "wilson")
    centre = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    # Rounding must not move the bounds that are exactly 0 and 1.
    return Interval(k / n, centre - half if k else 0.0, centre + half if k < n else 1.0, n, "wilson")


def beta_bounds(successes: float, n: int, level: float) -> tuple[float, float]:
    r"""Return the Clopper-Pearson bounds of a rate; half successes (ties) are allowed.

    The quantiles :math:`B_{\alpha/2}(k, n - k + 1)` and :math:`B_{1 - \alpha/2}(k + 1, n - k)` of the beta distribution,
    :math:`\alpha = 1 - level`; 0 and 1 where k is 0 and n.

    >>> [round(bound, 4) for bound in beta_bounds(0, 10, 0.95)]
    [0.0, 0.3085]
    """
    from scipy.stats import beta

    tail, k = (1 - level) / 2, successes
    low = float(beta.ppf(tail, k, n - k + 1)) if k > 0 else 0.0
    high = float(beta.isf(tail, k + 1, n - k)) if k < n else 1.0
    return low, high


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Return a rate with its two-sided exact interval; each tail holds at most (1 - level) / 2 at every true rate.

    Parameters
    ----------
    successes, n
        counts, 0 <= successes <= n; ``n = 0`` gives NaN.
    level
        confidence in (0, 1).

    Raises
    ------
    InputError
        for counts that cannot be.

    Examples
    --------
    >>> print(clopper_pearson(0, 30))
    0 [0, 0.1157], n = 30
    """
    k, n = _counts(successes, n)
    require_share(level, "level")
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0, "clopper-pearson")
    return Interval(k / n, *beta_bounds(k, n, level), n, "clopper-pearson")


def upper_bound(successes: int, n: int, level: float = 0.95) -> float:
    r"""Return the one-sided exact (Clopper-Pearson) upper bound of a rate.

    The largest rate p with :math:`P[Bin(n, p) \le k] \ge 1 - level`; for k = 0 it is :math:`1 - (1 - level)^{1/n}`. This is the convention
    of "no false claim in 30, so at most 9.5 %" and "in 8, so at most 31 %"; the upper end of the two-sided interval (`clopper_pearson`)
    is 11.6 % and 36.9 % there, because it spends only half of 5 % on this side.

    Parameters
    ----------
    successes, n
        counts, 0 <= successes <= n; ``n = 0`` gives NaN.
    level
        confidence in (0, 1).

    Examples
    --------
    >>> round(upper_bound(0, 30), 4), round(upper_bound(0, 8), 4)
    (0.095, 0.3123)
    """
    k, n = _counts(successes, n)
    require_share(level, "level")
    if n == 0:
        return math.nan
    return beta_bounds(k, n, 2 * level - 1)[1]


def binomial_p(successes: int, n: int, p0: float, alternative: Alternative = "greater") -> float:
    r"""Return the exact binomial p-value of ``successes`` in ``n`` independent trials of chance ``p0``.

    ``greater``: :math:`P[Bin(n, p_0) \ge k]`; ``less``: :math:`P[Bin(n, p_0) \le k]`; ``two-sided``: the total probability of the counts
    that are no likelier than k. It says nothing about models when the trials are probes of one model: see `rank_p`.

    Examples
    --------
    >>> round(binomial_p(8, 20, 0.1), 6)
    0.000416
    """
    k, n = _counts(successes, n)
    require_probability(p0, "the chance of a success")
    require_alternative(alternative)
    if n == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(k, n, p0, alternative).pvalue)


def required_matches(n: int, p0: float, p: float) -> int | None:
    r"""Return the fewest matches k of ``n`` with :math:`P[Bin(n, p_0) \ge k] \le p`; ``None`` when even n matches are too few.

    Examples
    --------
    >>> required_matches(100, 0.2, 1e-6), required_matches(5, 0.5, 1e-3)
    (42, None)
    """
    n = require_count(n, "the number of trials", least=1)
    require_probability(p0, "the chance of a match")
    require_share(p, "p")
    from scipy.stats import binom

    enough = binom.sf(np.arange(n + 1) - 1, n, p0) <= p
    return int(enough.argmax()) if bool(enough.any()) else None


def best_of_q(p: float, q: int) -> float:
    """Return 1 - (1 - p)^q: the chance that the best of ``q`` independent tries reaches a p-value of ``p``.

    Examples
    --------
    >>> round(best_of_q(1e-3, 1000), 3)
    0.632
    """
    require_probability(p, "p")
    q = require_count(q, "the number of tries", least=1)
    return 1.0 if p == 1 else -math.expm1(q * math.log1p(-p))
