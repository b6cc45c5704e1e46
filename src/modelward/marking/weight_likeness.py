r"""How much the weights of each candidate share with a suspect's: by distance inside one start, and after matching of the units.

With the mean :math:`\mu_t` of all candidates' tensors t, the likeness of candidate c to suspect x is

.. math:: \sum_t \sqrt{n_t} \cos(c_t - \mu_t, x_t - \mu_t) \Big/ \sum_t \sqrt{n_t}

over all tensors of :math:`n_t` entries. It is one function of every candidate, whichever is the owner's and in whatever order they come, to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modelward.core.errors import InputError, Undecided
from modelward.marking.alignment import aligned
from modelward.marking.unit_maps import Weights, paired, weights_of


def weight_likeness(suspect: Weights, candidates: Sequence[Weights]) -> Tensor:
    """Return the likeness of each of m + 1 candidates to the suspect, (m + 1,) float64 in [-1, 1].

    Parameters
    ----------
    suspect
        weights by name, as handed over; other names are read by position where all shapes agree.
    candidates
        weights of the owner's network and of its siblings, at least two, of equal names and shapes.

    Raises
    ------
    InputError
        for fewer than two candidates, or candidates that differ in shape.
    Undecided
        when the suspect has other shapes, or weights that are no numbers.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> base = torch.randn(4, 6, generator=generator(0))
    >>> siblings = [{"w": base + 0.1 * torch.randn(4, 6, generator=generator(seed))} for seed in (1, 2, 3)]
    >>> thief = {"w": siblings[1]["w"] + 0.03 * torch.randn(4, 6, generator=generator(4))}
    >>> int(weight_likeness(thief, siblings).argmax())
    1
    """
    if len(candidates) < 2:
        message = f"at least two candidates are ranked by their weights, got {len(candidates)}"
        raise InputError(message)
    theirs = _fitting(candidates[0], suspect)
    sought = [tensors for tensors in (paired(candidates[0], candidate) for candidate in candidates) if tensors is not None]
    if len(sought) < len(candidates):
        message = "the candidates' layers have different shapes: siblings are trained with the owner's architecture"
        raise InputError(message)
    total = torch.zeros(len(candidates), dtype=torch.float64)
    for name, tensor in theirs.items():
        stack = torch.stack([tensors[name].double() for tensors in sought])
        centre = stack.sort(dim=0).values.mean(0)  # sorted, so that the order of the candidates leaves no trace in the last bit
        wanted = (tensor.double() - centre).flatten()
        total += math.sqrt(tensor.numel()) * torch.stack([_cosine((candidate - centre).flatten(), wanted) for candidate in stack])
    return total / sum(math.sqrt(tensor.numel()) for tensor in theirs.values())


def matched_likeness(suspect: Weights, candidates: Sequence[nn.Module]) -> Tensor:
    """Return the likeness of each of m + 1 candidates whose units were first put in the order, and at the scale, of the suspect's, (m + 1,).

    Every candidate is matched by the same procedure (`aligned`), the owner's network no other than its siblings: the match flatters all alike.

    Examples
    --------
    >>> def net(seed: int) -> nn.Module:
    ...     _ = torch.manual_seed(seed)
    ...     return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> nets, order = [net(seed) for seed in range(4)], torch.randperm(8)
    >>> first, last = nets[2][0], nets[2][2]
    >>> thief = {"a": first.weight[order], "b": first.bias[order], "c": last.weight[:, order], "d": last.bias}
    >>> int(matched_likeness(thief, nets).argmax())
    2
    """
    named = [weights_of(candidate) for candidate in candidates]
    if not named:
        return weight_likeness(suspect, [])
    theirs = _fitting(named[0], suspect)
    moved = [weights_of(aligned(candidate, theirs)) for candidate in candidates]
    return weight_likeness(theirs, moved)


def _fitting(candidate: Weights, suspect: Weights) -> dict[str, Tensor]:
    """Return the suspect's weights by the candidates' names."""
    theirs = paired(candidate, suspect)
    if theirs is None:
        message = "the suspect's layers have other shapes than the owner's: their weights cannot be compared"
        raise Undecided(message)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in theirs.values()):
        message = "some of the suspect's weights are no numbers"
        raise Undecided(message)
    return theirs


def _cosine(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosine of two vectors, 0 where one is 0; summed by itself, not in a matrix product whose last bit depends on the row."""
    lengths = ((first * first).sum() * (second * second).sum()).sqrt()
    return (first * second).sum() / lengths if float(lengths) > 0 else torch.zeros((), dtype=torch.float64)
