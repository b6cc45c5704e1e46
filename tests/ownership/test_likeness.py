"""Likeness beyond what all candidates share: alike for every candidate, and finite for every suspect."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from modelward.core.rng import generator
from modelward.ownership.correlation import view_of
from modelward.ownership.likeness import disputed, shared_part, shared_structure, shares_of

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


def both(suspect: Tensor, candidates: Tensor) -> dict[str, Tensor]:
    """Return the coefficients by each of the measures and views, as `sac` uses them."""
    mine = view_of(suspect, "temp", are_logits=True)
    theirs = torch.stack([view_of(logits, "temp", are_logits=True) for logits in candidates])
    classes = candidates.shape[2]
    labels, every = F.one_hot(suspect.argmax(1), classes).double(), F.one_hot(candidates.argmax(2), classes).double()
    return {
        "part": shared_part(mine, theirs), "structure": shared_structure(mine, list(theirs)),
        "part of labels": shared_part(labels, every), "structure of labels": shared_structure(labels, list(every)),
    }  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(sizes, st.sampled_from(KINDS), st.data())
def test_an_order_of_candidates_orders_their_coefficients(sizes: tuple[int, int, int, int], kind: str, data: st.DataObject) -> None:
    candidates = drawn(sizes)
    order = torch.tensor(data.draw(st.permutations(range(len(candidates)))))
    suspect = suspect_of(kind, candidates, sizes[3])
    before, after = both(suspect, candidates), both(suspect, candidates[order])
    for name, values in before.items():  # the key keeps candidates in one order, so that not even rounding tells who is who
        assert torch.allclose(values[order], after[name], atol=1e-6), name


@settings(deadline=None, max_examples=80)
@given(sizes, st.sampled_from(KINDS))
def test_every_suspect_has_a_finite_coefficient_for_every_candidate(sizes: tuple[int, int, int, int], kind: str) -> None:
    candidates = drawn(sizes)
    for name, values in both(suspect_of(kind, candidates, sizes[3]), candidates).items():
        assert values.shape == (len(candidates),)
        assert values.dtype == torch.float64
        assert bool(torch.isfinite(values).all()), name


@settings(deadline=None, max_examples=40)
@given(st.integers(5, 12), st.integers(40, 80), st.integers(3, 6), st.integers(0, 2**31))
def test_a_copy_is_accounted_for_by_its_source(m: int, n: int, k: int, seed: int) -> None:
    candidates = drawn((m, n, k, seed))
    found = both(candidates[1].clone(), candidates)
    for name in ("part", "part of labels"):
        assert float(found[name][1]) >= float(found[name].max()) - 1e-6, name


def test_candidates_that_are_all_equal_tie() -> None:
    candidates = drawn((5, 20, 4, 0))
    same = candidates[:1].expand_as(candidates)
    for values in both(candidates[0] + candidates[1], same).values():
        assert values.tolist() == [0.0] * 5
    assert shared_part(candidates.mean(0), candidates).abs().max() < 1e-9


@settings(deadline=None, max_examples=40)
@given(sizes, st.data())
def test_structure_is_blind_to_names_of_classes_and_takes_other_numbers_of_them(
    sizes: tuple[int, int, int, int], data: st.DataObject
) -> None:
    candidates = drawn(sizes)
    renamed = candidates[0][:, torch.tensor(data.draw(st.permutations(range(candidates.shape[2]))))]
    assert torch.allclose(shared_structure(renamed, list(candidates)), shared_structure(candidates[0], list(candidates)), atol=1e-6)
    wider = torch.randn(candidates.shape[1], candidates.shape[2] + 2, generator=generator(sizes[3]))
    assert bool(torch.isfinite(shared_structure(wider, list(candidates))).all())


def test_disagreement_by_hand() -> None:
    labels = torch.tensor([[0, 0, 2], [0, 1, 1], [0, 0, 0], [0, 1, 0]])
    assert disputed(labels).tolist() == pytest.approx([0, math.log(2), 1.5 * math.log(2)])
    assert shares_of(labels, 4).tolist() == [[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.5, 0.25, 0.25, 0]]
