"""Samples drawn again: bootstrap intervals, permutation tests, and the rank of one statistic among null models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modelward.core.errors import InputError
from modelward.statistics.rates import Alternative, Interval, require_alternative, require_count, require_share


def require_sample(values: ArrayLike, name: str, *, least: int = 1, finite: bool = True) -> NDArray[np.float64]:
    """Return ``values`` as float64 (N,); raises `InputError` for fewer than ``least`` values, NaN or, when ``finite``, infinities."""
    try:
        sample: NDArray[Any] = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        message = f"{name} must be a sequence of numbers"
        raise InputError(message) from None
    if sample.ndim != 1:
        message = f"{name} must have shape (N,), got {sample.shape}"
        raise InputError(message)
    if len(sample) < least:
        message = f"{name} needs at least {least} value{'s' if least > 1 else ''}, got {len(sample)}"
        raise InputError(message)
    if bool(np.isnan(sample).any()) or (finite and not bool(np.isfinite(sample).all())):
        message = f"{name} holds NaN{' or infinite values' if finite else ''}; leave out what was not measured"
        raise InputError(message)
    return sample


def _rows(values: ArrayLike, name: str) -> NDArray[Any]:
    """Return observations along the first axis, type and shape kept; raises `InputError` when there are none or one is NaN."""
    rows: NDArray[Any] = np.asarray(values)
    if rows.ndim == 0 or len(rows) == 0:
        message = f"{name} needs at least 1 observation to draw from"
        raise InputError(message)
    if rows.dtype.kind not in "biuf" or (rows.dtype.kind == "f" and not bool(np.isfinite(rows).all())):
        message = f"{name} must hold finite numbers; leave out what was not measured"
        raise InputError(message)
    return rows


def _percentiles(drawn: list[float], level: float) -> tuple[float, float]:
    """Return the percentile bounds of resampled statistics; raises `InputError` when the statistic failed on some resamples."""
    failed = int(np.isnan(drawn).sum())
    if failed:
        message = (
            f"the statistic is NaN on {failed} of {len(drawn)} resamples; give more observations or a statistic defined on all of them"
        )
        raise InputError(message)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap(
    values: ArrayLike,
    statistic: Callable[[NDArray[Any]], float],
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Return a statistic with its percentile bootstrap interval.

    Observations are drawn with replacement, N of N, ``resamples`` times; the bounds are the (1 - level) / 2 and (1 + level) / 2 quantiles.
    One observation must be one independent unit: bootstrap models, not the probes of one model.

    Parameters
    ----------
    values
        observations along the first axis (N, ...), type kept, so that indices may be bootstrapped.
    statistic
        function of a resample, same shape and type as ``values``, to a number.
    rng, resamples, level
        source of randomness, how many times to draw, confidence in (0, 1).

    Raises
    ------
    InputError
        for no values, NaN, or a statistic that is NaN on a resample.

    Examples
    --------
    >>> interval = bootstrap([1.0, 2.0, 3.0, 4.0], np.mean, rng=np.random.default_rng(0))
    >>> interval.value, interval.low < 2.5 < interval.high
    (2.5, True)
    """
    rows = _rows(values, "the sample")
    count, level = require_count(resamples, "resamples", least=1), require_share(level, "level")
    drawn = [float(statistic(rows[rng.integers(0, len(rows), len(rows))])) for _ in range(count)]
    return Interval(float(statistic(rows)), *_percentiles(drawn, level), len(rows), "bootstrap")


def bootstrap_two_sample(
    a: ArrayLike,
    b: ArrayLike,
    statistic: Callable[[NDArray[Any], NDArray[Any]], float],
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Return a statistic of two independent samples with its percentile bootstrap interval; each sample is drawn from by itself.

    Parameters
    ----------
    a, b
        observations along the first axis, (N, ...) and (M, ...).
    statistic
        function of a resample of ``a`` and one of ``b`` to a number.
    rng, resamples, level
        as in `bootstrap`; ``n`` of the result is N + M.

    Examples
    --------
    >>> interval = bootstrap_two_sample([5.0, 6.0, 7.0], [1.0, 2.0], lambda x, y: x.mean() - y.mean(), rng=np.random.default_rng(0))
    >>> interval.value, interval.n
    (4.5, 5)
    """
    first, second = _rows(a, "the first sample"), _rows(b, "the second sample")
    count, level = require_count(resamples, "resamples", least=1), require_share(level, "level")
    n, m = len(first), len(second)
    drawn = [float(statistic(first[rng.integers(0, n, n)], second[rng.integers(0, m, m)])) for _ in range(count)]
    return Interval(float(statistic(first, second)), *_percentiles(drawn, level), n + m, "bootstrap")


def permutation_p(
    a: ArrayLike,
    b: ArrayLike,
    rng: np.random.Generator,
    *,
    resamples: int = 9999,
    alternative: Alternative = "two-sided",
) -> float:
    """Return the permutation p-value of the difference in means, mean(a) - mean(b).

    All arrangements are counted when there are at most ``resamples`` of them; otherwise that many are drawn and the observed one is
    added, (1 + at least as extreme) / (resamples + 1). Two-sided is twice the smaller side, at most 1.

    Parameters
    ----------
    a, b
        samples (N,) and (M,) of at least 2, exchangeable under the null hypothesis; for one suspect against many see `rank_p`.
    rng
        source of randomness; unused when all arrangements are counted.
    resamples
        how many arrangements to draw.
    alternative
        ``"greater"``: ``a`` has the larger mean.

    Examples
    --------
    >>> permutation_p([4.0, 5.0, 6.0], [1.0, 2.0, 3.0], np.random.default_rng(0), alternative="greater")
    0.05
    """
    first, second = require_sample(a, "the first sample", least=2), require_sample(b, "the second sample", least=2)
    require_alternative(alternative)
    count = require_count(resamples, "resamples", least=1)
    from scipy.stats import permutation_test

    def difference(x: NDArray[np.float64], y: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return np.asarray(x.mean(axis=axis) - y.mean(axis=axis))

    found = permutation_test((first, second), difference, vectorized=True, n_resamples=count, alternative=alternative, rng=rng)
    return float(found.pvalue)


def _tail(alternative: str) -> None:
    """Raise `UsageError` unless ``alternative`` names one tail."""
    require_alternative(alternative, known=("less", "greater"))


def rank_p(statistic: float, nulls: ArrayLike, alternative: Alternative = "less") -> float:
    r"""Return the p-value of one statistic among those of independent null models.

    .. math:: p = \frac{1 + |\{i : s_i \le s\}|}{n + 1}

    for ``less`` (small statistics are extreme), with :math:`\ge` for ``greater``. Valid when the suspect is exchangeable with the nulls.

    Examples
    --------
    >>> rank_p(0.1, [0.2, 0.3, 0.1, 0.5])
    0.4
    """
    _tail(alternative)
    sample = require_sample(nulls, "the statistics of the null models")
    (value,) = require_sample([statistic], "the statistic", finite=False)
    extreme = sample <= value if alternative == "less" else sample >= value
    return (1 + int(extreme.sum())) / (len(sample) + 1)


def rank_threshold(nulls: ArrayLike, alpha: float, alternative: Alternative = "less") -> float | None:
    r"""Return the largest statistic (smallest for ``greater``) whose `rank_p` is at most ``alpha``; ``None`` when no statistic reaches it.

    With m the most nulls that may be as extreme, :math:`(1 + m) / (n + 1) \le \alpha`, it is the float just below the (m + 1)-th smallest
    null, so that ``statistic <= rank_threshold(nulls, alpha)`` and ``rank_p(statistic, nulls) <= alpha`` say the same. It takes
    :math:`n \ge 1 / \alpha - 1` null models: 19 for 0.05, 99 for 0.01.

    Examples
    --------
    >>> limit = rank_threshold(range(1, 21), 0.1)
    >>> 1 < limit < 2, rank_p(limit, range(1, 21)) <= 0.1, rank_threshold(range(18), 0.05)
    (True, True, None)
    """
    _tail(alternative)
    require_share(alpha, "alpha")
    sample = np.sort(require_sample(nulls, "the statistics of the null models"))
    # Compared as in rank_p, so that no rounding of alpha * (n + 1) can part the two.
    allowed = sum((1 + m) / (len(sample) + 1) <= alpha for m in range(len(sample)))
    if not allowed:
        return None
    if alternative == "less":
        return float(np.nextafter(sample[allowed - 1], -np.inf))
    return float(np.nextafter(sample[-allowed], np.inf))
