r"""How alike the units of two networks are, place by place, for many orders of the units of the first at once.

With rows :math:`a_o, b_o` of unit length (what each unit reads), the likeness of two networks is

.. math:: \frac{\sum_t \sqrt{n_t} \, \frac1{O_t} \sum_o \langle a_o, b_o \rangle}{\sum_t \sqrt{n_t}}

over the weight tensors t of :math:`n_t` entries and :math:`O_t` rows: 1 for a network and itself, about 0 for independent ones, where the mean
cosine of a tensor scatters by about :math:`1 / \sqrt{n_t}`. Biases and normalisations are left out: they have no direction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from modelward.marking.unit_maps import Orders, Placed, UnitMaps

CHUNK = 100  # orders at once
ENTRIES = 2**17  # entries of a tensor that are compared; larger ones are compared at evenly spread places
TABLE = 2**20  # entries of a table of all pairs of pairs of units, where it saves time


@dataclass(frozen=True)
class _Term:
    """One tensor's share of the likeness, for any order of its rows and columns.

    Parameters
    ----------
    source
        ``table[a, b]``, likeness of unit a of the first network to unit b of the second, where one axis moves or pairs are few;
        else the rows of the first network by pairs of units, (O C, k).
    other
        where both axes move, the second network's entries (P, k) at ``pairs``.
    pairs
        (P,) places of ``other`` among the O C pairs.
    """

    place: Placed
    source: Tensor
    other: Tensor | None
    pairs: Tensor
    wide: int
    weight: float

    def of(self, orders: Orders) -> Tensor:
        """Return this share for each of the orders, (draws,)."""
        axes = [orders[axis] for axis in (self.place.rows, self.place.columns) if axis is not None]
        if len(axes) == 1:
            return self.source[axes[0], torch.arange(axes[0].shape[1])].sum(1) * self.weight
        index = self._index(*axes)
        if self.other is None:
            return self.source.view(-1)[index * self.source.shape[1] + self.pairs].sum(1, dtype=torch.float64) * self.weight
        entries = self.source.index_select(0, index.view(-1)).view(len(index), -1)
        return (entries @ self.other.view(-1)).double() * self.weight

    def _index(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return which pair of units comes to each of ``pairs``, (draws, P)."""
        if len(self.pairs) == rows.shape[1] * columns.shape[1]:  # all of them, in their order
            return (rows[:, :, None] * self.wide + columns[:, None, :]).flatten(1)
        return rows[:, self.pairs // self.wide] * self.wide + columns[:, self.pairs % self.wide]


def _rows(tensor: Tensor) -> Tensor:
    """Return every row at unit length."""
    return F.normalize(tensor.flatten(1).double(), dim=1).view(tensor.shape)


def _term(place: Placed, units: Sequence[int], mine: Tensor, theirs: Tensor, total: float) -> _Term:
    """Prepare one tensor."""
    first, second = (place.blocks(_rows(tensor), units) for tensor in (mine, theirs))
    weight = math.sqrt(mine.numel()) / total / mine.shape[0]
    high, wide, deep = first.shape
    none = torch.zeros(0, dtype=torch.int64)
    if place.columns is None:
        return _Term(place, first.flatten(1) @ second.flatten(1).T, None, none, 1, weight)
    if place.rows is None:
        return _Term(place, torch.einsum("oak,obk->ab", first, second), None, none, 1, weight)
    pairs = second.abs().sum(2).view(-1).nonzero().view(-1)  # zeros of the second network add nothing
    most = max(1, ENTRIES // deep)
    if len(pairs) > most:
        pairs = pairs[torch.linspace(0, len(pairs) - 1, most, dtype=torch.float64).long()]
    flat = second.view(high * wide, deep)
    if deep > 1 and (high * wide) ** 2 <= TABLE:
        return _Term(place, first.view(high * wide, deep) @ flat.T, None, pairs, wide, weight)
    return _Term(place, first.reshape(high * wide, deep).float(), flat[pairs].float(), pairs, wide, weight)


class UnitLikeness:
    """The likeness of a network, in any order of its units, to another network as it is.

    Parameters
    ----------
    maps
        where the units of the first network stand.
    mine, theirs
        weights of the two by name, of equal shapes; tensors that ``theirs`` lacks are left out.

    Examples
    --------
    >>> from torch import nn
    >>> from modelward.marking.unit_maps import unit_maps, weights_of
    >>> net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> same = UnitLikeness(unit_maps(net), weights_of(net), weights_of(net))
    >>> round(float(same.own()), 5)
    1.0
    """

    def __init__(self, maps: UnitMaps, mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
        self.maps = maps
        places = [place for place in maps.tensors if place.name in theirs]
        total = sum(math.sqrt(math.prod(place.shape)) for place in places)
        self.terms = [_term(place, maps.units, mine[place.name], theirs[place.name], total) for place in places]

    def of(self, orders: Orders) -> Tensor:
        """Return the likeness for each of the orders, (draws,) float64."""
        zero = torch.zeros(len(orders[0]) if orders else 0, dtype=torch.float64)
        return sum((term.of(orders) for term in self.terms), zero)

    def own(self) -> Tensor:
        """Return the likeness of the first network as it is, computed as that of any other order."""
        return self.of([order[None] for order in self.maps.own()])[0]

    def drawn(self, draws: int, *, rng: torch.Generator) -> Tensor:
        """Return the likeness for so many random orders, (draws,)."""
        sizes = [min(CHUNK, draws - done) for done in range(0, draws, CHUNK)]
        return torch.cat([self.of(self.maps.draw(size, rng=rng)) for size in sizes])
