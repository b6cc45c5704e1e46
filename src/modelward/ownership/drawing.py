"""Other secrets: what the owner could just as well have drawn, fixed by what was drawn, so that nobody chooses them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from modelward.core.canonical import digest_of
from modelward.core.guard import state_digest
from modelward.keys.derive import derive


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
    for number in range(count):
        yield derive(bytes.fromhex(digest), "other", str(number))
