"""Likeness beyond what all candidates share: alike for every candidate, and finite for every suspect."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelward.core.rng import generator
from modelward.ownership.correlation import view_of
from modelward.ownership.likeness import agreement, deviation, disputed, shares_of, structure

sizes = st.tuples(st.integers(2, 12), st.integers(2, 30), st.integers(2, 6), st.integers(0, 2**31))
KINDS = ("plain", "scaled down", "scaled up", "over-confident", "constant", "zero", "rounded", "a candidate", "the mean")


def drawn(sizes: tuple[int, int, int, int]) -> Tensor:
    """Return logits (m + 1, n, K) that share a part, as models of one task do."""
    m, n, k, seed = sizes
    rng = generator(seed)
    return 3 * torch.randn(n, k, generator=rng, dtype=torch.float64) + torch.randn(m, n, k, generator=rng, dtype=torch.float64)


def suspect_of(kind: str, candidates: Tensor, seed: int) -> Tensor:
    """Return the logits of a suspect of one kind."""
    shape = candidates.shape[1:]
    plain = candidates.mean(0) + torch.randn(shape, generator=generator(seed + 1), dtype=torch.float64)
    made: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: plain, "scaled down": lambda: 1e-6 * plain, "scaled up": lambda: 1e3 * plain,
        "over-confident": lambda: 1e4 * plain, "constant": lambda: torch.tensor([5.0, *[0.0] * (shape[1] - 1)]).double().expand(shape).clone(),
        "zero": lambda: torch.zeros(shape, dtype=torch.float64), "rounded": lambda: plain.softmax(1).mul(10).round().div(10).clamp_min(1e-9).log(),
        "a candidate": candidates[0].clone, "the mean": lambda: candidates.mean(0),
    }  # fmt: skip
    return made[kind]()


def three(suspect: Tensor, candidates: Tensor) -> dict[str, Tensor]:
    """Return the distances by each of the three measures, as `sac` uses them."""
    mine = view_of(suspect, "temp", are_logits=True)
    theirs = torch.stack([view_of(logits, "temp", are_logits=True) for logits in candidates])
    return {
        "deviation": deviation(mine, theirs), "agreement": agreement(suspect.argmax(1), candidates.argmax(2)), "structure": structure(mine, list(theirs)),
    }  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(sizes, st.sampled_from(KINDS), st.data())
def test_an_order_of_candidates_orders_their_distances_bit_for_bit(
    sizes: tuple[int, int, int, int], kind: str, data: st.DataObject
) -> None:
    candidates = drawn(sizes)
    order = torch.tensor(data.draw(st.permutations(range(len(candidates)))))
    suspect = suspect_of(kind, candidates, sizes[3])
    before, after = three(suspect, candidates), three(suspect, candidates[order])
    for name, values in before.items():
        assert torch.equal(values[order], after[name]), name


@settings(deadline=None, max_examples=80)
@given(sizes, st.sampled_from(KINDS))
def test_every_suspect_has_a_finite_distance_to_every_candidate(sizes: tuple[int, int, int, int], kind: str) -> None:
    candidates = drawn(sizes)
    for name, values in three(suspect_of(kind, candidates, sizes[3]), candidates).items():
        assert values.shape == (len(candidates),)
        assert values.dtype == torch.float64
        assert bool(torch.isfinite(values).all()), name
        assert float(values.min()) >= -1e-9, name
        assert float(values.max()) <= 2 + 1e-9, name


@settings(deadline=None, max_examples=40)
@given(sizes)
def test_a_copy_is_nearest_to_its_source(sizes: tuple[int, int, int, int]) -> None:
    candidates = drawn(sizes)
    for name, values in three(candidates[1].clone(), candidates).items():
        assert float(values[1]) <= float(values.min()) + (1e-6 if name == "structure" else 0), name


@settings(deadline=None, max_examples=40)
@given(sizes)
def test_a_suspect_that_does_not_deviate_ties_with_all(sizes: tuple[int, int, int, int]) -> None:
    candidates = drawn(sizes)
    assert deviation(candidates.sort(0).values.mean(0), candidates).tolist() == [1.0] * len(candidates)
    strange = torch.full((candidates.shape[1],), candidates.shape[2] + 3)
    assert agreement(strange, candidates.argmax(2)).tolist() == [1.0] * len(candidates)
    same = candidates[:1].expand_as(candidates)
    for values in three(candidates[0] + 1, same).values():
        assert len(set(values.tolist())) == 1


@settings(deadline=None, max_examples=40)
@given(sizes, st.floats(1e-3, 1e3))
def test_the_length_of_a_deviation_says_nothing(sizes: tuple[int, int, int, int], factor: float) -> None:
    candidates = drawn(sizes)
    away = torch.randn(candidates.shape[1:], generator=generator(sizes[3] + 1), dtype=torch.float64)
    mean = candidates.mean(0)
    assert torch.allclose(deviation(mean + away, candidates), deviation(mean + factor * away, candidates), atol=1e-7)


@settings(deadline=None, max_examples=40)
@given(sizes, st.data())
def test_structure_is_blind_to_names_of_classes_and_takes_other_numbers_of_them(
    sizes: tuple[int, int, int, int], data: st.DataObject
) -> None:
    candidates = drawn(sizes)
    renamed = candidates[0][:, torch.tensor(data.draw(st.permutations(range(candidates.shape[2]))))]
    assert torch.allclose(structure(renamed, list(candidates)), structure(candidates[0], list(candidates)), atol=1e-9)
    wider = torch.randn(candidates.shape[1], candidates.shape[2] + 2, generator=generator(sizes[3]))
    assert bool(torch.isfinite(structure(wider, list(candidates))).all())


def test_disagreement_by_hand() -> None:
    labels = torch.tensor([[0, 0, 2], [0, 1, 1], [0, 0, 0], [0, 1, 0]])
    assert disputed(labels).tolist() == pytest.approx([0, math.log(2), 1.5 * math.log(2)])
    assert shares_of(labels, 4).tolist() == [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.5, 0.25, 0.25, 0]]


def test_rare_answers_count_more() -> None:
    candidates = torch.tensor([[1, 0], [0, 1], [0, 1], [0, 1]])  # who shares the answer of few has more in common
    rare, common = agreement(torch.tensor([1, 5]), candidates), agreement(torch.tensor([5, 1]), candidates)
    assert rare.tolist() == [0, 1, 1, 1]
    assert common.tolist() == [1, 0, 0, 0]
    both = agreement(torch.tensor([1, 1]), candidates)
    assert both.tolist()[0] == pytest.approx(math.log(4 / 3) / (math.log(4) + math.log(4 / 3)))
