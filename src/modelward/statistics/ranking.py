"""How well a score ranks positives above negatives: ROC, AUC and its intervals, F1. Higher scores mean "more positive"."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modelward.statistics.rates import Interval, beta_bounds, require_count, require_share
from modelward.statistics.resampling import bootstrap_two_sample, require_sample

Scores = NDArray[np.float64]
PAIRED = "clopper-pearson on pairs"


def _scores(positives: ArrayLike, negatives: ArrayLike) -> tuple[Scores, Scores]:
    """Return both samples; raises `InputError` when one is empty or holds NaN (infinite scores are allowed)."""
    return (
        require_sample(positives, "the scores of the positives", finite=False),
        require_sample(negatives, "the scores of the negatives", finite=False),
    )


def _won(of: Scores, against: Scores) -> Scores:
    """Return for each score the share of ``against`` below it, ties half: (N,) in [0, 1]."""
    ordered = np.sort(against)
    return (np.searchsorted(ordered, of, "left") + np.searchsorted(ordered, of, "right")) / (2 * len(against))


def auc(positives: ArrayLike, negatives: ArrayLike) -> float:
    r"""Return the area under the ROC curve, :math:`P[X > Y] + P[X = Y] / 2` over all pairs of a positive X and a negative Y.

    Parameters
    ----------
    positives, negatives
        scores (M,) and (N,); higher means more positive.

    Raises
    ------
    InputError
        for an empty side or NaN.

    Examples
    --------
    >>> auc([3.0, 2.0], [1.0, 2.0])
    0.875
    """
    first, second = _scores(positives, negatives)
    ordered = np.sort(second)
    # Summed as whole numbers of half pairs, so that perfect separation gives exactly 1.
    halves = int(np.searchsorted(ordered, first, "left").sum()) + int(np.searchsorted(ordered, first, "right").sum())
    return halves / (2 * len(first) * len(second))


def _paired(value: float, first: Scores, second: Scores, level: float) -> Interval:
    """Return the interval of an AUC from ``min(M, N)`` disjoint pairs, as described in `auc_delong`."""
    pairs = min(len(first), len(second))
    return Interval(value, *beta_bounds(value * pairs, pairs, level), len(first) + len(second), PAIRED)


def auc_delong(positives: ArrayLike, negatives: ArrayLike, level: float = 0.95) -> Interval:
    r"""Return the AUC with DeLong's interval on the logit scale.

    With :math:`\psi(x, y) = [x > y] + [x = y] / 2`, :math:`V_i = \frac1N \sum_j \psi(x_i, y_j)` and :math:`W_j = \frac1M \sum_i \psi(x_i, y_j)`,

    .. math:: \hat\sigma^2 = \frac{s_V^2}{M} + \frac{s_W^2}{N}, \qquad \mathrm{logit}\,A \pm z \frac{\hat\sigma}{A (1 - A)}

    which stays inside (0, 1), unlike A ± z sigma (DeLong, DeLong and Clarke-Pearson 1988; logit: Pepe 2003). ``n`` is M + N.

    Where the variance estimate is 0 (perfect separation, all scores equal) or undefined (a side of one score), DeLong says nothing, and the
    bounds are Clopper-Pearson's for A k successes in :math:`k = \min(M, N)` trials; ``method`` names it. The reason: k disjoint pairs
    are k independent trials that succeed with the true AUC :math:`\theta`, so perfect separation has probability at most :math:`\theta^k`,
    and the low bound :math:`(\alpha / 2)^{1 / k}` holds without any assumption on the scores (some distributions attain it). Between 0 and
    1 the rule rests on :math:`Var A \le \theta (1 - \theta) / k` (van Dantzig 1951). So A = 1 may get a lower bound below that of A = .99.

    Parameters
    ----------
    positives, negatives, level
        scores (M,) and (N,), one per independent unit, higher means more positive; confidence in (0, 1).

    Examples
    --------
    >>> print(auc_delong([3.0, 5.0, 6.0, 7.0], [1.0, 2.0, 4.0, 5.5]))
    0.8125 [0.3293, 0.9745], n = 8
    >>> print(auc_delong([5.0, 6.0, 7.0, 8.0], [1.0, 2.0, 3.0, 4.0]))
    1 [0.3976, 1], n = 8
    """
    first, second = _scores(positives, negatives)
    level, value = require_share(level, "level"), auc(first, second)
    if min(len(first), len(second)) < 2 or value in {0.0, 1.0}:
        return _paired(value, first, second, level)
    wins, losses = _won(first, second), _won(second, first)
    if np.ptp(wins) == 0 and np.ptp(losses) == 0:
        return _paired(value, first, second, level)
    deviation = math.sqrt(float(wins.var(ddof=1)) / len(first) + float(losses.var(ddof=1)) / len(second))
    half = NormalDist().inv_cdf((1 + level) / 2) * deviation / (value * (1 - value))
    odds = math.log(value / (1 - value))
    low, high = ((1 + math.tanh((odds + shift) / 2)) / 2 for shift in (-half, half))
    return Interval(value, low, high, len(first) + len(second), "delong logit")


def auc_bootstrap(
    positives: ArrayLike, negatives: ArrayLike, *, rng: np.random.Generator, resamples: int = 2000, level: float = 0.95
) -> Interval:
    """Return the AUC with a percentile bootstrap interval; positives and negatives are drawn from apart.

    A bootstrap of perfectly separated scores never leaves 0 or 1; such an AUC gets the bounds on disjoint pairs of `auc_delong`, and so
    does one of all-equal scores or with a side of one score.

    Parameters
    ----------
    positives, negatives
        scores (M,) and (N,), one per independent unit; higher means more positive.
    rng, resamples, level
        as in `bootstrap`.

    Examples
    --------
    >>> interval = auc_bootstrap([3.0, 5.0, 6.0, 7.0], [1.0, 2.0, 4.0, 5.5], rng=np.random.default_rng(0))
    >>> interval.value, interval.low < 0.7, interval.method
    (0.8125, True, 'bootstrap')
    """
    first, second = _scores(positives, negatives)
    level, value = require_share(level, "level"), auc(first, second)
    require_count(resamples, "resamples", least=1)
    if min(len(first), len(second)) < 2 or value in {0.0, 1.0} or len(np.unique(np.concatenate([first, second]))) == 1:
        return _paired(value, first, second, level)
    # Only the order matters to the AUC, and ranks are finite where scores may not be.
    ranks = np.unique(np.concatenate([first, second]), return_inverse=True)[1]
    return bootstrap_two_sample(ranks[: len(first)], ranks[len(first) :], auc, rng=rng, resamples=resamples, level=level)


def roc(positives: ArrayLike, negatives: ArrayLike) -> tuple[Scores, Scores, Scores]:
    """Return the ROC curve: false-positive rates, true-positive rates and thresholds, each (T,).

    A sample is called positive when its score is at least the threshold. Thresholds fall from infinity, (0, 0), through every distinct
    score to the smallest, (1, 1); the trapezoids under the curve add up to `auc`.

    Parameters
    ----------
    positives, negatives
        scores (M,) and (N,); higher means more positive.

    Examples
    --------
    >>> fpr, tpr, thresholds = roc([3.0, 2.0], [1.0, 2.0])
    >>> fpr.tolist(), tpr.tolist(), thresholds.tolist()
    ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0], [inf, 3.0, 2.0, 1.0])
    """
    first, second = _scores(positives, negatives)
    thresholds = np.unique(np.concatenate([first, second]))[::-1]
    fpr, tpr = ((len(side) - np.searchsorted(np.sort(side), thresholds, "left")) / len(side) for side in (second, first))
    return np.concatenate([[0.0], fpr]), np.concatenate([[0.0], tpr]), np.concatenate([[np.inf], thresholds])


def f1_at(threshold: float, positives: ArrayLike, negatives: ArrayLike) -> float:
    """Return the F1 score, 2 TP / (2 TP + FP + FN), when scores of at least ``threshold`` are called positive.

    The threshold must have been fixed on other data than these, or the figure flatters.

    Examples
    --------
    >>> f1_at(2.0, [3.0, 2.0, 1.0], [1.0, 2.0])
    0.6666666666666666
    """
    first, second = _scores(positives, negatives)
    (limit,) = require_sample([threshold], "the threshold", finite=False)
    hits, false = int((first >= limit).sum()), int((second >= limit).sum())
    return 2 * hits / (hits + false + len(first))
