"""Bits in the DCT of 8x8 blocks by quantisation index modulation (Chen, Wornell, IEEE Trans. IT 2001): they live through JPEG."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from modelward.core.errors import InputError
from modelward.keys.derive import stream

SIDE, PER_BLOCK = 8, 28
LOW, HIGH = 40.0, 215.0  # pixels are drawn together to this range first, so that a written image is hardly clipped
STRENGTH = 1.2
# luminance table of the JPEG standard (ITU-T T.81, annex K): what an encoder of quality 50 rounds to
TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56), (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92), (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip


@functools.cache
def _basis() -> Tensor:
    """Return the orthonormal DCT-II matrix (8, 8)."""
    k, n = torch.arange(SIDE, dtype=torch.float64)[:, None], torch.arange(SIDE, dtype=torch.float64)
    made = torch.cos(math.pi * (2 * n + 1) * k / (2 * SIDE)) * math.sqrt(2 / SIDE)
    made[0] /= math.sqrt(2)
    return made


@functools.cache
def _steps() -> tuple[Tensor, Tensor]:
    """Return the lowest frequencies but the first, as places (28,) in a flat block, and the step (28,) of each in grey levels."""
    places = sorted(range(1, SIDE * SIDE), key=lambda i: (i // SIDE + i % SIDE, i))[:PER_BLOCK]
    table = torch.tensor(TABLE, dtype=torch.float64).flatten()
    return torch.tensor(places), STRENGTH * table[places]


def capacity(shape: tuple[int, int, int]) -> int:
    """Return how many bits an image (C, H, W) holds: 28 for each whole block of 8x8.

    >>> capacity((1, 28, 28)), capacity((3, 32, 32))
    (252, 448)
    """
    return PER_BLOCK * (shape[1] // SIDE) * (shape[2] // SIDE)


def bit_order(secret: bytes, shape: tuple[int, int, int]) -> Tensor:
    """Return the places of an image's bits in the order in which ``secret`` writes to them."""
    return torch.randperm(capacity(shape), generator=stream(secret, "coefficient order"))


def _coefficients(grey: Tensor) -> Tensor:
    """Return the DCT (N, rows, columns, 64) of the whole blocks of grey images (N, H, W)."""
    rows, columns = grey.shape[1] // SIDE, grey.shape[2] // SIDE
    whole = grey[:, : rows * SIDE, : columns * SIDE].reshape(-1, rows, SIDE, columns, SIDE).transpose(2, 3)
    return (_basis() @ whole @ _basis().T).flatten(3)


def embed_bits(pixels: Tensor, bits: Tensor, order: Tensor) -> Tensor:
    r"""Return images whose DCT coefficients c carry ``bits``: each is moved to the nearest of :math:`\Delta (2 m + b)`.

    Images of three channels carry them in their luminance. Contrast is drawn together to 40..215 first.

    Parameters
    ----------
    pixels, bits, order
        as in `modelward.marking.lsb.embed_bits`, ``order`` from `bit_order`.

    Raises
    ------
    InputError
        for more bits than the blocks hold.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> image = torch.randint(0, 256, (1, 1, 16, 16), dtype=torch.uint8, generator=generator(0))
    >>> order, bits = bit_order(b"0" * 32, (1, 16, 16)), torch.tensor([[0, 1, 1, 0]], dtype=torch.uint8)
    >>> extract_bits(embed_bits(image, bits, order), 4, order).tolist()
    [[0, 1, 1, 0]]
    """
    _require_room(pixels, bits.shape[1], order)
    rows, columns = pixels.shape[2] // SIDE, pixels.shape[3] // SIDE
    x = LOW + pixels.to(torch.float64) * (HIGH - LOW) / 255
    found = _coefficients(_grey(x))
    (places, steps), count = _steps(), bits.shape[1]
    carried = found[..., places].flatten(1)
    step = steps.repeat(rows * columns)[order[:count]]
    old = carried[:, order[:count]]
    carried[:, order[:count]] = step * (2 * ((old / step - bits) / 2).round() + bits)
    moved = torch.zeros_like(found)
    moved[..., places] = carried.view(*found.shape[:3], PER_BLOCK) - found[..., places]
    blocks = (_basis().T @ moved.unflatten(3, (SIDE, SIDE)) @ _basis()).transpose(2, 3)
    x[:, :, : rows * SIDE, : columns * SIDE] += blocks.reshape(-1, 1, rows * SIDE, columns * SIDE)
    return x.round_().clamp_(0, 255).to(torch.uint8)


def extract_bits(pixels: Tensor, count: int, order: Tensor) -> Tensor:
    """Return the first ``count`` bits of images (N, C, H, W), uint8, as uint8 (N, count)."""
    _require_room(pixels, count, order)
    places, steps = _steps()
    found = _coefficients(_grey(pixels.to(torch.float64)))[..., places]
    levels: Tensor = (found / steps).flatten(1)[:, order[:count]].round().long() % 2
    return levels.to(torch.uint8)


def _grey(x: Tensor) -> Tensor:
    """Return the luminance (N, H, W) of images (N, C, H, W), as JPEG computes it."""
    if x.shape[1] != 3:
        return x.mean(1)
    return torch.einsum("nchw,c->nhw", x, torch.tensor([0.299, 0.587, 0.114], dtype=x.dtype))


def _require_room(pixels: Tensor, count: int, order: Tensor) -> None:
    """Raise `InputError` unless the blocks of 8-bit images hold ``count`` bits."""
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or len(order) != PER_BLOCK * (pixels.shape[2] // SIDE) * (pixels.shape[3] // SIDE):
        message = f"bits are written to uint8 images (N, C, H, W) whose blocks hold {len(order)}, got {pixels.dtype} {tuple(pixels.shape)}"
        raise InputError(message)
    if count > len(order):
        message = (
            f"{count} bits do not fit the {len(order)} coefficients of an image of {pixels.shape[2]}x{pixels.shape[3]}; use the lowest bits"
        )
        raise InputError(message)
