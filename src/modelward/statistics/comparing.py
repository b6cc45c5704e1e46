"""Two samples compared: means, ranks and paired answers; many tests at once; confidence against correctness."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modelward.core.errors import InputError
from modelward.statistics.rates import Alternative, Interval, binomial_p, require_alternative, require_count, require_share
from modelward.statistics.resampling import require_sample

ARRANGEMENTS = 100_000
PAIRS = 10_000


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    r"""Return a mean with its Student t interval, :math:`\bar x \pm t_{n - 1} s / \sqrt n`; the bounds of one value are NaN.

    Parameters
    ----------
    values
        independent observations (N,), in any unit.
    level
        confidence in (0, 1).

    Raises
    ------
    InputError
        for no values, NaN or infinities.

    Examples
    --------
    >>> print(mean_interval([1.0, 2.0, 3.0]))
    2 [-0.4841, 4.484], n = 3
    """
    sample, level = require_sample(values, "the sample"), require_share(level, "level")
    mean, n = float(sample.mean()), len(sample)
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1, "student t")
    from scipy.stats import t

    half = float(t.ppf((1 + level) / 2, n - 1)) * float(sample.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, "student t")


def welch(a: ArrayLike, b: ArrayLike, alternative: Alternative = "two-sided") -> float:
    r"""Return the p-value of Welch's t-test of equal means with unequal variances.

    .. math:: t = \frac{\bar a - \bar b}{\sqrt{s_a^2 / n + s_b^2 / m}}

    with the Welch-Satterthwaite degrees of freedom; ``greater``: ``a`` has the larger mean.

    Parameters
    ----------
    a, b
        samples (N,) and (M,) of at least 2.
    alternative
        ``"two-sided"``, ``"less"`` or ``"greater"``.

    Raises
    ------
    InputError
        for samples that are too small, hold NaN, or are both constant: the test is undefined there.

    Examples
    --------
    >>> round(welch([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]), 4)
    0.0213
    """
    first, second = require_sample(a, "the first sample", least=2), require_sample(b, "the second sample", least=2)
    require_alternative(alternative)
    spreads = [0.0 if np.ptp(sample) == 0 else float(sample.std(ddof=1)) for sample in (first, second)]
    if not any(spreads):
        raise InputError("both samples are constant, so Welch's test is undefined; use mann_whitney or permutation_p")
    from scipy.stats import ttest_ind_from_stats

    found = ttest_ind_from_stats(
        first.mean(), spreads[0], len(first), second.mean(), spreads[1], len(second), equal_var=False, alternative=alternative
    )
    return float(found.pvalue)


def mann_whitney(a: ArrayLike, b: ArrayLike, alternative: Alternative = "two-sided") -> float:
    """Return the p-value of the Mann-Whitney U test (Wilcoxon's rank sum); ties share their mean rank.

    Exact without ties up to N M = 10,000 pairs, exact with ties up to 100,000 arrangements (all are counted), else the normal approximation
    with tie and continuity correction. Two-sided is twice the smaller side, at most 1. ``greater``: ``a`` tends to be larger.

    Parameters
    ----------
    a, b
        samples (N,) and (M,).
    alternative
        ``"two-sided"``, ``"less"`` or ``"greater"``.

    Examples
    --------
    >>> mann_whitney([4.0, 5.0, 6.0], [1.0, 2.0, 3.0]), mann_whitney([2.0, 2.0], [1.0, 2.0], "greater")
    (0.1, 0.5)
    """
    first = require_sample(a, "the first sample", finite=False)
    second = require_sample(b, "the second sample", finite=False)
    require_alternative(alternative)
    both, pairs = np.concatenate([first, second]), len(first) * len(second)
    distinct = len(np.unique(both))
    if distinct == 1:
        return 1.0
    if distinct < len(both) and math.comb(len(both), len(first)) <= ARRANGEMENTS:
        return _rank_sum_p(both, len(first), alternative)
    from scipy.stats import mannwhitneyu

    exact = distinct == len(both) and pairs <= PAIRS
    return float(mannwhitneyu(first, second, alternative=alternative, method="exact" if exact else "asymptotic").pvalue)


def _rank_sum_p(both: NDArray[np.float64], count: int, alternative: str) -> float:
    """Return the exact p-value of the sum of the first ``count`` midranks, over all choices of ``count`` of them."""
    from itertools import combinations

    from scipy.stats import rankdata

    # Doubled midranks are whole numbers, so sums compare without rounding.
    ranks = (2 * rankdata(both)).astype(np.int64)
    # The smaller side is listed: one against thousands has as few arrangements as thousands against one, but far smaller ones.
    chosen = min(count, len(ranks) - count)
    sums = ranks[np.array(list(combinations(range(len(ranks)), chosen)))].sum(axis=1)
    if chosen < count:
        sums = ranks.sum() - sums
    above, below = float((sums >= ranks[:count].sum()).mean()), float((sums <= ranks[:count].sum()).mean())
    if alternative == "two-sided":
        return min(1.0, 2 * min(above, below))
    return above if alternative == "greater" else below


def _flags(values: ArrayLike, name: str) -> NDArray[np.bool_]:
    """Return right/wrong flags (N,) as booleans; raises `InputError` for anything but 0 and 1."""
    flags = require_sample(values, name)
    if not bool(np.isin(flags, (0.0, 1.0)).all()):
        message = f"{name} must hold True and False, or 1 and 0"
        raise InputError(message)
    return flags.astype(np.bool_)


def mcnemar(a_correct: ArrayLike, b_correct: ArrayLike) -> float:
    r"""Return the exact two-sided McNemar p-value that two models err equally often on the same samples.

    With b samples that only ``a`` gets right and c that only ``b`` does: :math:`\min(1, 2 P[Bin(b + c, 1/2) \le \min(b, c)])`.

    Parameters
    ----------
    a_correct, b_correct
        booleans (N,), the same samples in the same order.

    Examples
    --------
    >>> mcnemar([True, True, True, True, True, False], [False, False, False, False, False, False])
    0.0625
    """
    first, second = _flags(a_correct, "the first model's answers"), _flags(b_correct, "the second model's answers")
    if len(first) != len(second):
        message = f"McNemar's test pairs the same samples; got {len(first)} and {len(second)} answers"
        raise InputError(message)
    only_a, only_b = int((first & ~second).sum()), int((~first & second).sum())
    return binomial_p(only_a, only_a + only_b, 0.5, "two-sided")


def holm(ps: ArrayLike) -> NDArray[np.float64]:
    r"""Return Holm's step-down adjusted p-values, in the order given; no tests give no values.

    With :math:`p_{(1)} \le \dots \le p_{(m)}`: :math:`\tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1) p_{(j)})`. Rejecting where
    :math:`\tilde p \le \alpha` keeps the chance of any false rejection at most :math:`\alpha`, whatever the dependence.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).round(3).tolist()
    [0.03, 0.06, 0.06]
    """
    sample = require_sample(ps, "the p-values", least=0)
    if not bool(((sample >= 0) & (sample <= 1)).all()):
        raise InputError("p-values lie in [0, 1]")
    order = np.argsort(sample, kind="stable")
    adjusted = np.empty_like(sample)
    adjusted[order] = np.maximum.accumulate(np.minimum(1.0, sample[order] * np.arange(len(sample), 0, -1)))
    return adjusted


def expected_calibration_error(confidence: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    r"""Return the expected calibration error in [0, 1] over equal-width bins of confidence.

    .. math:: ECE = \sum_b \frac{n_b}{N} \left| acc_b - conf_b \right|

    Bin b of B holds the confidences in [b / B, (b + 1) / B), the last one 1 too; empty bins count nothing. It grows with the number of bins
    on a small sample, so compare only figures with the same ``bins`` and a similar N.

    Parameters
    ----------
    confidence
        the probability given to the predicted class (N,), in [0, 1].
    correct
        booleans (N,): whether that class was right.
    bins
        how many.

    Examples
    --------
    >>> round(expected_calibration_error([0.9, 0.9, 0.6, 0.6], [True, True, True, False], bins=10), 3)
    0.1
    """
    trust, right = require_sample(confidence, "the confidences"), _flags(correct, "the answers")
    bins = require_count(bins, "the number of bins", least=1)
    if len(trust) != len(right):
        message = f"every answer has one confidence; got {len(trust)} confidences for {len(right)} answers"
        raise InputError(message)
    if trust.min() < 0 or trust.max() > 1:
        message = f"confidences are probabilities in [0, 1], got {trust.min():.3g} to {trust.max():.3g}"
        raise InputError(message)
    where = np.minimum((trust * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(where, weights=right - trust, minlength=bins)
    return float(np.abs(gaps).sum() / len(trust))
