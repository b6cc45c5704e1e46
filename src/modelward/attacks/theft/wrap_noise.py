"""Noise on every query, and every query mirrored (battery of Lukas et al., arXiv 2108.04974)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from modelward.attacks.theft.wrapping import ImageWrapping, drawn, wrapper_card
from modelward.core.card import Card


@dataclass(frozen=True, kw_only=True)
class WrapNoise(ImageWrapping):
    """Show the copy a noisy image. The noise hangs on the seed and the image alone: asked twice, the copy does not give itself away.

    Parameters
    ----------
    std
        of the Gaussian noise, pixels in [0, 1]; the battery takes .01, .03, .05 and .1.
    seed
        another seed is another noise.

    Examples
    --------
    >>> import torch
    >>> x, wrapper = torch.full((2, 1, 28, 28), 0.5), WrapNoise(std=0.05)
    >>> bool((wrapper.change(x) == wrapper.change(x)).all()), round(float((wrapper.change(x) - x).std()), 2)
    (True, 0.05)
    """

    card: ClassVar[Card] = wrapper_card("wrap-noise", "queries under noise")

    std: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        self._require(std=(self.std >= 0, ">= 0"), seed=(0 <= self.seed < 2**63, "in [0, 2^63)"))

    def change(self, x: Tensor) -> Tensor:
        """Return the noisy images, clamped to [0, 1]."""
        return x.add(drawn(x, self.seed, x.shape[1:]), alpha=self.std).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class WrapFlip(ImageWrapping):
    """Show the copy the mirror image: of no use where left and right matter, as in digits.

    Examples
    --------
    >>> import torch
    >>> WrapFlip().change(torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)).flatten().tolist()
    [1.0, 0.5, 0.0]
    """

    card: ClassVar[Card] = wrapper_card("wrap-flip", "queries mirrored")

    def change(self, x: Tensor) -> Tensor:
        """Return the images with left and right exchanged."""
        return x.flip(3)
