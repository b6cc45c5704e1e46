"""Where the hidden units of a network stand in its weights, random orders of them, and copies of the network in such an order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelward.core.copies import copied
from modelward.core.errors import InputError
from modelward.core.guard import predict
from modelward.models.channels import groups, traced
from modelward.models.renaming import reorder

Orders = Sequence[Tensor]  # for each group of C units, the unit that stands in each place: (C,), or (draws, C)
Weights = Mapping[str, Tensor]
BUFFERS = ("running_mean", "running_var", "mean", "std")  # what a state dict holds besides parameters


@dataclass(frozen=True)
class Placed:
    """A weight tensor, and the groups of units that its rows and its columns belong to.

    Parameters
    ----------
    name, shape
        as in the network's parameters.
    rows, columns
        numbers of groups; ``None`` where nothing moves: inputs, classes, layers that cannot be followed.
    """

    name: str
    shape: tuple[int, ...]
    rows: int | None
    columns: int | None

    def blocks(self, tensor: Tensor, units: Sequence[int]) -> Tensor:
        """Return ``tensor`` as (rows, columns' units, entries a pair); one column where columns do not move."""
        return tensor.reshape(self.shape[0], 1 if self.columns is None else units[self.columns], -1)


@dataclass(frozen=True)
class UnitMaps:
    """All groups of hidden units of a network, and all weight tensors that they stand in.

    Parameters
    ----------
    units
        number of units of each group.
    tensors
        weights of two dimensions or more that move with at least one group, in the order in which the network calls them.
    vectors
        biases and normalisations that move with a group.
    """

    units: tuple[int, ...]
    tensors: tuple[Placed, ...]
    vectors: tuple[Placed, ...] = ()

    def log_orders(self) -> float:
        """Return the natural logarithm of the number of joint orders, the product of the factorials."""
        return sum(math.lgamma(size + 1) for size in self.units)

    def own(self) -> list[Tensor]:
        """Return the order in which every unit stays where it is."""
        return [torch.arange(size) for size in self.units]

    def draw(self, count: int, *, rng: torch.Generator) -> list[Tensor]:
        """Return joint orders drawn uniformly and independently, one (count, C) tensor a group."""
        return [torch.rand(count, size, dtype=torch.float64, generator=rng).sort(dim=1, stable=True).indices for size in self.units]


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the floating-point parameters of ``model`` as float32 by name, in the order in which its layers are called where that is known."""
    named = {name: tensor.detach().float() for name, tensor in model.named_parameters() if tensor.is_floating_point()}
    try:
        root, graph = traced(model)
    except InputError:
        return named
    prefix = next((name for name, module in model.named_modules() if module is root), "")
    ordered: dict[str, Tensor] = {}
    for node in graph.nodes:
        if node.op in {"call_module", "get_attr"}:
            path = f"{prefix}.{node.target}" if prefix else str(node.target)
            ordered |= {name: tensor for name, tensor in named.items() if name == path or name.startswith(f"{path}.")}
    return ordered | named


def unit_maps(model: nn.Module) -> UnitMaps:
    """Return where the hidden units of ``model`` stand: one group for each layer, one for each residual stream.

    Raises
    ------
    InputError
        when the network cannot be followed, nothing in it can be reordered, or a weight serves twice or is computed from others.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    >>> maps = unit_maps(net)
    >>> maps.units, [(place.name, place.rows, place.columns) for place in maps.tensors]
    ((8,), [('0.weight', 0, None), ('3.weight', None, 0)])
    """
    found = groups(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rows: dict[str, int] = {}
    columns: dict[str, int] = {}
    for index, group in enumerate(found):
        _enter(rows, [tensor for layer in group.writers for tensor in _moving(layer)], names, index)
        _enter(columns, [reader.weight for reader in group.readers], names, index)
    placed = [
        Placed(name, tuple(tensor.shape), rows.get(name), columns.get(name))
        for name, tensor in weights_of(model).items()
        if name in rows or name in columns
    ]
    tensors = (tuple(place for place in placed if (len(place.shape) > 1) == wide) for wide in (True, False))
    return UnitMaps(tuple(group.size for group in found), *tensors)


def _moving(layer: nn.Module) -> list[Tensor]:
    """Return the weight and the bias of a layer."""
    return [tensor for tensor in (getattr(layer, "weight", None), getattr(layer, "bias", None)) if isinstance(tensor, Tensor)]


def _enter(into: dict[str, int], tensors: Sequence[Tensor], names: Mapping[int, str], group: int) -> None:
    """Note the group of every tensor."""
    for tensor in tensors:
        name = names.get(id(tensor))
        if name is None or name in into:
            message = "the neurons of this network cannot be followed: one of its weights serves twice or is computed from others"
            raise InputError(message)
        into[name] = group


def in_order(model: nn.Module, orders: Orders) -> nn.Module:
    """Return a copy of ``model`` with unit ``orders[g][i]`` of group g in place i: biases, normalisations and what reads them move along."""
    clone = copied(model).requires_grad_(False)
    for group, order in zip(groups(clone), orders, strict=True):
        reorder(group, order)
    return clone


def answers_stay(model: nn.Module, pixels: Tensor, *, rng: torch.Generator, copies: int = 3, within: float = 1e-5) -> bool:
    """Return whether ``copies`` of ``model`` in random orders answer as it does on images (N, C, H, W), relative to its largest logit.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    >>> answers_stay(net, torch.rand(4, 3, 8, 8), rng=generator(0))
    True
    """
    maps, before = unit_maps(model), predict(model, pixels)
    bound = within * float(before.abs().max().clamp_min(1e-12))
    clones = (in_order(model, [order[0] for order in maps.draw(1, rng=rng)]) for _ in range(copies))
    return all(float((predict(clone, pixels) - before).abs().max()) <= bound for clone in clones)


def paired(wanted: Weights, given: Weights, *, some: bool = False) -> dict[str, Tensor] | None:
    """Return the tensors of ``given`` by the names of ``wanted``; ``None`` where the shapes differ.

    Other names are read by position where all shapes agree, one after the other.

    Parameters
    ----------
    some
        leave out what differs instead, such as a head that was replaced.
    """
    floats = {name: tensor.detach().float() for name, tensor in given.items() if tensor.is_floating_point()}
    plain = [tensor for name, tensor in floats.items() if name.rpartition(".")[2] not in BUFFERS]
    if all(name in floats and floats[name].shape == tensor.shape for name, tensor in wanted.items()):
        return {name: floats[name] for name in wanted}
    if [tensor.shape for tensor in wanted.values()] == [tensor.shape for tensor in plain]:
        return dict(zip(wanted, plain, strict=True))
    if some:
        return {name: floats[name] for name, tensor in wanted.items() if name in floats and floats[name].shape == tensor.shape}
    return None
