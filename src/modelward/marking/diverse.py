"""Pictures of nothing that differ as much as they can: small networks tell them apart, and random labels fit."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from modelward.imaging.abstract import abstract_images
from modelward.imaging.glyphs import glyph_images

POOL, SIDE = 6, 8


def _blocks(count: int, shape: tuple[int, int, int], rng: torch.Generator) -> Tensor:
    """Return uint8 images of two greys in blocks of random size."""
    channels, height, width = shape
    made = []
    for _ in range(count):
        cells = int(torch.randint(2, 6, (), generator=rng))
        cut = (torch.rand(channels, cells, cells, generator=rng) < 0.5).float()
        made.append(F.interpolate(cut[None], (height, width), mode="nearest")[0])
    return (torch.stack(made) * 255).to(torch.uint8)


def diverse_images(count: int, shape: tuple[int, int, int], *, rng: torch.Generator) -> Tensor:
    """Return uint8 images (N, C, H, W): of six times as many smooth fields, blocks and signs those that lie furthest from each other.

    One after the other the candidate is taken whose nearest among those taken is furthest, as 8x8 thumbnails.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> images = diverse_images(5, (3, 16, 16), rng=generator(0))
    >>> images.shape, images.dtype, len({bytes(image.numpy()) for image in images})
    (torch.Size([5, 3, 16, 16]), torch.uint8, 5)
    """
    each = POOL * count // 3
    parts = [abstract_images(each, shape, rng=rng), _blocks(each, shape, rng), glyph_images(each, shape, rng=rng)]
    pool = torch.cat(parts)
    small = F.adaptive_avg_pool2d(pool.to(torch.float32).div(255), SIDE).flatten(1)
    taken = [0]
    near = (small - small[0]).square().sum(1)
    while len(taken) < count:
        taken.append(int(near.argmax()))
        near = torch.minimum(near, (small - small[taken[-1]]).square().sum(1))
    return pool[taken]
