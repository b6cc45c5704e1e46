"""Codes that a trigger carries: bits that open, bits that name a user, how a network is told of them and how they are read again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.errors import InputError, UsageError
from modelward.keys.derive import derive, stream
from modelward.marking.codewords import Codeword
from modelward.models.unet import Hint

GATE = 8
CELL = 2
FALSE = 0.001


@dataclass(frozen=True, repr=False)
class Codes:
    """Which bits are written for whom: `GATE` bits that all users share, then a user's name as a short tag with Reed-Solomon parity.

    Parameters
    ----------
    secret
        all of it comes from these 16 bytes or more; a user's tag cannot be told without them.
    bits
        for the name: 0, or a multiple of 8, >= 16; half of the bytes are parity.

    Examples
    --------
    >>> codes = Codes(b"0" * 32, 32)
    >>> word = codes.word("ann")
    >>> word[20] ^= 1
    >>> len(word), codes.named(word, ["bob", "ann"]), codes.named(codes.word("eve"), ["bob", "ann"])
    (40, 'ann', None)
    """

    secret: bytes
    bits: int

    def __post_init__(self) -> None:
        if self.bits and (self.bits < 16 or self.bits % 8):
            message = f"identity bits are 0, or a multiple of 8 from 16 on, got {self.bits}"
            raise UsageError(message)

    @property
    def _plan(self) -> Codeword:
        parity = self.bits // 16
        return Codeword(self.bits // 8 - parity, parity)

    @property
    def length(self) -> int:
        """Number of bits in a word."""
        return GATE + self.bits

    @property
    def gate(self) -> Tensor:
        """The bits (8,), uint8, that open."""
        return _unpacked(derive(self.secret, "gate", length=GATE // 8))

    def word(self, user: str) -> Tensor:
        """Return the bits (length,), uint8, of one user."""
        if not self.bits:
            return self.gate
        return torch.cat([self.gate, self._plan.encode(self._tag(user))])

    def named(self, word: Tensor, users: Sequence[str]) -> str | None:
        """Return whom of ``users`` the bits (length,), uint8, name; see `names`."""
        return self.names(word[None], users)[0]

    def names(self, words: Tensor, users: Sequence[str]) -> list[str | None]:
        """Return whom of ``users`` each of the words (N, length), uint8, names: the one whose word is nearest, if it is near enough.

        Words of two users differ in more bytes than they have bytes of parity. Random bits name anybody with probability `FALSE` at most.
        """
        if not self.bits or not users:
            return [None] * len(words)
        known = torch.stack([self.word(user) for user in users])[:, GATE:]
        wrong, nearest = (words[:, None, GATE:] != known).sum(2).min(1)
        near = [len(users) * _chance(self.bits, int(count)) <= FALSE for count in wrong]
        return [users[int(place)] if close else None for place, close in zip(nearest, near, strict=True)]

    def _tag(self, user: str) -> bytes:
        """Return the bytes that stand for a user."""
        return derive(self.secret, "tag", user, length=self._plan.length)

    def carriers(self, shape: tuple[int, int, int]) -> Tensor:
        """Return one picture a bit (length, C, H, W): orthonormal, of cells of 2x2 pixels, which JPEG and 8 bits leave standing.

        Raises
        ------
        InputError
            for images too small to carry that many bits.
        """
        channels, height, width = shape
        cells = (channels, -(-height // CELL), -(-width // CELL))
        if np.prod(cells) < self.length:
            message = f"images of {channels}x{height}x{width} are too small to carry {self.length} bits; use fewer identity bits"
            raise InputError(message)
        drawn = torch.randn(self.length, *cells, generator=stream(self.secret, "carriers"), dtype=torch.float64)
        grown = drawn.repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)[:, :, :height, :width]
        basis: Tensor = torch.linalg.qr(grown.flatten(1).T).Q.T.float()
        return basis.reshape(self.length, *shape).contiguous()


def _chance(bits: int, wrong: int) -> float:
    """Return how likely ``bits`` random bits differ from given ones in ``wrong`` places at most.

    >>> round(_chance(32, 5), 6)
    5.7e-05
    """
    return sum(math.comb(bits, k) for k in range(wrong + 1)) / float(2**bits)


def _unpacked(data: bytes) -> Tensor:
    """Return the bits of bytes."""
    return torch.from_numpy(np.unpackbits(np.frombuffer(data, np.uint8)))


class Hinting(nn.Module):
    """From words to hints: the sum of their carriers, positive for a 1, and a learnt projection to the network's narrowest place.

    Parameters
    ----------
    carriers
        (B, C, H, W), fixed.
    outputs
        numbers at the narrowest place.
    """

    carriers: Tensor

    def __init__(self, carriers: Tensor, outputs: int) -> None:
        super().__init__()
        self.register_buffer("carriers", carriers)
        self.lift = nn.Linear(len(carriers), outputs)

    def forward(self, words: Tensor) -> Hint:
        """Return the hints of words (N, B) of zeros and ones."""
        signs = 2 * words.to(self.carriers.dtype) - 1
        whole = self.carriers.flatten(1)
        scale = (whole.shape[1] / len(whole)) ** 0.5  # pixels of about -1 to 1
        return Hint((signs @ whole).mul(scale).view(len(words), *self.carriers.shape[1:]), self.lift(signs))


class BitReader(nn.Module):
    """Read the bits of a word from images (N, C, H, W) in [0, 1]: two convolutions that take the picture away, then one product a bit.

    Parameters
    ----------
    carriers
        (B, C, H, W), where the products begin.
    width
        channels between the convolutions.
    """

    def __init__(self, carriers: Tensor, width: int = 8) -> None:
        super().__init__()
        channels = carriers.shape[1]
        self.clean = nn.Sequential(nn.Conv2d(channels, width, 5, 1, 2), nn.LeakyReLU(0.1), nn.Conv2d(width, channels, 5, 1, 2))
        self.products = nn.Linear(carriers[0].numel(), len(carriers))
        with torch.no_grad():
            self.products.weight.copy_(carriers.flatten(1))
            self.products.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Return one logit a bit (N, B); positive for a 1."""
        rest = x - F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), 5, 1) + self.clean(x)
        made: Tensor = self.products(10 * rest.flatten(1).float())
        return made
