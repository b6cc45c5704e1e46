"""Bytes that come through a noisy channel: Reed-Solomon parity, as much as there is room for, then repetition by majority."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modelward.core.errors import InputError

MOST_PARITY = 14


@dataclass(frozen=True)
class Codeword:
    """How a message of ``length`` bytes becomes bits.

    Parameters
    ----------
    length
        bytes of the message.
    parity
        bytes of Reed-Solomon parity over GF(256); half as many wrong bytes are mended.
    copies
        how often the codeword is written; odd, so that a majority decides.

    Examples
    --------
    >>> plan = Codeword.fitting(18, 784)
    >>> plan
    Codeword(length=18, parity=14, copies=3)
    >>> bits = plan.encode(bytes(18))
    >>> bits[:100] ^= 1
    >>> plan.decode(bits) == bytes(18)
    True
    """

    length: int
    parity: int = 0
    copies: int = 1

    @classmethod
    def fitting(cls, length: int, capacity: int, *, mended: bool = True) -> Codeword:
        """Return the strongest plan for ``capacity`` bits; ``mended=False`` writes the bare message.

        Raises
        ------
        InputError
            when the bare message does not fit.
        """
        if 8 * length > capacity:
            message = f"a payload of {8 * length} bits does not fit an image that holds {capacity}; use larger images"
            raise InputError(message)
        if not mended:
            return cls(length)
        parity = min(MOST_PARITY, capacity // 8 - length)
        copies = capacity // (8 * (length + parity))
        return cls(length, parity, copies - (copies + 1) % 2)

    @property
    def bits(self) -> int:
        """Number of bits that are written."""
        return 8 * (self.length + self.parity) * self.copies

    def encode(self, message: bytes) -> Tensor:
        """Return the bits (B,), uint8, of a message of ``length`` bytes."""
        from reedsolo import RSCodec

        if len(message) != self.length:
            text = f"this codeword carries {self.length} bytes, got {len(message)}"
            raise InputError(text)
        word = bytes(RSCodec(self.parity).encode(message)) if self.parity else message
        return torch.from_numpy(np.unpackbits(np.frombuffer(word, np.uint8))).repeat(self.copies)

    def decode(self, bits: Tensor) -> bytes | None:
        """Return the message in bits (B,), or ``None`` when more bytes are wrong than the parity mends."""
        from reedsolo import ReedSolomonError, RSCodec

        votes = bits.view(self.copies, -1).to(torch.int64).sum(0) * 2 > self.copies
        word = np.packbits(votes.numpy()).tobytes()
        if not self.parity:
            return word
        try:
            return bytes(RSCodec(self.parity).decode(word)[0])
        except ReedSolomonError:
            return None
