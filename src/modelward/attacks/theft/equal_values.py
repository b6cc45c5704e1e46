"""Look for locked parameters among the values that occur more than once in their tensor: where a lock moves to one place, it leaves equals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from modelward.attacks.theft.filling import Filling, Flags
from modelward.attacks.theft.undoing import card
from modelward.core.card import Card


@dataclass(frozen=True, kw_only=True)
class EqualValues(Filling):
    """Flag every entry whose value occurs twice or more in its tensor, fill it, and train the flagged entries alone.

    Tensors most of whose entries repeat, such as those of 16 bits or untrained scales, are passed over.

    Parameters
    ----------
    most
        share of a tensor's entries that may repeat before it is passed over, in (0, 1].
    fills, epochs, lr, batch, images, norms
        as in `Filling`.

    Examples
    --------
    >>> import torch
    >>> EqualValues().flag({"w": torch.tensor([0.5, 0.1, 0.5, 0.2, 0.3])})["w"].tolist()
    [True, False, True, False, False]
    """

    card: ClassVar[Card] = card("equal-values", "fill the values that occur twice", "three forward passes, and 20 epochs of 100 images")

    most: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(most=(0 < self.most <= 1, "in (0, 1]"))

    def flag(self, tensors: Mapping[str, Tensor]) -> Flags:
        """Return which entries repeat."""
        return {name: found for name, tensor in tensors.items() if float((found := repeated(tensor)).float().mean()) <= self.most}


def repeated(tensor: Tensor) -> Tensor:
    """Return which entries have a value that occurs more than once (n,).

    >>> import torch
    >>> repeated(torch.tensor([[1.0, 2.0], [1.0, 3.0]])).tolist()
    [True, False, True, False]
    """
    _, where, counts = tensor.detach().reshape(-1).unique(return_inverse=True, return_counts=True)
    more: Tensor = counts[where] > 1
    return more
