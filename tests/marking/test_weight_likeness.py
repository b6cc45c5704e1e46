"""Candidates ranked by their weights: thieves of the owner's come first, strangers anywhere, and no candidate has a place of its own."""

from __future__ import annotations

import copy

import pytest
import torch
from crowds import Crowd, begun, nets, repeated, trained
from scipy.stats import binomtest
from torch import Tensor, nn

from modelward.core.errors import InputError, Undecided
from modelward.core.rng import generator
from modelward.marking.unit_maps import in_order, unit_maps, weights_of
from modelward.marking.unit_orders import unit_order
from modelward.marking.weight_likeness import matched_likeness, weight_likeness
from modelward.models import build

LEVEL = 0.001  # of every binomial check below, fixed before it was run
TRIALS, CANDIDATES = 40, 20


def rank(likeness: Tensor, role: int = 0) -> float:
    """Return the p of the candidate in the owner's role."""
    return int((likeness >= likeness[role]).sum()) / len(likeness)


def by_trial(crowd: Crowd) -> list[list[nn.Sequential]]:
    """Return the nets, as many a trial as candidates and one suspect."""
    made = nets(crowd)
    return [made[start : start + CANDIDATES + 1] for start in range(0, len(made), CANDIDATES + 1)]


def check_uniform(p: list[float]) -> None:
    """Check that the smallest p, 1 / 20, comes no more often than it should, nor do p up to .2."""
    for bound in (0.05, 0.2):
        assert binomtest(sum(value <= bound for value in p), len(p), bound, alternative="greater").pvalue > LEVEL


def test_forty_strangers_of_one_start_are_not_accused_by_distance() -> None:
    starts = trained(begun(TRIALS, 12, seed=1), seed=2, steps=60)
    crowd = trained(repeated(starts, CANDIDATES + 1), seed=3, steps=60, lr=0.05)
    check_uniform([rank(weight_likeness(weights_of(found[-1]), [weights_of(net) for net in found[:-1]])) for found in by_trial(crowd)])


def test_forty_independent_strangers_are_not_accused_after_matching() -> None:
    crowd = trained(begun(TRIALS * (CANDIDATES + 1), 6, seed=4), seed=5, steps=60)
    check_uniform([rank(matched_likeness(weights_of(found[-1]), found[:-1])) for found in by_trial(crowd)])


def test_thieves_from_one_base_are_nearest_to_the_owner() -> None:
    start = trained(begun(1, 16, seed=6), seed=7)
    crowd = trained(repeated(start, CANDIDATES), seed=8, steps=150, lr=0.05)
    candidates = [weights_of(net) for net in nets(crowd)]
    tuned = nets(trained([tensor[:1] for tensor in crowd], seed=9, steps=30, lr=0.01))[0]
    rng, owner = generator(10), candidates[0]
    spread = (
        torch.stack([candidate["2.weight"] for candidate in candidates]).std(0).mean()
    )  # what tells siblings apart is small: louder noise drowns it
    thieves = {
        "tuned": weights_of(tuned),
        "noise": {name: tensor + 0.5 * spread * torch.randn(tensor.shape, generator=rng) for name, tensor in owner.items()},
        "prune": {name: torch.where(tensor.abs() < spread, 0, tensor) for name, tensor in owner.items()},
        "quantise": {name: (tensor / tensor.abs().max() * 127).round() * tensor.abs().max() / 127 for name, tensor in owner.items()},
    }
    for name, thief in thieves.items():
        assert rank(weight_likeness(thief, candidates)) == 1 / CANDIDATES, name


def test_matching_finds_permuted_thieves_that_distance_and_order_miss() -> None:
    crowd = trained(begun(CANDIDATES, 16, seed=11), seed=12)
    tuned = trained([tensor[:3] for tensor in crowd], seed=13, steps=200, lr=0.05)
    candidates = nets(crowd)
    for index, thief in enumerate(nets(tuned)):
        hidden = in_order(thief, [order[0] for order in unit_maps(thief).draw(1, rng=generator(index))])
        p = rank(matched_likeness(weights_of(hidden), candidates), index)
        order = unit_order(candidates[index], hidden, rng=generator(index), draws=999).p
        assert (p, order is not None and order > 0.01) == (1 / CANDIDATES, True)


def test_rescaled_thieves_are_found_after_matching() -> None:
    candidates = [build("mlp:width=16", classes=5, size=(8, 8), rng=generator(seed)) for seed in range(6)]
    thief = copy.deepcopy(candidates[3])
    thief.body[1].weight.data[::2] *= 4
    thief.body[1].bias.data[::2] *= 4
    thief.body[3].weight.data[:, ::2] /= 4
    hidden = in_order(thief, [order[0] for order in unit_maps(thief).draw(1, rng=generator(0))])
    likeness = matched_likeness(weights_of(hidden), candidates)
    assert int(likeness.argmax()) == 3
    assert float(likeness[3]) > 0.99


@pytest.mark.parametrize("match", [False, True])
def test_every_candidate_is_treated_alike_in_any_order(match: bool) -> None:
    made = nets(trained(begun(8, 8, seed=14), seed=15, steps=60))
    suspect, candidates = weights_of(made[-1]), made[:-1]

    def of(some: list[nn.Sequential]) -> Tensor:
        return matched_likeness(suspect, some) if match else weight_likeness(suspect, [weights_of(net) for net in some])

    likeness = of(candidates)
    assert sorted(rank(likeness, role) for role in range(7)) == [count / 7 for count in range(1, 8)]
    for seed in range(3):
        order = torch.randperm(7, generator=generator(seed))
        assert torch.equal(of([candidates[index] for index in order]), likeness[order])


def test_what_cannot_be_ranked_says_why() -> None:
    made = [weights_of(net) for net in nets(begun(3, 8, seed=16))]
    other = weights_of(nets(begun(1, 12, seed=0))[0])
    with pytest.raises(Undecided, match="other shapes"):
        weight_likeness(other, made)
    with pytest.raises(Undecided, match="other shapes"):
        matched_likeness(other, nets(begun(3, 8, seed=16)))
    with pytest.raises(InputError, match="different shapes"):
        weight_likeness(made[0], [*made, other])
    for few in ([], made[:1]):
        with pytest.raises(InputError, match="at least two candidates"):
            weight_likeness(made[0], few)
    with pytest.raises(InputError, match="at least two candidates"):
        matched_likeness(made[0], [])
    broken = {name: tensor * float("nan") for name, tensor in made[0].items()}
    with pytest.raises(Undecided, match="no numbers"):
        weight_likeness(broken, made)
    equal = [made[0]] * 3
    assert weight_likeness(made[1], equal).tolist() == [0.0] * 3
