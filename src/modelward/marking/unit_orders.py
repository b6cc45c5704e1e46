"""Whether a suspect's hidden units stand in the order of the owner's: a p-value over random orders of his own network.

Hidden units are exchangeable when training begins, and training treats them alike, so that every joint order of the units of the owner's network is one that
he could as well have got. A network made without his is alike to any of them by chance (permutation test after Zhu, Ahmed, Kuditipudi, Liang: Independence
Tests for Language Models, ICML 2025, PMLR 267, arXiv 2502.12292; statistic and groups of units are ours). The suspect is read as he was handed over:
one that was matched, sorted or rescaled towards the owner's network would beat random orders whoever made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelward.core.errors import InputError, Undecided, UsageError
from modelward.core.rng import generator, spawn
from modelward.marking.unit_conditions import why_not
from modelward.marking.unit_likeness import UnitLikeness
from modelward.marking.unit_maps import UnitMaps, Weights, paired, unit_maps, weights_of

DRAWS = 10_000
TIE = 1e-6  # likeness within it counts as equal, against the owner: sums of float32 scatter by less


@dataclass(frozen=True)
class OrderTest:
    """What random orders of the owner's units say of a suspect.

    Parameters
    ----------
    p
        (1 + reached) / (draws + 1); ``None``: undecided, for ``reason``.
    likeness
        mean cosine of the units of both, in [-1, 1].
    reached, draws
        number of random orders that are at least as alike, of how many.
    reason
        why the order tells nothing, as a sentence; "" where ``p`` is given.
    """

    p: float | None
    likeness: float = float("nan")
    reached: int = 0
    draws: int = 0
    reason: str = ""


def order_test(
    maps: UnitMaps,
    owner: Weights,
    suspect: Weights,
    *,
    rng: torch.Generator,
    draws: int = DRAWS,
    shared_start: bool = False,
    some: bool = False,
) -> OrderTest:
    """Compare a suspect's weights with those of the owner's network and of ``draws`` copies of it in random orders.

    Parameters
    ----------
    maps, owner
        where the units of the owner's network stand, and its weights by name (`unit_maps`, `weights_of`).
    suspect
        weights by name as handed over; other names are read by position where all shapes agree.
    draws
        number of random orders; the smallest p is 1 / (draws + 1).
    shared_start
        whether others may have the owner's initial weights, which give every unit its place: undecided.
    some
        compare the tensors of equal name and shape where not all agree, instead of saying "undecided".

    Examples
    --------
    >>> def net(seed: int) -> nn.Module:
    ...     _ = torch.manual_seed(seed)
    ...     return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> mine, stranger = net(1), net(2)
    >>> thief = {name: tensor + 0.05 * torch.randn_like(tensor) for name, tensor in mine.state_dict().items()}
    >>> maps, rng = unit_maps(mine), generator(0)
    >>> order_test(maps, weights_of(mine), thief, rng=rng, draws=999).p
    0.001
    >>> order_test(maps, weights_of(mine), weights_of(stranger), rng=rng, draws=999).p > 0.05
    True
    """
    if draws < 1:
        message = f"draws must be at least 1, got {draws}"
        raise UsageError(message)
    first, second = spawn(rng), spawn(rng)
    theirs = paired(owner, suspect, some=some)
    reason = _unfit(maps, owner, theirs, shared_start=shared_start, seed=first)
    if theirs is None or reason:
        return OrderTest(None, reason=reason)
    scored = UnitLikeness(maps, owner, theirs)
    likeness = float(scored.own())
    reached = int((scored.drawn(draws, rng=generator(second)) >= likeness - TIE).sum())
    return OrderTest((1 + reached) / (draws + 1), likeness, reached, draws)


def _unfit(maps: UnitMaps, owner: Weights, theirs: Mapping[str, Tensor] | None, *, shared_start: bool, seed: int) -> str:
    """Return the sentence that says why nothing can be decided, or ""."""
    if theirs is None:
        return "The suspect's layers have other shapes than the owner's: units cannot be compared place by place."
    if shared_start:
        return "Others may have the owner's initial weights, and those give every unit its place: the order of the units tells nothing."
    left = tuple(place for place in maps.tensors if place.name in theirs)
    moving = {index for place in left for index in (place.rows, place.columns) if index is not None}
    units = tuple(size if index in moving else 1 for index, size in enumerate(maps.units))
    shared = UnitMaps(units, left, tuple(place for place in maps.vectors if place.name in theirs and place.rows in moving))
    for whose, weights in (("owner's", owner), ("suspect's", theirs)):
        clause = why_not(shared, weights, rng=generator(seed))
        if clause:
            return f"The order of the {whose} hidden units tells nothing: {clause}."
    return ""


def unit_order(
    owner: nn.Module, suspect: nn.Module | Weights, *, rng: torch.Generator, draws: int = DRAWS, shared_start: bool = False
) -> OrderTest:
    """Return `order_test` of two networks; undecided, with the reason, where the owner's cannot be followed."""
    try:
        maps = unit_maps(owner)
    except InputError as error:
        return OrderTest(None, reason=f"The order of the owner's hidden units tells nothing: {error}.")
    theirs = weights_of(suspect) if isinstance(suspect, nn.Module) else suspect
    return order_test(maps, weights_of(owner), theirs, rng=rng, draws=draws, shared_start=shared_start)


def same_start_p(model: nn.Module, reference: nn.Module | Weights, *, rng: torch.Generator, draws: int = DRAWS) -> float:
    """Return the p that the units of ``model`` stand in the order of a given public network: small when it was begun from it.

    Layers of other shapes, such as a new head, are left out.

    Raises
    ------
    Undecided
        when the order of the units of one of them tells nothing, or they have no layer in common.

    Examples
    --------
    >>> base = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> tuned = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4))
    >>> _ = tuned[0].load_state_dict(base[0].state_dict())
    >>> same_start_p(tuned, base, rng=generator(0), draws=999)
    0.001
    """
    try:
        maps = unit_maps(model)
    except InputError as error:
        raise Undecided(str(error)) from error
    theirs = weights_of(reference) if isinstance(reference, nn.Module) else reference
    found = order_test(maps, weights_of(model), theirs, rng=rng, draws=draws, some=True)
    if found.p is None:
        raise Undecided(found.reason.replace("owner's", "model's").replace("suspect's", "public network's"))
    return found.p
