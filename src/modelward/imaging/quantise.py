"""Between floats and 8 bits: what leaves the process is 8-bit."""

from __future__ import annotations

import torch
from torch import Tensor


def to_uint8(x: Tensor) -> Tensor:
    """Return float images (N, C, H, W) in [0, 1] as uint8, rounded half up and clamped.

    >>> import torch
    >>> to_uint8(torch.tensor([[[[0.0, 0.5, 1.2]]]])).flatten().tolist()
    [0, 128, 255]
    """
    return x.detach().mul(255).add(0.5).floor().clamp(0, 255).to(torch.uint8)


def to_float(pixels: Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1]."""
    return pixels.to(torch.float32).div_(255)


def as_8bit(x: Tensor) -> Tensor:
    """Return float images as they come back from an 8-bit file: multiples of 1/255."""
    return to_float(to_uint8(x))


def straight_through_8bit(x: Tensor) -> Tensor:
    """Return `as_8bit` of ``x`` with the gradient of the identity."""
    return x + (as_8bit(x) - x).detach()


def reduce_bits(x: Tensor, bits: int) -> Tensor:
    """Return ``x`` in [0, 1] rounded to ``2**bits`` equally spaced levels."""
    levels = 2**bits - 1
    return x.mul(levels).add(0.5).floor().clamp(0, levels).div(levels)
