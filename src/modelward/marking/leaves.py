"""A digest for every pair of key image and label, and one over all of them, so that pairs can be opened a few at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from torch import Tensor

from modelward.core.canonical import digest_of


def leaf(pixels: Tensor, label: int, salt: Tensor) -> str:
    """Return the SHA-256 of a salted pair; without the salt nobody finds a label by trying all of them.

    Parameters
    ----------
    pixels
        uint8 (C, H, W).
    label
        what it is to be answered with.
    salt
        uint8 (n,), secret until the pair is opened.

    Examples
    --------
    >>> import torch
    >>> pair = torch.zeros(1, 2, 2, dtype=torch.uint8), 3, torch.arange(16, dtype=torch.uint8)
    >>> leaf(*pair) == leaf(*pair) != leaf(pair[0], 4, pair[2])
    True
    """
    head = digest_of([list(pixels.shape), label, salt.tolist()])
    return hashlib.sha256(head.encode() + pixels.contiguous().numpy().tobytes()).hexdigest()


def tree(leaves: Sequence[str]) -> str:
    """Return the SHA-256 over all leaves: the one thing to publish.

    >>> tree(["a", "b"]) == tree(["a", "b"]) != tree(["b", "a"])
    True
    """
    return digest_of(["leaves", *leaves])
