"""Look for locked parameters where the values of a tensor are heaped: closer together than their neighbourhood lets one expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from modelward.attacks.theft.filling import Filling, Flags
from modelward.attacks.theft.undoing import card
from modelward.core.card import Card


@dataclass(frozen=True, kw_only=True)
class ValueClusters(Filling):
    r"""Flag entries that stand in a heap, fill them, and train the flagged entries alone.

    The sorted values of a tensor are points whose density changes slowly and mostly in one direction. The gap test takes k + 1 neighbours, and
    the f = ``around`` times k gaps on either side of them (those that there are, k at least), of which the denser side counts: the share that
    the k gaps have of the k + f is Beta(k, f) where nothing is heaped. A chance below ``level``, divided by all that is tried, is a heap.

    Parameters
    ----------
    sizes
        numbers of gaps k that are tried.
    around
        how long the stretches are that a heap is compared with, in heaps.
    level
        chance that a tensor without heaps has one flagged, to first order.
    fills, epochs, lr, batch, images, norms
        as in `Filling`.

    Examples
    --------
    >>> spread = torch.linspace(-1, 1, 400)
    >>> heaped = torch.cat([spread, 0.9 + 1e-5 * torch.arange(8)])
    >>> method = ValueClusters()
    >>> int(method.flag({"w": spread})["w"].sum()), method.flag({"w": heaped})["w"][400:].all().item()
    (0, True)
    """

    card: ClassVar[Card] = card("value-clusters", "fill the values that are heaped", "three forward passes, and 20 epochs of 100 images")

    sizes: Sequence[int] = (3, 7, 15, 63)
    around: int = 6
    level: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "sizes", tuple(self.sizes))
        self._require(
            sizes=(bool(self.sizes) and all(size >= 2 for size in self.sizes), "numbers >= 2"), around=(self.around >= 2, ">= 2"),
            level=(0 < self.level < 1, "in (0, 1)"),
        )  # fmt: skip

    def flag(self, tensors: Mapping[str, Tensor]) -> Flags:
        """Return which entries stand in a heap."""
        return {name: heaped(tensor, sizes=self.sizes, around=self.around, level=self.level) for name, tensor in tensors.items()}


def heaped(tensor: Tensor, *, sizes: Sequence[int], around: int, level: float) -> Tensor:
    """Return which entries stand in a heap (n,); where there is nothing beside it to compare with, none does.

    >>> heaped(torch.randn(500, generator=torch.Generator().manual_seed(0)), sizes=(3, 7), around=6, level=0.01).sum().item()
    0
    """
    from scipy.special import betainc

    values, order = tensor.detach().double().reshape(-1).sort()
    found = torch.zeros(len(values), dtype=torch.bool)
    for gaps in sizes:
        first = torch.arange(max(0, len(values) - gaps))
        own, chance = values[first + gaps] - values[first], torch.full((len(first),), -1.0, dtype=torch.float64)
        for start, reach in ((first, -gaps * around), (first + gaps, gaps * around)):
            end = (start + reach).clamp(0, len(values) - 1)
            width, count = (values[end] - values[start]).abs(), (end - start).abs()
            part = torch.where(own + width > 0, own / (own + width).clamp(min=1e-300), 1.0)
            beside = torch.from_numpy(betainc(gaps, count.clamp(min=1).numpy(), part.numpy()))
            chance = torch.where(count >= gaps, torch.maximum(chance, beside), chance)
        for start in torch.nonzero((chance >= 0) & (chance < level / (len(sizes) * len(values)))).flatten().tolist():
            found[order[start : start + gaps + 1]] = True
    return found
