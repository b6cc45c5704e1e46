"""Bits in the lowest bit of pixels, in a secret order: at most one grey level of change, and exact for as long as no pixel changes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modelward.core.errors import InputError
from modelward.keys.derive import stream


def pixel_order(secret: bytes, shape: tuple[int, int, int]) -> Tensor:
    """Return the places (C * H * W,) of an image in the order in which ``secret`` writes to them.

    Examples
    --------
    >>> sorted(pixel_order(b"0" * 32, (1, 2, 2)).tolist())
    [0, 1, 2, 3]
    """
    return torch.randperm(math.prod(shape), generator=stream(secret, "pixel order"))


def embed_bits(pixels: Tensor, bits: Tensor, order: Tensor) -> Tensor:
    r"""Return images whose lowest bits, in ``order``, are ``bits``: :math:`s' = (s \wedge 254) \vee b`.

    Parameters
    ----------
    pixels
        uint8 (N, C, H, W); not changed.
    bits
        uint8 (N, B) of 0 and 1.
    order
        int64 (C * H * W,), as `pixel_order` returns it.

    Raises
    ------
    InputError
        for more bits than pixels, or images that ``order`` is not for.

    Examples
    --------
    >>> grey = torch.full((1, 1, 2, 2), 200, dtype=torch.uint8)
    >>> embed_bits(grey, torch.tensor([[1, 1, 0]], dtype=torch.uint8), torch.arange(4)).flatten().tolist()
    [201, 201, 200, 200]
    """
    _require_room(pixels, bits.shape[1], order)
    flat = pixels.flatten(1).clone()
    places = order[: bits.shape[1]]
    flat[:, places] = (flat[:, places] & 254) | bits
    return flat.view_as(pixels)


def extract_bits(pixels: Tensor, count: int, order: Tensor) -> Tensor:
    """Return the first ``count`` bits of images (N, C, H, W), uint8, as uint8 (N, count).

    Examples
    --------
    >>> extract_bits(torch.tensor([[[[3, 2, 1]]]], dtype=torch.uint8), 2, torch.tensor([2, 1, 0])).tolist()
    [[1, 0]]
    """
    _require_room(pixels, count, order)
    return pixels.flatten(1)[:, order[:count]] & 1


def _require_room(pixels: Tensor, count: int, order: Tensor) -> None:
    """Raise `InputError` unless images of 8 bits have ``count`` pixels in ``order``."""
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or math.prod(pixels.shape[1:]) != len(order):
        message = f"bits are written to uint8 images (N, C, H, W) of {len(order)} pixels, got {pixels.dtype} {tuple(pixels.shape)}"
        raise InputError(message)
    if count > len(order):
        message = f"{count} bits do not fit an image of {len(order)} pixels; use larger images or a shorter payload"
        raise InputError(message)
