from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from modelward.core.errors import InputError, UsageError
from modelward.statistics import auc, auc_bootstrap, auc_delong, clopper_pearson, f1_at, roc

# few distinct values, so that ties are common
scores = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=25)
two_or_more = st.lists(st.integers(-4, 4).map(float), min_size=2, max_size=25)


def psi(x: float, y: float) -> float:
    return float(x > y) + 0.5 * (x == y)


def delong(positives: list[float], negatives: list[float]) -> tuple[float, float]:
    table = np.array([[psi(x, y) for y in negatives] for x in positives])
    wins, losses = table.mean(1), table.mean(0)
    return float(table.mean()), float(wins.var(ddof=1) / len(positives) + losses.var(ddof=1) / len(negatives))


@given(scores, scores)
def test_auc_counts_pairs_and_is_the_u_statistic(positives: list[float], negatives: list[float]) -> None:
    assert auc(positives, negatives) == pytest.approx(np.mean([psi(x, y) for x in positives for y in negatives]))
    u = stats.mannwhitneyu(positives, negatives, method="asymptotic").statistic if len({*positives, *negatives}) > 1 else None
    if u is not None:
        assert auc(positives, negatives) == pytest.approx(u / (len(positives) * len(negatives)))


@given(scores, scores)
def test_auc_turns_around_and_ignores_monotone_maps(positives: list[float], negatives: list[float]) -> None:
    assert auc(negatives, positives) == pytest.approx(1 - auc(positives, negatives))
    assert auc(np.exp(positives), np.exp(negatives)) == auc(positives, negatives)


@given(scores, scores)
def test_roc_is_a_staircase_whose_area_is_the_auc(positives: list[float], negatives: list[float]) -> None:
    fpr, tpr, thresholds = roc(positives, negatives)
    assert fpr.shape == tpr.shape == thresholds.shape
    assert (fpr[0], tpr[0], thresholds[0], fpr[-1], tpr[-1]) == (0, 0, math.inf, 1, 1)
    assert (np.diff(fpr) >= 0).all()
    assert (np.diff(tpr) >= 0).all()
    assert (np.diff(thresholds) < 0).all()
    for rate, side in ((tpr, positives), (fpr, negatives)):
        assert rate.tolist() == [float(np.mean(np.array(side) >= t)) for t in thresholds]
    assert np.trapezoid(tpr, fpr) == pytest.approx(auc(positives, negatives))


@given(two_or_more, two_or_more, st.sampled_from([0.8, 0.95, 0.99]))
def test_delong_agrees_with_its_definition(positives: list[float], negatives: list[float], level: float) -> None:
    value, variance = delong(positives, negatives)
    got = auc_delong(positives, negatives, level)
    assert got.value == pytest.approx(value)
    assert got.n == len(positives) + len(negatives)
    assert 0 <= got.low <= got.value <= got.high <= 1
    if 0 < value < 1 and variance > 1e-12:
        half = stats.norm.ppf((1 + level) / 2) * math.sqrt(variance) / (value * (1 - value))
        odds = math.log(value / (1 - value))
        assert got.method == "delong logit"
        assert (got.low, got.high) == pytest.approx((1 / (1 + math.exp(half - odds)), 1 / (1 + math.exp(-half - odds))), rel=1e-9)
    else:
        assert got.method == "clopper-pearson on pairs"
        assert got.high > got.low


def test_delong_by_hand() -> None:
    # wins (1, 1, 1/2), losses (1, 2/3): variances 1/12 and 1/18, so sigma^2 = 1/36 + 1/36
    value, variance = delong([5.0, 4.0, 2.0], [1.0, 3.0])
    assert (value, variance) == pytest.approx((5 / 6, 1 / 18))
    got = auc_delong([5.0, 4.0, 2.0], [1.0, 3.0])
    shift = 1.959963984540054 * math.sqrt(1 / 18) / (5 / 36)
    assert (got.low, got.high) == pytest.approx((1 / (1 + math.exp(shift) / 5), 1 / (1 + math.exp(-shift) / 5)))


@pytest.mark.parametrize(("true", "count", "shift"), [(0.7602, 40, 1.0), (0.6382, 25, 0.5)])
def test_delong_covers_normal_scores(true: float, count: int, shift: float) -> None:
    assert true == pytest.approx(stats.norm.cdf(shift / math.sqrt(2)), abs=1e-4)
    rng = np.random.default_rng(11)
    found = [auc_delong(rng.normal(shift, 1, count), rng.normal(0, 1, count)) for _ in range(4000)]
    assert 0.94 <= np.mean([i.low <= true <= i.high for i in found]) <= 0.965


@pytest.mark.parametrize("counts", [(1, 1), (3, 10), (10, 3), (8, 8)])
def test_perfect_separation_gets_the_bound_of_disjoint_pairs(counts: tuple[int, int]) -> None:
    high, low = np.arange(counts[0]) + 100.0, np.arange(counts[1]) + 0.0
    k = min(counts)
    for got in (auc_delong(high, low), auc_bootstrap(high, low, rng=np.random.default_rng(0))):
        assert (got.value, got.high, got.n) == (1.0, 1.0, sum(counts))
        assert got.low == pytest.approx(0.025 ** (1 / k))
        assert got.low == pytest.approx(clopper_pearson(k, k).low)
    assert auc_delong(low, high).high == pytest.approx(1 - 0.025 ** (1 / k))


@pytest.mark.parametrize("kind", ["normal", "point", "spread"])
def test_the_bound_of_perfect_separation_errs_rarely_enough(kind: str) -> None:
    # at the true AUC equal to the bound, perfect separation may happen in at most 2.5 % of the samples
    rng, k, trials = np.random.default_rng(3), 6, 40_000
    true = 0.025 ** (1 / k)
    if kind == "point":  # attains the bound: every positive wins or loses against all negatives
        x, y = np.where(rng.random((trials, k)) < true, 2.0, 0.0), np.ones((trials, 9))
    elif kind == "normal":
        x, y = rng.normal(math.sqrt(2) * stats.norm.ppf(true), 1, (trials, k)), rng.normal(0, 1, (trials, 9))
    else:
        x, y = rng.random((trials, k)) + 1 - math.sqrt(2 * (1 - true)), rng.random((trials, k))
    perfect = float(np.mean(x.min(1) > y.max(1)))
    assert perfect <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / trials)
    assert kind != "point" or perfect >= 0.025 - 3 * math.sqrt(0.025 * 0.975 / trials)


def test_scores_without_spread_are_not_certain() -> None:
    for got in (auc_delong([1.0] * 5, [1.0] * 9), auc_bootstrap([1.0] * 5, [1.0] * 9, rng=np.random.default_rng(0))):
        assert got.value == 0.5
        assert got.low < 0.2
        assert got.high > 0.8


def test_bootstrap_lies_near_delong_and_follows_its_rng() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(1, 1, 60), rng.normal(0, 1, 80)
    first, again = (auc_bootstrap(x, y, rng=np.random.default_rng(1), resamples=1000) for _ in range(2))
    assert first == again
    plain = auc_delong(x, y)
    assert first.value == plain.value
    assert (first.low, first.high) == pytest.approx((plain.low, plain.high), abs=0.03)


def test_infinite_scores_have_an_order() -> None:
    x, y = [math.inf, 1.0, 0.0], [-math.inf, 0.5]
    assert auc(x, y) == pytest.approx(5 / 6)
    assert auc_bootstrap(x, y, rng=np.random.default_rng(0), resamples=50).value == auc(x, y)


@given(scores, scores, st.integers(-5, 5))
def test_f1_is_the_harmonic_mean_of_precision_and_recall(positives: list[float], negatives: list[float], threshold: int) -> None:
    hits = sum(s >= threshold for s in positives)
    called = hits + sum(s >= threshold for s in negatives)
    want = 0.0 if hits == 0 else stats.hmean([hits / called, hits / len(positives)])
    assert f1_at(threshold, positives, negatives) == pytest.approx(want)


@pytest.mark.parametrize(
    "call", [auc, auc_delong, roc, lambda x, y: f1_at(0.0, x, y), lambda x, y: auc_bootstrap(x, y, rng=np.random.default_rng())]
)
def test_bad_scores_are_refused(call: object) -> None:
    assert callable(call)
    with pytest.raises(InputError, match="positives needs at least 1 value, got 0"):
        call([], [1.0])
    with pytest.raises(InputError, match="negatives needs at least 1"):
        call([1.0], [])
    with pytest.raises(InputError, match="NaN"):
        call([1.0], [math.nan])
    with pytest.raises(InputError, match="shape"):
        call([[1.0]], [1.0])
    with pytest.raises(InputError, match="sequence of numbers"):
        call(["much"], [1.0])


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(UsageError, match="level"):
        auc_delong([1.0, 2.0], [0.0, 1.0], 95)
    with pytest.raises(InputError, match="resamples is at least 1"):
        auc_bootstrap([1.0, 2.0], [0.0, 1.0], rng=np.random.default_rng(), resamples=0)
    with pytest.raises(InputError, match="threshold holds NaN"):
        f1_at(math.nan, [1.0], [0.0])
