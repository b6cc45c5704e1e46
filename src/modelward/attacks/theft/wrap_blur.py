"""Smoothing of every query: Gaussian, mean or median (battery of Lukas et al., arXiv 2108.04974)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from modelward.attacks.theft.wrapping import ImageWrapping, wrapper_card
from modelward.core.card import Card
from modelward.imaging.corruptions import gaussian_blur
from modelward.imaging.filters import mean_filter, median_filter

KINDS = ("gaussian", "mean", "median")


@dataclass(frozen=True, kw_only=True)
class WrapBlur(ImageWrapping):
    """Show the copy a smoothed image: fine patterns of key images are lost.

    Parameters
    ----------
    kind
        ``"gaussian"``, ``"mean"`` or ``"median"``.
    std
        of the Gaussian, in pixels; the battery takes .5, .6 and .7.
    size
        side of the window of mean and median, odd.

    Examples
    --------
    >>> import torch
    >>> dot = torch.zeros(1, 1, 5, 5)
    >>> dot[0, 0, 2, 2] = 1
    >>> [round(float(WrapBlur(kind=kind).change(dot)[0, 0, 2, 2]), 2) for kind in ("gaussian", "mean", "median")]
    [0.62, 0.11, 0.0]
    """

    card: ClassVar[Card] = wrapper_card("wrap-blur", "queries smoothed")

    kind: str = "gaussian"
    std: float = 0.5
    size: int = 3

    def __post_init__(self) -> None:
        self._require(
            kind=(self.kind in KINDS, "gaussian, mean or median"), std=(self.std > 0, "> 0"),
            size=(self.size >= 1 and self.size % 2 == 1, "odd and positive"),
        )  # fmt: skip

    def change(self, x: Tensor) -> Tensor:
        """Return the smoothed images."""
        if self.kind == "gaussian":
            return gaussian_blur(x, self.std)
        return mean_filter(x, self.size) if self.kind == "mean" else median_filter(x, self.size)
