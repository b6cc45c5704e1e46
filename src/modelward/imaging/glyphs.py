"""Letters and digits as images: pictures that belong to no photograph."""

from __future__ import annotations

import string

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

SIGNS = string.ascii_uppercase + string.digits


def drawn_text(text: str, height: int, width: int, *, size: float, left: float = 0, top: float = 0) -> Tensor:
    """Return uint8 (height, width): ``text`` in white on black in a font of ``size`` pixels, its corner at (``top``, ``left``).

    Examples
    --------
    >>> int((drawn_text("TEST", 10, 28, size=10) > 127).sum()) > 30
    True
    """
    canvas = Image.new("L", (width, height))
    ImageDraw.Draw(canvas).text((left, top), text, fill=255, font=ImageFont.load_default(size))
    return torch.from_numpy(np.array(canvas))


def glyph_images(count: int, shape: tuple[int, int, int], *, rng: torch.Generator) -> Tensor:
    """Return uint8 images (N, C, H, W) of one sign each: a letter or digit of random size, place and grey, on random grey.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> images = glyph_images(4, (3, 28, 28), rng=generator(0))
    >>> images.shape, len({bytes(image.numpy()) for image in images})
    (torch.Size([4, 3, 28, 28]), 4)
    """
    channels, height, width = shape
    made = []
    for _ in range(count):
        sign = SIGNS[int(torch.randint(0, len(SIGNS), (), generator=rng))]
        share, left, top, ink, paper = torch.rand(5, generator=rng).tolist()
        size = max(6.0, min(height, width) * (0.6 + 0.3 * share))
        mask = (
            drawn_text(sign, height, width, size=size, left=left * (width - 0.6 * size), top=top * (height - size) - 0.1 * size).float()
            / 255
        )
        low, high = 100 * paper, 155 + 100 * ink
        made.append((low + mask * (high - low)).round().to(torch.uint8).expand(channels, -1, -1))
    return torch.stack(made) if made else torch.zeros(0, *shape, dtype=torch.uint8)
