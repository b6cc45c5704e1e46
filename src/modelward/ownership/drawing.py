"""Other secrets: what the owner could just as well have drawn, fixed by what was drawn, so that nobody chooses them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from modelward.core.canonical import digest_of
from modelward.core.errors import FormatError
from modelward.core.guard import state_digest
from modelward.core.key import REMEDY
from modelward.keys.derive import derive

SECRET = 32
NEAR, SHARE = 2.0, 0.95
UNDRAWN = "The {what} in this key are not those that its secret gives: nothing says that they were drawn, so that nothing can be concluded."


def committed_digest(method: str, variant: str, source: str, settings: Mapping[str, Any], material: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of what a mark is before other secrets are drawn beside it; a commitment to the key covers it.

    Parameters
    ----------
    method, variant, settings
        who draws, and by which recipe.
    source
        digest of the model that the mark is drawn for, unmarked.
    material
        what the owner's secret gave: key images, labels, places.
    """
    return digest_of([method, variant, source, dict(settings), state_digest(material)])


def other_secrets(digest: str, count: int) -> Iterator[bytes]:
    """Yield ``count`` further secrets, which the digest of the owner's own fixes.

    Examples
    --------
    >>> [secret.hex()[:8] for secret in other_secrets("00" * 32, 2)] == [secret.hex()[:8] for secret in other_secrets("00" * 32, 3)][:2]
    True
    """
    try:
        drawn = bytes.fromhex(digest)
    except ValueError:
        message = f"a key's other secrets come from a digest, which this key does not hold: {REMEDY}"
        raise FormatError(message) from None
    for number in range(count):
        yield derive(drawn, "other", str(number))


def secret_of(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the secret that a key's projection is drawn from; raises `FormatError` for a key that holds none."""
    seed = tensors.get("seed")
    if seed is None or seed.dtype != torch.uint8 or seed.shape != (SECRET,):
        message = f"a mark's key holds a secret of {SECRET} bytes, this one does not: {REMEDY}"
        raise FormatError(message)
    return bytes(seed.tolist())


def seed_tensor(secret: bytes) -> Tensor:
    """Return a secret as a tensor of bytes, for a key."""
    return torch.tensor(list(secret), dtype=torch.uint8)


def alike(held: Tensor, drawn: Tensor) -> bool:
    """Return whether key images (N, C, H, W), uint8, are those that were drawn again, but for another machine's rounding.

    A few of them may differ by more: one in twenty is too few to hide images that were chosen.
    """
    if held.shape != drawn.shape or held.dtype != torch.uint8:
        return False
    away = (held.to(torch.int16) - drawn.to(torch.int16)).abs().float().flatten(1).mean(1)
    return bool((away <= NEAR).double().mean() >= SHARE)
