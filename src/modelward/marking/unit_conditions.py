"""What takes the meaning from the order of hidden units: units sorted by size, and initial weights that give every unit a place of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from modelward.marking.unit_likeness import UnitLikeness
from modelward.marking.unit_maps import UnitMaps

LEAST_ORDERS = 10_000
SORTED = 0.001
PATTERN_DRAWS = 1_999


def why_not(maps: UnitMaps, weights: Mapping[str, Tensor], *, rng: torch.Generator) -> str:
    """Return why the order of the hidden units of a network tells nothing, as a clause; "" where it can tell.

    Parameters
    ----------
    maps, weights
        where the units stand, and the weights by name.
    rng
        draws the orders with which a diagonal is compared.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> from modelward.marking.unit_maps import unit_maps, weights_of
    >>> net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> why_not(unit_maps(net), weights_of(net), rng=generator(0))
    ''
    >>> _ = net[0].weight.data.copy_(net[0].weight[net[0].weight.norm(dim=1).argsort()])
    >>> why_not(unit_maps(net), weights_of(net), rng=generator(0))
    'its units are sorted by size (Kendall, p = 0.0001)'
    """
    if not all(bool(torch.isfinite(weights[place.name]).all()) for place in maps.tensors):
        return "some of its weights are no numbers"
    if maps.log_orders() < math.log(LEAST_ORDERS):
        return f"its hidden units have fewer than {LEAST_ORDERS:,} orders"
    p = sorted_p(maps, weights)
    if p < SORTED:
        return f"its units are sorted by size (Kendall, p = {p:.1g})"
    p = diagonal_p(maps, weights, rng=rng)
    if p < SORTED:
        return f"its initial weights told the units apart: they lie on a diagonal as with dirac_ and eye_ (p = {p:.1g})"
    return ""


def sorted_p(maps: UnitMaps, weights: Mapping[str, Tensor]) -> float:
    """Return the smallest p of Kendall's tau between the index of a unit and its size, over the groups and for all groups at once.

    Size is the length of the weights that a unit reads, that of the weights that read it, its bias, and its factor in normalisations; the p of each
    group, and of all groups together, is the smallest one times the number of those that differ between units.
    """
    kinds = [found for found in (_taus(sizes) for sizes in _sizes(maps, weights)) if found]
    return min(1.0, len(kinds) * min(min(found) for found in kinds)) if kinds else 1.0


def _taus(sizes: Sequence[Tensor]) -> list[float]:
    """Return the p of Kendall's tau of every group whose units differ, and that of all groups together; nothing where no group's do."""
    from scipy.stats import kendalltau, norm

    found, total, variance = [], 0.0, 0.0
    for size in sizes:
        n = len(size)
        if n > 1 and bool((size != size[0]).any()):
            tau = kendalltau(range(n), size.numpy())
            found.append(float(tau.pvalue))
            total += float(tau.statistic) * n * (n - 1) / 2
            variance += n * (n - 1) * (2 * n + 5) / 18
    return [*found, 2 * float(norm.sf(abs(total) / math.sqrt(variance)))] if found else []


def _sizes(maps: UnitMaps, weights: Mapping[str, Tensor]) -> list[list[Tensor]]:
    """Return four measures of the units, each a list of (C,) float64 tensors, one a group."""
    reads, read, biases, factors = ([torch.zeros(size, dtype=torch.float64) for size in maps.units] for _ in range(4))
    for place in maps.tensors:
        squares = place.blocks(weights[place.name].double() ** 2, maps.units)
        if place.rows is not None:
            reads[place.rows] += squares.sum((1, 2))
        if place.columns is not None:
            read[place.columns] += squares.sum((0, 2))
    for place in maps.vectors:
        if place.rows is not None and place.name in weights:
            (biases if place.name.endswith("bias") else factors)[place.rows] += weights[place.name].double()
    return [reads, read, biases, factors]


def diagonal_p(maps: UnitMaps, weights: Mapping[str, Tensor], *, rng: torch.Generator) -> float:
    """Return the p that the weights lie as much as they do on the diagonals that ``dirac_`` and ``eye_`` fill, over random orders of the units.

    Orders that leave a residual stream's diagonal in place change nothing there, and nothing there counts.
    """
    pattern: dict[str, Tensor] = {}
    for place in maps.tensors:
        tensor = torch.zeros(place.shape)
        pattern[place.name] = nn.init.eye_(tensor) if tensor.ndim == 2 else nn.init.dirac_(tensor)
    scored = UnitLikeness(maps, weights, pattern)
    drawn = scored.drawn(PATTERN_DRAWS, rng=rng)
    return (1 + int((drawn >= scored.own() - 1e-6).sum())) / (PATTERN_DRAWS + 1)
