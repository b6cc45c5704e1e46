from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from modelward.core.errors import InputError, UsageError
from modelward.statistics import expected_calibration_error, holm, mann_whitney, mcnemar, mean_interval, welch
from modelward.statistics.rates import Alternative

finite = st.floats(-100, 100).map(lambda v: round(v, 3))
samples = st.lists(finite, min_size=2, max_size=20)
few = st.lists(st.integers(0, 4).map(float), min_size=1, max_size=5)
sides: st.SearchStrategy[Alternative] = st.sampled_from(["two-sided", "less", "greater"])


@given(samples, st.sampled_from([0.8, 0.95, 0.99]))
def test_mean_interval_inverts_the_t_test(values: list[float], level: float) -> None:
    got = mean_interval(values, level)
    assert got.value == pytest.approx(np.mean(values), abs=1e-12)
    assert got.n == len(values)
    if len(set(values)) == 1:
        assert (got.low, got.high) == pytest.approx((got.value, got.value))
        return
    want = stats.ttest_1samp(values, 0.0).confidence_interval(level)
    assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=1e-9)


def test_mean_of_one_value_has_no_bounds() -> None:
    got = mean_interval([3.0])
    assert (got.value, got.n) == (3.0, 1)
    assert math.isnan(got.low)
    assert math.isnan(got.high)


def test_mean_interval_covers() -> None:
    draws = np.random.default_rng(4).normal(2.0, 3.0, (2000, 5))
    assert 0.94 <= np.mean([i.low <= 2 <= i.high for i in map(mean_interval, draws)]) <= 0.96


@given(samples, samples, sides)
def test_welch_agrees_with_scipy(a: list[float], b: list[float], side: Alternative) -> None:
    if len(set(a)) == 1 or len(set(b)) == 1:
        return
    want = stats.ttest_ind(a, b, equal_var=False, alternative=side).pvalue
    assert welch(a, b, side) == pytest.approx(want, rel=1e-9, abs=1e-12)


def test_welch_by_hand() -> None:
    # variances 1 and 4 over 3: t = -3 / sqrt(5/3), df = (5/3)^2 / ((1/3)^2 / 2 + (4/3)^2 / 2) = 50/17
    want = 2 * stats.t.sf(3 / math.sqrt(5 / 3), 50 / 17)
    assert welch([1.0, 2.0, 3.0], [3.0, 5.0, 7.0]) == pytest.approx(want)


def test_welch_refuses_two_constants_but_takes_one() -> None:
    with pytest.raises(InputError, match="both samples are constant"):
        welch([0.1, 0.1, 0.1], [0.2, 0.2])
    one = welch([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])
    assert one == pytest.approx(stats.ttest_1samp([1.0, 2.0, 3.0], 1.0).pvalue)


@given(few, few, sides)
def test_mann_whitney_counts_all_arrangements(a: list[float], b: list[float], side: Alternative) -> None:
    both = np.array(a + b)

    def won(chosen: tuple[int, ...]) -> float:
        x, y = both[list(chosen)], np.delete(both, chosen)
        return float((np.sign(x[:, None] - y[None, :])).sum())

    here = won(tuple(range(len(a))))
    every = np.array([won(chosen) for chosen in itertools.combinations(range(len(both)), len(a))])
    above, below = (every >= here).mean(), (every <= here).mean()
    want = {"greater": above, "less": below, "two-sided": min(1.0, 2 * min(above, below))}[side]
    assert mann_whitney(a, b, side) == pytest.approx(want)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32), sides)
def test_mann_whitney_without_ties_is_exact(n: int, m: int, seed: int, side: Alternative) -> None:
    order = np.random.default_rng(seed).permutation(n + m).astype(float)
    want = stats.mannwhitneyu(order[:n], order[n:], alternative=side, method="exact").pvalue
    assert mann_whitney(order[:n], order[n:], side) == pytest.approx(want)


def test_large_samples_use_the_normal_approximation() -> None:
    rng = np.random.default_rng(0)
    for a, b in ((rng.random(150), rng.random(150)), (rng.integers(0, 9, 60), rng.integers(1, 9, 60))):
        assert mann_whitney(a, b) == stats.mannwhitneyu(a, b, method="asymptotic").pvalue


def test_many_against_one_with_ties() -> None:
    many = np.repeat(np.arange(1000.0), 2)
    assert mann_whitney(many, [-1.0], "greater") == pytest.approx(1 / 2001)
    assert mann_whitney([-1.0], many, "less") == pytest.approx(1 / 2001)
    assert mann_whitney([5.0] * 40, [5.0] * 40) == 1.0


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_tests_the_discordant_pairs(pairs: list[tuple[bool, bool]]) -> None:
    a, b = zip(*pairs, strict=True)
    only_a, only_b = sum(x and not y for x, y in pairs), sum(y and not x for x, y in pairs)
    total = only_a + only_b
    tail = sum(math.comb(total, i) for i in range(min(only_a, only_b) + 1)) / 2**total
    assert mcnemar(a, b) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(b, a) == mcnemar(a, b)


def test_holm_by_hand() -> None:
    # sorted .005, .01, .03, .04 times 4, 3, 2, 1: .02, .03, .06, then the .04 may not fall below .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.sampled_from([0.01, 0.05, 0.2, 0.5]))
def test_holm_rejects_what_the_step_down_procedure_rejects(ps: list[float], alpha: float) -> None:
    adjusted = holm(ps)
    order = np.argsort(ps, kind="stable")
    rejected = set()
    for step, index in enumerate(order):
        if ps[index] * (len(ps) - step) > alpha:
            break
        rejected.add(int(index))
    assert set(np.flatnonzero(adjusted <= alpha).tolist()) == rejected
    assert (adjusted >= np.array(ps)).all()


def test_calibration_error_by_hand() -> None:
    # bins [.5, .6), [.6, .7), [.9, 1]: |1/2 - .55| 2/5 + |0 - .6| 1/5 + |1 - .95| 2/5
    trust, right = [0.5, 0.6, 0.6, 0.9, 1.0], [1, 0, 0, 1, 1]
    assert expected_calibration_error(trust, right, bins=10) == pytest.approx((0.5 + 1.2 + 0.1) / 5)
    assert expected_calibration_error(trust, right, bins=1) == pytest.approx(abs(3 / 5 - np.mean(trust)))
    assert expected_calibration_error([0.0, 1.0], [False, True]) == 0.0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60), st.integers(1, 20))
def test_calibration_error_agrees_with_its_definition(pairs: list[tuple[float, bool]], bins: int) -> None:
    total = 0.0
    for b in range(bins):
        inside = [(c, r) for c, r in pairs if min(math.floor(c * bins), bins - 1) == b]
        if inside:
            total += len(inside) / len(pairs) * abs(float(np.mean([r for _, r in inside]) - np.mean([c for c, _ in inside])))
    got = expected_calibration_error([c for c, _ in pairs], [r for _, r in pairs], bins)
    assert got == pytest.approx(total, abs=1e-12)
    assert 0 <= got <= 1


@pytest.mark.parametrize("call", [welch, mann_whitney, mcnemar, expected_calibration_error])
def test_bad_samples_are_refused(call: Callable[..., float]) -> None:
    with pytest.raises(InputError, match="needs at least"):
        call([], [1.0, 0.0])
    with pytest.raises(InputError, match="NaN"):
        call([1.0, math.nan], [1.0, 0.0])


def test_wrong_arguments_are_refused() -> None:
    unknown: Any = "both"
    with pytest.raises(InputError, match="needs at least 1 value"):
        mean_interval([])
    with pytest.raises(InputError, match="NaN or infinite"):
        mean_interval([1.0, math.inf])
    with pytest.raises(InputError, match="at least 2 values, got 1"):
        welch([1.0], [1.0, 2.0])
    for test in (welch, mann_whitney):
        with pytest.raises(UsageError, match="alternative"):
            test([1.0, 2.0], [3.0, 4.0], unknown)
    with pytest.raises(InputError, match="pairs the same samples; got 1 and 2"):
        mcnemar([True], [True, False])
    with pytest.raises(InputError, match="True and False"):
        mcnemar([0.5], [1.0])
    for ps in ([1.1], [-0.1]):
        with pytest.raises(InputError, match="p-values lie"):
            holm(ps)
    with pytest.raises(InputError, match="one confidence"):
        expected_calibration_error([0.5], [True, False])
    with pytest.raises(InputError, match="probabilities in"):
        expected_calibration_error([1.5], [True])
    with pytest.raises(InputError, match="bins is at least 1"):
        expected_calibration_error([0.5], [True], bins=0)
