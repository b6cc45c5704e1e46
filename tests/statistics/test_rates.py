from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from modelward.core.errors import InputError, UsageError
from modelward.statistics import Interval, best_of_q, binomial_p, clopper_pearson, required_matches, upper_bound, wilson
from modelward.statistics.rates import Alternative

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99, 0.999])


def mass(k: int, n: int, p: Fraction) -> Fraction:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


@given(counts, levels)
def test_wilson_agrees_with_scipy(count: tuple[int, int], level: float) -> None:
    got = wilson(*count, level)
    want = stats.binomtest(*count).proportion_ci(level, method="wilson")
    assert (got.value, got.n, got.method) == (count[0] / count[1], count[1], "wilson")
    assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=1e-12)
    assert 0 <= got.low <= got.value <= got.high <= 1


@given(counts, levels)
def test_clopper_pearson_agrees_with_scipy(count: tuple[int, int], level: float) -> None:
    got = clopper_pearson(*count, level)
    want = stats.binomtest(*count).proportion_ci(level, method="exact")
    assert (got.low, got.high) == pytest.approx((want.low, want.high), rel=1e-9, abs=1e-12)
    assert got.low <= got.value <= got.high


@given(counts, levels)
def test_mirrored_counts_give_mirrored_intervals(count: tuple[int, int], level: float) -> None:
    k, n = count
    for interval in (wilson, clopper_pearson):
        one, other = interval(k, n, level), interval(n - k, n, level)
        assert (one.low, one.high) == pytest.approx((1 - other.high, 1 - other.low), abs=1e-12)


def test_wilson_by_hand() -> None:
    # k = 0: the interval is [0, z^2 / (n + z^2)]
    z2 = 1.959963984540054**2
    assert wilson(0, 8).low == 0.0
    assert wilson(0, 8).high == pytest.approx(z2 / (8 + z2))
    assert wilson(8, 8).low == pytest.approx(8 / (8 + z2))
    assert wilson(8, 8).high == 1.0


def coverage(n: int, p: float, interval: dict[int, Interval]) -> float:
    return float(sum(stats.binom.pmf(k, n, p) for k in range(n + 1) if interval[k].low <= p <= interval[k].high))


def test_wilson_covers_in_simulation() -> None:
    drawn = np.random.default_rng(5).binomial(120, 0.4, 20_000)
    known = {k: wilson(int(k), 120) for k in np.unique(drawn)}
    covered = np.mean([known[k].low <= 0.4 <= known[k].high for k in drawn])
    assert 0.94 <= covered <= 0.96


@pytest.mark.parametrize("n", [20, 50, 200])
def test_exact_coverage_of_wilson_averages_to_its_level(n: int) -> None:
    known = {k: wilson(k, n) for k in range(n + 1)}
    assert 0.94 <= np.mean([coverage(n, p, known) for p in np.linspace(0.2, 0.8, 61)]) <= 0.96


@pytest.mark.parametrize("n", [5, 20, 50])
def test_clopper_pearson_never_covers_less_than_its_level(n: int) -> None:
    known = {k: clopper_pearson(k, n) for k in range(n + 1)}
    assert min(coverage(n, p, known) for p in np.linspace(0.003, 0.997, 143)) >= 0.95


def test_one_sided_bound_of_no_false_claims() -> None:
    # the rule behind "0/30 -> at most 9.5 %, 0/8 -> at most 31 %"
    assert upper_bound(0, 30) == pytest.approx(1 - 0.05 ** (1 / 30))
    assert (round(upper_bound(0, 30), 3), round(upper_bound(0, 8), 3)) == (0.095, 0.312)
    assert (round(clopper_pearson(0, 30).high, 3), round(clopper_pearson(0, 8).high, 3)) == (0.116, 0.369)
    assert upper_bound(8, 8) == 1.0


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))), levels)
def test_the_bound_leaves_exactly_its_tail(count: tuple[int, int], level: float) -> None:
    k, n = count
    bound = Fraction(upper_bound(k, n, level))
    assert float(sum(mass(i, n, bound) for i in range(k + 1))) == pytest.approx(1 - level, rel=1e-6)


@given(st.integers(1, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.integers(0, 20))
def test_binomial_p_is_the_exact_tail(count: tuple[int, int], twentieths: int) -> None:
    k, n = count
    p0 = Fraction(twentieths, 20)
    masses = [mass(i, n, p0) for i in range(n + 1)]
    assert binomial_p(k, n, float(p0)) == pytest.approx(float(sum(masses[k:])), rel=1e-9, abs=1e-300)
    assert binomial_p(k, n, float(p0), "less") == pytest.approx(float(sum(masses[: k + 1])), rel=1e-9, abs=1e-300)
    both = sum(m for m in masses if m <= masses[k])
    assert binomial_p(k, n, float(p0), "two-sided") == pytest.approx(float(both), rel=1e-9, abs=1e-300)


REQUIRED = [
    (20, "0.1", 8, 11), (20, "0.2", 11, 15), (20, "0.5", 18, 20), (50, "0.1", 14, 18), (50, "0.2", 20, 26), (50, "0.5", 37, 42),
    (100, "0.1", 21, 28), (100, "0.2", 34, 42), (100, "0.5", 66, 74), (200, "0.1", 35, 44), (200, "0.2", 59, 70), (200, "0.5", 123, 134),
    (32, "0.5", 26, 30), (64, "0.5", 45, 51), (128, "0.5", 82, 92), (256, "0.5", 154, 167),
]  # fmt: skip


@pytest.mark.parametrize(("n", "p0", "thousandth", "millionth"), REQUIRED)
def test_required_matches_of_the_table(n: int, p0: str, thousandth: int, millionth: int) -> None:
    chance = Fraction(p0)
    for p, matches in ((Fraction(1, 10**3), thousandth), (Fraction(1, 10**6), millionth)):
        tail = sum(mass(k, n, chance) for k in range(matches, n + 1))
        assert tail <= p < tail + mass(matches - 1, n, chance)
        assert required_matches(n, float(chance), float(p)) == matches


@given(st.integers(1, 80), st.floats(0.01, 0.99), st.floats(1e-8, 0.5))
def test_required_matches_are_the_fewest(n: int, p0: float, p: float) -> None:
    found = required_matches(n, p0, p)
    if found is None:
        assert p0**n > p * (1 - 1e-9)
        return
    assert binomial_p(found, n, p0) <= p * (1 + 1e-9)
    assert binomial_p(found - 1, n, p0) > p * (1 - 1e-9)


def test_best_of_q() -> None:
    assert best_of_q(0.1, 1) == pytest.approx(0.1)
    assert best_of_q(0.5, 3) == pytest.approx(7 / 8)
    assert best_of_q(1e-18, 10) == pytest.approx(1e-17)
    assert (best_of_q(0.0, 5), best_of_q(1.0, 5)) == (0.0, 1.0)


def test_nothing_measured_is_nan() -> None:
    for interval in (wilson(0, 0), clopper_pearson(0, 0)):
        assert interval.n == 0
        assert all(math.isnan(v) for v in (interval.value, interval.low, interval.high))
    assert math.isnan(upper_bound(0, 0))
    assert [binomial_p(0, 0, 0.3, kind) for kind in get_args(Alternative)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("call", [wilson, clopper_pearson, upper_bound, lambda k, n: binomial_p(k, n, 0.5)])
def test_impossible_counts_are_refused(call: object) -> None:
    assert callable(call)
    for k, n, words in (
        (3, 2, "cannot come from"),
        (-1, 2, "at least 0"),
        (0, -1, "at least 0"),
        (0.5, 2, "whole number"),
        (1, 2.0, "whole"),
    ):
        with pytest.raises(InputError, match=words):
            call(k, n)


def test_wrong_arguments_are_refused() -> None:
    for level in (0.0, 1.0, 95, math.nan):
        for interval in (wilson, clopper_pearson, upper_bound):
            with pytest.raises(UsageError, match="level lies between"):
                interval(1, 2, level)
        with pytest.raises(UsageError, match="p lies between"):
            required_matches(5, 0.5, level)
    with pytest.raises(UsageError, match="alternative is less or"):
        binomial_p(1, 2, 0.5, "more")  # type: ignore[arg-type]
    for p0 in (-0.1, 1.1, math.nan):
        for call in (lambda p: binomial_p(1, 2, p), lambda p: required_matches(5, p, 0.1), lambda p: best_of_q(p, 3)):
            with pytest.raises(InputError, match=r"probability in \[0, 1\]"):
                call(p0)
    with pytest.raises(InputError, match="at least 1"):
        best_of_q(0.5, 0)
    with pytest.raises(InputError, match="at least 1"):
        required_matches(0, 0.5, 0.1)


def test_numpy_integers_count() -> None:
    hits: Any = np.int64(3)
    trials: Any = np.int32(4)
    assert wilson(hits, trials) == wilson(3, 4)
    assert type(wilson(hits, trials).n) is int
