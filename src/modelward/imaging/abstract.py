"""Images of nothing: smooth random fields."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from modelward.imaging.quantise import to_uint8


def abstract_images(count: int, shape: tuple[int, int, int], *, rng: torch.Generator) -> Tensor:
    """Return uint8 images (N, C, H, W) of nothing: smooth random fields of four sizes, each stretched to the full range of grey.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> images = abstract_images(5, (3, 16, 16), rng=generator(0))
    >>> images.shape, int(images.amin()), int(images.amax())
    (torch.Size([5, 3, 16, 16]), 0, 255)
    """
    channels, height, width = shape
    fields = torch.zeros(count, channels, height, width)
    for grains in (2, 4, 8, 16):
        coarse = torch.randn((count, channels, grains, grains), generator=rng)
        strength = torch.rand((count, 1, 1, 1), generator=rng)
        fields += strength * F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    low, high = fields.flatten(1).amin(1).view(-1, 1, 1, 1), fields.flatten(1).amax(1).view(-1, 1, 1, 1)
    return to_uint8((fields - low) / (high - low).clamp_min(1e-6))
