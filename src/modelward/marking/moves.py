"""Moves of single parameters along the gradient of a loss: a lock climbs, and whoever runs the lock backwards descends."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelward.marking.saliency import Saliency, band

UP, DOWN = 1, -1


@dataclass(frozen=True)
class Move:
    """One entry that was moved: its tensor's name, its place, counted row by row, and the loss before the move."""

    name: str
    place: int
    loss: float


def by_layer(
    tensors: Mapping[str, Tensor],
    saliency: Saliency,
    *,
    names: Sequence[str],
    count: int,
    step: float,
    beta: float,
    way: int = UP,
    until: float = math.inf,
) -> Iterator[Move]:
    r"""Move ``count`` entries of one tensor after the other, in place, and yield each move, until the loss is greater than ``until``.

    In each tensor W the entry with the largest :math:`|g_j|` goes to :math:`\mathrm{clip}(w_j + way \cdot step \cdot \mathrm{sign}(g_j)
    (\max W - \min W), B_{low}, B_{high})` of the values that W had at the start; an entry at an end of its band moves no more.

    Examples
    --------
    >>> from modelward.core.rng import forked, generator
    >>> with forked(generator(0)):
    ...     net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2))
    >>> saliency = Saliency(net, torch.rand(8, 1, 1, 2, generator=generator(0)), torch.arange(8) % 2)
    >>> before = saliency.loss()
    >>> len(list(by_layer(dict(net.named_parameters()), saliency, names=["1.weight"], count=2, step=0.2, beta=0.1))), saliency.loss() > before
    (2, True)
    """
    for name in names:
        tensor, (low, high) = tensors[name], band(tensors[name], beta)
        reach, free = step * float(tensor.detach().max() - tensor.detach().min()), torch.ones(tensor.numel(), dtype=torch.bool)
        for _ in range(count):
            loss, grads = saliency.gradients(0)
            if loss > until:
                return
            if not bool(free.any()):
                break
            flat, grad = tensor.detach().view(-1), grads[name].reshape(-1)
            j = int(grad.abs().masked_fill(~free, -1).argmax())
            flat[j] = min(max(float(flat[j]) + way * reach * float(grad[j].sign()), low), high)
            free[j] = bool(low < float(flat[j]) < high)
            yield Move(name, j, loss)


def by_worth(
    tensors: Mapping[str, Tensor],
    saliency: Saliency,
    *,
    beta: float,
    each: int = 1,
    way: int = UP,
    barred: Mapping[str, Tensor] | None = None,
) -> Iterator[Move]:
    """Move entries to the end of their band, in place, each time those whose way there is worth most to first order; yield each move.

    Parameters
    ----------
    beta
        share of their range that weights keep from both ends of it; scales, shifts and statistics may go to the ends.
    each
        so many entries for every gradient.
    barred
        bool tensors (n,) of entries that are never moved, by tensor.
    """
    bands = {name: band(tensor, beta if tensor.ndim >= 2 else 0.0) for name, tensor in tensors.items()}
    never = barred or {}
    moved = {name: never[name].clone() if name in never else torch.zeros(t.numel(), dtype=torch.bool) for name, t in tensors.items()}
    number = 0
    while not all(bool(done.all()) for done in moved.values()):
        loss, grads = saliency.gradients(number)
        ranked = sorted(
            (found for name in grads if name in tensors for found in _best(name, tensors[name], way * grads[name], bands[name], moved[name], each)),
            key=lambda found: -found[0],
        )  # fmt: skip
        if not ranked:  # this look has a gradient for entries alone that were moved already
            return
        for _, name, j, value in ranked[:each]:
            tensors[name].detach().view(-1)[j] = value
            moved[name][j] = True
            yield Move(name, j, loss)
        number += 1


def _best(
    name: str, tensor: Tensor, grad: Tensor, limits: tuple[float, float], moved: Tensor, count: int
) -> Iterator[tuple[float, str, int, float]]:
    """Yield the entries whose move to the end of their band adds most to the loss, to first order: worth, name, place and new value."""
    flat, slope = tensor.detach().reshape(-1), grad.reshape(-1)
    low, high = (torch.tensor(end, dtype=flat.dtype) for end in limits)
    ends = torch.where(slope > 0, high, low)
    worth = ((ends - flat) * slope).masked_fill(moved, -torch.inf)
    for value, place in zip(*worth.topk(min(count, len(flat))), strict=True):
        if value > -torch.inf:
            yield float(value), name, int(place), float(ends[place])
