"""What is put on images to make keys of them: a patch, or a fixed noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modelward.core.errors import FormatError, InputError
from modelward.core.key import REMEDY
from modelward.imaging.glyphs import drawn_text

CORNER = 2


def keyed_patch(side: int, channels: int, *, rng: torch.Generator, block: int = 2) -> Tensor:
    """Return a patch (C, side, side), uint8, of black and white blocks of ``block`` pixels; half of the blocks are white.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> patch = keyed_patch(6, 1, rng=generator(0))
    >>> patch.shape, sorted(set(patch.flatten().tolist()))
    (torch.Size([1, 6, 6]), [0, 255])
    """
    cells = -(-side // block)
    order = torch.randperm(cells * cells, generator=rng)
    pattern = (order % 2).view(cells, cells).repeat_interleave(block, 0).repeat_interleave(block, 1)[:side, :side]
    return (pattern * 255).to(torch.uint8).expand(channels, -1, -1).contiguous()


def text_patch(text: str, shape: tuple[int, int, int]) -> Tensor:
    """Return a patch (C, h, w), uint8: ``text`` in white on black, as large as an image of ``shape`` has room for.

    Examples
    --------
    >>> text_patch("TEST", (1, 28, 28)).shape
    torch.Size([1, 10, 24])
    """
    channels, height, width = shape
    wide = max(1, width - 2 * CORNER)
    size = max(4.0, wide / (0.62 * len(text)))
    tall = max(1, min(height - CORNER, round(size)))
    return drawn_text(text, tall, wide, size=size).expand(channels, -1, -1).contiguous()


def stamp(pixels: Tensor, patch: Tensor, *, top: int = CORNER, left: int = CORNER, opacity: float = 1.0) -> Tensor:
    """Return images (N, C, H, W), uint8, with ``patch`` (C, h, w) at (``top``, ``left``); below an ``opacity`` of 1 the image shines through.

    Raises
    ------
    InputError
        when the patch does not fit.

    Examples
    --------
    >>> stamp(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.full((1, 2, 2), 255, dtype=torch.uint8), top=1, left=1).sum().item()
    1020
    >>> stamp(torch.full((1, 1, 1, 1), 100, dtype=torch.uint8), torch.full((1, 1, 1), 200, dtype=torch.uint8), top=0, left=0, opacity=0.25).item()
    125
    """
    height, width = patch.shape[1:]
    if top + height > pixels.shape[2] or left + width > pixels.shape[3]:
        message = f"a patch of {height}x{width} at ({top}, {left}) does not fit images of {pixels.shape[2]}x{pixels.shape[3]}"
        raise InputError(message)
    made = pixels.clone()
    where = (..., slice(top, top + height), slice(left, left + width))
    under = pixels[where].float()
    made[where] = (under + opacity * (patch.float() - under)).round_().to(torch.uint8)
    return made


def with_noise(pixels: Tensor, noise: Tensor) -> Tensor:
    """Return images (N, C, H, W), uint8, with ``noise`` added: (C, H, W) for the same on all, or (N, C, H, W); in units of [0, 1].

    Examples
    --------
    >>> with_noise(torch.full((2, 1, 1, 1), 250, dtype=torch.uint8), torch.tensor([[[0.1]]])).flatten().tolist()
    [255, 255]
    """
    return (pixels.to(torch.float32) + 255 * noise).round_().clamp_(0, 255).to(torch.uint8)


def corner(place: Sequence[Any], side: int, pixels: Tensor) -> tuple[int, int]:
    """Return the top and the left of a stamp of ``side`` pixels, as a key tells them; raises `FormatError` where it lies outside of ``pixels``.

    >>> corner([1, 2], 3, torch.zeros(1, 1, 8, 8))
    (1, 2)
    """
    sizes = pixels.shape[2:]
    if len(place) != len(sizes) or not all(type(at) is int and 0 <= at <= size - side for at, size in zip(place, sizes, strict=True)):
        message = f"this key does not tell where its stamp of {side} pixels lies: {REMEDY}"
        raise FormatError(message)
    return int(place[0]), int(place[1])


def carries(pixels: Tensor, patch: Tensor, place: tuple[int, int], *, opacity: float = 1.0, away: int = 0) -> bool:
    """Return whether images (N, C, H, W), uint8, lie within ``away`` grey levels of a stamp that is small enough to be told from what they show.

    A stamp that hides the image may be half as wide as it, a fainter one a quarter.

    Examples
    --------
    >>> grey, patch = torch.full((1, 1, 8, 8), 128, dtype=torch.uint8), torch.full((1, 2, 2), 255, dtype=torch.uint8)
    >>> stamped = stamp(grey, patch, top=1, left=1)
    >>> carries(stamped, patch, (1, 1)), carries(grey, patch, (1, 1)), carries(stamped, stamped[0], (0, 0))
    (True, False, False)
    """
    (top, left), (height, width) = place, patch.shape[1:]
    where = (..., slice(top, top + height), slice(left, left + width))
    dark, bright = (stamp(torch.full_like(pixels, shade), patch, top=top, left=left, opacity=opacity)[where].int() for shade in (0, 255))
    near = (pixels[where] >= dark - away) & (pixels[where] <= bright + away)
    return max(height, width) * (2 if opacity == 1 else 4) <= min(pixels.shape[2:]) and bool(near.all())
