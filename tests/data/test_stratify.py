from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.data.stratify import split_off, stratified_order

label_lists = st.lists(st.integers(0, 5), min_size=1, max_size=120)


@given(label_lists, st.integers(0, 2**32))
def test_order_is_a_permutation_and_prefixes_keep_class_shares(values: list[int], seed: int) -> None:
    labels = np.array(values, dtype=np.int64)
    order = stratified_order(labels, rng=np.random.default_rng(seed))
    assert sorted(order) == list(range(len(labels)))
    counts = np.bincount(labels, minlength=6)
    present = int((counts > 0).sum())
    for cut in range(len(labels) + 1):
        got = np.bincount(labels[order[:cut]], minlength=6)
        share = counts * cut / len(labels)
        # each class deviates by less than one from t n_k, and t itself by less than present / N from cut / N
        assert (np.abs(got - share) <= 1 + counts * present / len(labels)).all()


@given(st.integers(2, 6), st.integers(1, 20), st.integers(0, 2**32))
def test_halves_of_balanced_even_classes_are_exactly_balanced(classes: int, pairs: int, seed: int) -> None:
    labels = np.repeat(np.arange(classes), 2 * pairs)
    order = stratified_order(labels, rng=np.random.default_rng(seed))
    assert (np.bincount(labels[order[: classes * pairs]]) == pairs).all()


def test_order_depends_on_the_seed_alone() -> None:
    labels = np.arange(60) % 3
    first, again, other = (stratified_order(labels, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_every_sample_is_equally_likely_to_be_first_in_its_class() -> None:
    labels = np.repeat([0, 1], [4, 8])
    firsts = np.zeros(12)
    for seed in range(3000):
        order = stratified_order(labels, rng=np.random.default_rng(seed))
        firsts[order[0]] += 1
    # P(class 0 first) = P(u0 / 4 < u1 / 8) = P(u0 < u1 / 2) = 1/4, shared by 4; class 1 has 3/4, shared by 8
    expected = np.repeat([3000 / 16, 3000 * 3 / 32], [4, 8])
    statistic = ((firsts - expected) ** 2 / expected).sum()
    assert statistic < 31.26  # chi-square, 11 degrees of freedom, p = 0.001


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6)), min_size=1, max_size=80), st.integers(0, 2**32))
def test_split_is_a_partition_and_tears_only_what_it_names(samples: list[tuple[int, int]], seed: int) -> None:
    labels = np.array([label for label, _ in samples], dtype=np.int64)
    groups = [str(group) for _, group in samples]
    train, test, torn = split_off(labels, groups, rng=np.random.default_rng(seed))
    assert sorted([*train, *test]) == list(range(len(samples)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()
    sides = [{(int(labels[i]), groups[i]) for i in side} for side in (train, test)]
    assert {label for label, _ in sides[0] & sides[1]} <= set(torn.tolist())
    for label in np.unique(labels):
        total = int((labels == label).sum())
        if total > 1:
            assert 0 < int((labels[test] == label).sum()) < total
        else:
            assert label not in labels[test]


@given(st.integers(2, 60), st.integers(2, 60), st.integers(0, 2**32))
def test_split_without_groups_takes_a_fifth_of_each_class(first: int, second: int, seed: int) -> None:
    labels = np.repeat([0, 1], [first, second])
    _, test, torn = split_off(labels, [str(i) for i in range(len(labels))], rng=np.random.default_rng(seed))
    assert np.bincount(labels[test], minlength=2).tolist() == [max(1, round(0.2 * first)), max(1, round(0.2 * second))]
    assert not len(torn)


@pytest.mark.parametrize("sizes", [(90, 10), (10, 90), (50, 50)])
def test_two_unequal_groups_stay_whole(sizes: tuple[int, int]) -> None:
    groups = ["a"] * sizes[0] + ["b"] * sizes[1]
    labels = np.zeros(100, dtype=np.int64)
    train, test, torn = split_off(labels, groups, rng=np.random.default_rng(0))
    assert {groups[i] for i in train} != {groups[i] for i in test}
    assert len(test) == min(sizes)
    assert not len(torn)
