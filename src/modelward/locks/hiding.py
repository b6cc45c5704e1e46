"""How the shifts of a locked image lie in it: entropy-coded, enciphered with the image's own key, hidden so that every pixel comes back."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelward.core.errors import FormatError
from modelward.keys.cipher import stream_bits
from modelward.locks.collision import Shifts
from modelward.marking import rans, rdh

CHUNK = 512
U8 = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Hidden:
    """Images (N, C, H, W), uint8, that hold their own shifts, and where in them: int64 (N, 3), a row of zeros where the room was too small."""

    pixels: Tensor
    rooms: Tensor


def hide(originals: Tensor, shifts: Tensor, plan: Shifts, *, secret: bytes, names: Sequence[str]) -> Hidden:
    """Return shifted images that carry what undoes the shifts.

    Parameters
    ----------
    originals
        uint8 (N, C, H, W).
    shifts
        int16 (N, C, h, w), in units of ``plan``.
    secret, names
        the set's secret, and N names: the key of an image is derived from both.
    """
    pixels, rooms = [], []
    for begin in range(0, len(originals), CHUNK):
        part = slice(begin, begin + CHUNK)
        made = _hide(originals[part], shifts[part], plan, secret, names[part])
        pixels.append(made.pixels)
        rooms.append(made.rooms)
    return Hidden(torch.cat(pixels), torch.cat(rooms))


def reveal(hidden: Hidden, plan: Shifts, *, secret: bytes, names: Sequence[str]) -> Tensor:
    """Return the originals, uint8 (N, C, H, W).

    Raises
    ------
    FormatError
        for images that were changed, and for another secret.
    """
    found = []
    for begin in range(0, len(hidden.pixels), CHUNK):
        part = slice(begin, begin + CHUNK)
        found.append(_reveal(Hidden(hidden.pixels[part], hidden.rooms[part]), plan, secret, names[part]))
    return torch.cat(found)


def _hide(originals: Tensor, shifts: Tensor, plan: Shifts, secret: bytes, names: Sequence[str]) -> Hidden:
    count, levels = len(originals), 2 * (plan.eps // plan.unit) + 1
    symbols = shifts.reshape(count, -1).numpy().astype(np.int64) + plan.eps // plan.unit
    code, sizes = rans.encode(symbols, np.full(count, symbols.shape[1]), levels, checks=_checks(originals))
    bits = code ^ _streams(sizes, secret, names)
    shifted = (originals.to(torch.int16) + plan.spread(shifts, originals.shape)).to(torch.uint8)
    marked, room = rdh.embed(shifted.numpy(), bits, sizes, block=plan.block)
    rooms = np.stack([room.threshold, room.first, room.second], 1)
    return Hidden(torch.from_numpy(marked), torch.from_numpy(rooms))


def _reveal(hidden: Hidden, plan: Shifts, secret: bytes, names: Sequence[str]) -> Tensor:
    pixels = hidden.pixels.numpy()
    threshold, first, second = hidden.rooms.numpy().T.astype(np.int64)
    bits, shifted = rdh.extract(pixels, rdh.Room(threshold, first, second), block=plan.block)
    grid = plan.limits(hidden.pixels[:1])[0].shape[1:]
    clear = bits ^ _streams(np.full(len(bits), bits.shape[1]), secret, names)
    count, reach = int(np.prod(grid)), plan.eps // plan.unit
    symbols, checks, _ = rans.decode(clear, np.full(len(bits), count), 2 * reach + 1)
    shifts = torch.from_numpy(symbols - reach).to(torch.int16).reshape(len(bits), *grid)
    whole = torch.from_numpy(shifted).to(torch.int16) - plan.spread(shifts, hidden.pixels.shape)
    if bool(((whole < 0) | (whole > 255)).any()):
        raise FormatError("what is hidden in the images does not fit them")
    originals = whole.to(torch.uint8)
    if bool((_checks(originals) != checks).any()):
        raise FormatError("the checksum of what is hidden in the images does not fit them")
    return originals


def _checks(pixels: Tensor) -> NDArray[np.int64]:
    """Return the CRC-16 of each image."""
    return np.array([binascii.crc_hqx(image.tobytes(), 0xFFFF) for image in pixels.contiguous().numpy()], np.int64)


def _streams(sizes: NDArray[np.int64], secret: bytes, names: Sequence[str]) -> U8:
    """Return the stream of each image (N, B), zeros beyond its own size."""
    bits = np.zeros((len(names), int(sizes.max(initial=0))), np.uint8)
    for row, (name, size) in enumerate(zip(names, sizes.tolist(), strict=True)):
        bits[row, :size] = stream_bits(secret, size, "shifts", name)
    return bits
