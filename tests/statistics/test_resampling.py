from __future__ import annotations

import itertools
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from modelward.core.errors import InputError, UsageError
from modelward.statistics import bootstrap, bootstrap_two_sample, permutation_p, rank_p, rank_threshold
from modelward.statistics.rates import Alternative

nulls_of = st.lists(st.one_of(st.floats(-1e6, 1e6), st.integers(0, 3).map(float)), min_size=1, max_size=60)
tails: st.SearchStrategy[Alternative] = st.sampled_from(["less", "greater"])


def mean(x: NDArray[Any]) -> float:
    return float(x.mean())


def difference(x: NDArray[Any], y: NDArray[Any]) -> float:
    return float(x.mean() - y.mean())


def test_bootstrap_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).exponential(2.0, 40)
    got = bootstrap(values, mean, rng=np.random.default_rng(2), resamples=8000)
    rng = np.random.default_rng(3)
    want = stats.bootstrap((values,), np.mean, n_resamples=8000, method="percentile", rng=rng).confidence_interval
    spread = values.std() / math.sqrt(40)
    # a quantile of 8,000 draws moves by about 0.03 standard deviations of the mean
    assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=0.15 * spread)
    assert (got.value, got.n, got.method) == (values.mean(), 40, "bootstrap")


def test_bootstrap_of_two_values_has_the_known_quantiles() -> None:
    # the mean of two draws from {0, 1} is 0, 1/2, 1 with chance 1/4, 1/2, 1/4
    got = bootstrap([0.0, 1.0], mean, rng=np.random.default_rng(0), resamples=4000, level=0.4)
    assert (got.low, got.high) == (0.5, 0.5)
    got = bootstrap([0.0, 1.0], mean, rng=np.random.default_rng(0), resamples=4000, level=0.6)
    assert (got.low, got.high) == (0.0, 1.0)


def test_bootstrap_covers() -> None:
    draws = np.random.default_rng(6).normal(1.0, 1.0, (400, 50))
    found = [bootstrap(row, mean, rng=np.random.default_rng(i), resamples=200) for i, row in enumerate(draws)]
    # the percentile interval of a mean of 50 falls a little short of 95 %; 400 trials have a standard error of 1.1 %
    assert 0.90 <= np.mean([i.low <= 1 <= i.high for i in found]) <= 0.98


def test_bootstrap_depends_on_its_rng_alone_and_keeps_types_and_rows() -> None:
    table = np.arange(12).reshape(6, 2)
    seen: list[NDArray[Any]] = []

    def total(rows: NDArray[Any]) -> float:
        seen.append(rows)
        return float(rows.sum())

    one, two, other = (bootstrap(table, total, rng=np.random.default_rng(seed), resamples=100) for seed in (1, 1, 2))
    assert one == two != other
    assert all(rows.shape == (6, 2) and rows.dtype == table.dtype for rows in seen)
    assert all((rows[:, 1] == rows[:, 0] + 1).all() for rows in seen)


def test_two_sample_bootstrap_agrees_with_scipy_and_never_mixes() -> None:
    rng = np.random.default_rng(8)
    a, b = rng.normal(3, 1, 30), rng.normal(1, 2, 45)
    got = bootstrap_two_sample(a, b, difference, rng=np.random.default_rng(0), resamples=6000)
    want = stats.bootstrap((a, b), difference_along, n_resamples=6000, method="percentile", rng=rng).confidence_interval
    assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=0.06)
    assert got.value == pytest.approx(difference(a, b))
    assert got.n == 75
    split = bootstrap_two_sample([1, 1], [0, 0, 0], difference, rng=np.random.default_rng(0), resamples=50)
    assert (split.low, split.value, split.high) == (1, 1, 1)


def difference_along(x: NDArray[Any], y: NDArray[Any], axis: int) -> Any:
    return x.mean(axis=axis) - y.mean(axis=axis)


def test_an_undefined_statistic_is_told() -> None:
    with pytest.raises(InputError, match=r"NaN on \d+ of 50 resamples"):
        bootstrap([0.0, 1.0, 2.0], lambda x: math.nan if np.ptp(x) == 0 else 1.0, rng=np.random.default_rng(0), resamples=50)


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=4), st.lists(st.integers(-3, 3), min_size=2, max_size=4))
def test_permutation_p_counts_all_arrangements_of_small_samples(a: list[int], b: list[int]) -> None:
    both = np.array(a + b)

    def gap(chosen: tuple[int, ...]) -> int:
        # N M times the difference in means, a whole number
        return int(len(b) * both[list(chosen)].sum() - len(a) * np.delete(both, chosen).sum())

    here = gap(tuple(range(len(a))))
    every = np.array([gap(chosen) for chosen in itertools.combinations(range(len(both)), len(a))])
    above, below = (every >= here).mean(), (every <= here).mean()
    rng = np.random.default_rng(0)
    assert permutation_p(a, b, rng, alternative="greater") == pytest.approx(above)
    assert permutation_p(a, b, rng, alternative="less") == pytest.approx(below)
    assert permutation_p(a, b, rng) == pytest.approx(min(1, 2 * min(above, below)))


def test_drawn_permutations_count_the_observed_one_and_follow_the_rng() -> None:
    a, b = np.arange(20) + 100.0, np.arange(20) + 0.0
    assert permutation_p(a, b, np.random.default_rng(0), resamples=99, alternative="greater") == pytest.approx(1 / 100)
    x = np.random.default_rng(1).normal(0.3, 1, 30)
    first, again = (permutation_p(x, b[:30] / 10 - 1, np.random.default_rng(5), resamples=200) for _ in range(2))
    assert first == again
    near = permutation_p(x, -x + 0.4, np.random.default_rng(5), resamples=4000)
    assert near == pytest.approx(stats.ttest_ind(x, -x + 0.4).pvalue, abs=0.03)


def test_rank_p_by_hand() -> None:
    assert rank_p(0.0, np.linspace(0.1, 1, 19)) == 1 / 20
    assert rank_p(0.2, [0.1, 0.2, 0.3]) == 3 / 4
    assert rank_p(0.2, [0.1, 0.2, 0.3], "greater") == 3 / 4
    assert rank_p(-math.inf, [1.0] * 20) == pytest.approx(0.048, abs=5e-4)


@given(nulls_of, st.floats(0.001, 0.999), tails)
def test_threshold_and_p_value_say_the_same(nulls: list[float], alpha: float, tail: Alternative) -> None:
    limit = rank_threshold(nulls, alpha, tail)
    sign = 1 if tail == "less" else -1
    around = {v for null in nulls for v in (null, np.nextafter(null, -np.inf), np.nextafter(null, np.inf))} | {-math.inf, math.inf}
    for value in around:
        accused = rank_p(value, nulls, tail) <= alpha
        assert accused == (limit is not None and sign * value <= sign * limit)


@given(st.integers(1, 150), st.sampled_from([0.01, 0.02, 0.05, 0.1, 0.2]))
def test_the_fewest_nulls_for_a_decision(n: int, alpha: float) -> None:
    assert (rank_threshold(range(n), alpha) is None) == (n < round(1 / alpha) - 1)


def test_rank_p_of_exchangeable_statistics_is_valid() -> None:
    draws = np.random.default_rng(9).normal(size=(4000, 20))
    ps = np.array([rank_p(row[0], row[1:]) for row in draws])
    for alpha in (0.05, 0.1, 0.25):
        assert np.mean(ps <= alpha) == pytest.approx(alpha, abs=3 * math.sqrt(alpha * (1 - alpha) / 4000))


def test_bad_input_is_refused() -> None:
    rng = np.random.default_rng(0)
    for empty in (np.zeros(0), np.array(3.0)):
        with pytest.raises(InputError, match="at least 1 observation"):
            bootstrap(empty, mean, rng=rng)
    for bad in (np.array([1.0, math.nan]), np.array(["a"])):
        with pytest.raises(InputError, match="finite numbers"):
            bootstrap_two_sample([1.0], bad, difference, rng=rng)
    with pytest.raises(InputError, match="resamples is at least 1"):
        bootstrap([1.0], mean, rng=rng, resamples=0)
    with pytest.raises(UsageError, match="level"):
        bootstrap([1.0], mean, rng=rng, level=1.0)
    with pytest.raises(InputError, match="at least 2 values"):
        permutation_p([1.0], [1.0, 2.0], rng)
    with pytest.raises(UsageError, match="alternative"):
        permutation_p([1.0, 2.0], [1.0, 2.0], rng, alternative="more")  # type: ignore[arg-type]
    for wrong in ([], [math.nan], [math.inf]):
        with pytest.raises(InputError, match="null models"):
            rank_p(0.0, wrong)
        with pytest.raises(InputError, match="null models"):
            rank_threshold(wrong, 0.05)
    with pytest.raises(InputError, match="the statistic holds NaN"):
        rank_p(math.nan, [1.0])
    with pytest.raises(UsageError, match="less or greater"):
        rank_p(0.0, [1.0], "two-sided")
    with pytest.raises(UsageError, match="alpha"):
        rank_threshold([1.0], 1.0)


def test_import_loads_neither_torch_nor_scipy() -> None:
    code = "import sys, modelward.statistics; print(sorted({'torch', 'scipy', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
