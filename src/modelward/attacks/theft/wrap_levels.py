"""Queries with fewer grey levels, alone or with a median filter (Xu, Evans, Qi, "Feature squeezing", NDSS 2018; battery of Lukas et al.)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from modelward.attacks.theft.wrapping import ImageWrapping, wrapper_card
from modelward.core.card import Card
from modelward.imaging.filters import median_filter, round_levels
from modelward.imaging.quantise import reduce_bits


@dataclass(frozen=True, kw_only=True)
class WrapLevels(ImageWrapping):
    """Show the copy an image of few grey levels.

    Parameters
    ----------
    levels
        the battery takes 16, 12 and 10.

    Examples
    --------
    >>> import torch
    >>> len(WrapLevels(levels=10).change(torch.rand(1, 1, 28, 28)).unique())
    10
    """

    card: ClassVar[Card] = wrapper_card("wrap-levels", "queries with few grey levels")

    levels: int = 12

    def __post_init__(self) -> None:
        self._require(levels=(self.levels >= 2, ">= 2"))

    def change(self, x: Tensor) -> Tensor:
        """Return the images with every value on the nearest level."""
        return round_levels(x, self.levels)


@dataclass(frozen=True, kw_only=True)
class WrapSqueeze(ImageWrapping):
    """Feature squeezing: fewer bits of colour, then a median filter.

    Parameters
    ----------
    bits
        1 to 8.
    size
        side of the median's window, odd.

    Examples
    --------
    >>> import torch
    >>> len(WrapSqueeze(bits=3).change(torch.rand(1, 1, 28, 28)).unique()) <= 8
    True
    """

    card: ClassVar[Card] = wrapper_card(
        "wrap-squeeze", "queries with squeezed features",
        paper="Xu, Evans, Qi: Feature squeezing: detecting adversarial examples in deep neural networks, NDSS 2018, arXiv 1704.01155",
    )  # fmt: skip

    bits: int = 5
    size: int = 3

    def __post_init__(self) -> None:
        self._require(bits=(1 <= self.bits <= 8, "in 1..8"), size=(self.size >= 1 and self.size % 2 == 1, "odd and positive"))

    def change(self, x: Tensor) -> Tensor:
        """Return the squeezed images."""
        return median_filter(reduce_bits(x, self.bits), self.size)
