"""Every query through JPEG (Guo et al., "Countering adversarial images using input transformations", ICLR 2018; battery of Lukas et al.)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from modelward.attacks.theft.wrapping import ImageWrapping, wrapper_card
from modelward.core.card import Card
from modelward.imaging.codecs import roundtrip
from modelward.imaging.quantise import to_float, to_uint8


@dataclass(frozen=True, kw_only=True)
class WrapJPEG(ImageWrapping):
    """Show the copy what JPEG leaves of an image; it lets no gradient through.

    Parameters
    ----------
    quality
        1 to 100; the battery takes 95, 65 and 45.

    Raises
    ------
    InputError
        for images that have neither one nor three channels.

    Examples
    --------
    >>> import torch
    >>> noise = torch.rand(1, 1, 16, 16, generator=torch.Generator())
    >>> [bool((WrapJPEG(quality=q).change(noise) - noise).abs().mean() < 0.02) for q in (100, 45)]
    [True, False]
    """

    card: ClassVar[Card] = wrapper_card("wrap-jpeg", "queries through JPEG")

    quality: int = 65

    def __post_init__(self) -> None:
        self._require(quality=(1 <= self.quality <= 100, "in 1..100"))

    def change(self, x: Tensor) -> Tensor:
        """Return the images after encoding and decoding."""
        return to_float(roundtrip(to_uint8(x).cpu(), "jpeg", self.quality)).to(x.device)
