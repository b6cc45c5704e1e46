"""Whose copy a recovered image set is: a name in the lowest bits, for the owner to read where the copy turns up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from modelward.core.errors import InputError
from modelward.keys.derive import derive
from modelward.marking.payload import Payload

TABLE = 65_536


def _payload(pixels: Tensor, secret: bytes) -> Payload:
    """Return the writer of names for images of this shape."""
    channels, height, width = pixels.shape[1:]
    return Payload(derive(secret, "customers"), (channels, height, width))


def mark(pixels: Tensor, user: str, secret: bytes) -> Tensor:
    """Return images (N, C, H, W), uint8, that carry a customer's name; no pixel changes by more than one grey level.

    Examples
    --------
    >>> import torch
    >>> images = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    >>> copy = mark(images, "ann", b"0" * 32)
    >>> int((copy.int() - images.int()).abs().max()), trace(copy, ["bob", "ann"], b"0" * 32), trace(images, ["bob", "ann"], b"0" * 32)
    (1, {'ann': 3}, {})
    """
    return _payload(pixels, secret).write(pixels, [user] * len(pixels), [i % TABLE for i in range(len(pixels))])


def trace(pixels: Tensor, users: Sequence[str], secret: bytes) -> dict[str, int]:
    """Return how many images name which of ``users``; a name counts only with its MAC, which covers the image.

    Raises
    ------
    InputError
        for no users to look for.
    """
    if not users:
        raise InputError("there is nobody to look for; pass the customers whom copies were made for")
    found = (reading.user for reading in _payload(pixels, secret).read(pixels, users))
    return dict(Counter(user for user in found if user is not None).most_common())
