"""Moves that leave the values of a tensor what they were: two entries change places, so that no statistic of the values tells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from modelward.marking.moves import UP, Move
from modelward.marking.saliency import Saliency

FOREMOST = 32  # entries a tensor by each of four orders that are tried against each other


def by_swap(
    tensors: Mapping[str, Tensor], saliency: Saliency, *, each: int = 2, way: int = UP, barred: Mapping[str, Tensor] | None = None
) -> Iterator[Move]:
    r"""Exchange the values of two entries of one tensor, in place, each time of those whose exchange is worth most; yield both moves.

    To first order the exchange of :math:`w_j` and :math:`w_k` adds :math:`(w_k - w_j)(g_j - g_k)` to the loss. A tensor holds the same values
    before and after, each as often: what the values alone tell, sorted, counted or compared with others', is the same bit for bit. An entry is
    exchanged once at most, and never for one of its own value.

    Parameters
    ----------
    each
        so many entries for every gradient; an odd number is rounded down, 2 at least.
    way
        ``UP`` climbs the loss, ``DOWN`` descends.
    barred
        bool tensors (n,) of entries that stay where they are, by tensor.

    Examples
    --------
    >>> from modelward.core.rng import forked, generator
    >>> with forked(generator(0)):
    ...     net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    >>> values, saliency = net[1].weight.detach().flatten().sort().values, Saliency(net, torch.eye(4).view(4, 1, 2, 2), torch.arange(4) % 3)
    >>> before, moves = saliency.loss(), by_swap(dict(net.named_parameters()), saliency)
    >>> next(moves).name, next(moves).name, saliency.loss() > before
    ('1.weight', '1.weight', True)
    >>> bool((net[1].weight.detach().flatten().sort().values == values).all())
    True
    """
    never, pairs = barred or {}, max(1, each // 2)
    free = {name: ~never[name] if name in never else torch.ones(t.numel(), dtype=torch.bool) for name, t in tensors.items()}
    number, idle = 0, 0
    while idle < len(saliency.moods):  # some looks have a gradient for nothing that is left
        loss, grads = saliency.gradients(number)
        ranked = sorted(
            (found for name in grads if name in tensors for found in _best(name, tensors[name], way * grads[name], free[name], pairs)),
            key=lambda found: -found[0],
        )  # fmt: skip
        for _, name, j, k in ranked[:pairs]:
            flat = tensors[name].detach().view(-1)
            flat[[j, k]] = flat[[k, j]]
            free[name][[j, k]] = False
            yield Move(name, j, loss)
            yield Move(name, k, loss)
        number, idle = number + 1, 0 if ranked else idle + 1


def _best(name: str, tensor: Tensor, grad: Tensor, free: Tensor, count: int) -> Iterator[tuple[float, str, int, int]]:
    """Yield the ``count`` pairs of free entries, none twice, whose exchange adds most to the loss, to first order: worth, name, places."""
    flat, slope = tensor.detach().reshape(-1).double(), grad.reshape(-1).double()
    places = _foremost(flat, slope, free)
    values, slopes = flat[places], slope[places]
    worth = ((values[None] - values[:, None]) * (slopes[:, None] - slopes[None])).triu(1).nan_to_num(0.0)
    for _ in range(count if len(places) > 1 else 0):
        most, at = worth.view(-1).max(0)
        if not float(most) > 0:
            return
        j, k = divmod(int(at), len(places))
        worth[[j, k]] = 0
        worth[:, [j, k]] = 0
        yield float(most), name, int(places[j]), int(places[k])


def _foremost(flat: Tensor, slope: Tensor, free: Tensor) -> Tensor:
    """Return the places of the free entries that an exchange may be worth most for: all of a small tensor's, of others the ends of four orders."""
    places = torch.nonzero(free).flatten()
    if len(places) <= 4 * FOREMOST:
        return places
    values, slopes = flat[places], slope[places]
    low, high = values.aminmax()
    orders = ((high - values) * slopes, (low - values) * slopes, values, -values)
    return places[torch.cat([order.topk(FOREMOST).indices for order in orders]).unique()]
