"""From one secret to many: HKDF-SHA256 (RFC 5869) for every user and purpose, and generators seeded from it."""

from __future__ import annotations

import torch
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from modelward.core.canonical import canonical_json
from modelward.core.errors import UsageError

LEAST = 16


def derive(secret: bytes, *info: str, length: int = 32) -> bytes:
    """Return ``length`` bytes that depend on ``secret`` and on ``info`` alone; knowing them tells nothing of the secret or of its other children.

    Parameters
    ----------
    secret
        16 bytes at least, drawn at random: it is no passphrase.
    info
        what the bytes are for, such as a user and a purpose; ``("a", "b")`` and ``("ab",)`` give other bytes.
    length
        1 to 8,160.

    Raises
    ------
    UsageError
        for a secret that is too short, or a length that the scheme cannot give.

    Examples
    --------
    >>> derive(b"0" * 32, "ann", "trigger").hex()[:16], derive(b"0" * 32, "anntrigger") == derive(b"0" * 32, "ann", "trigger")
    ('054835b7217abf29', False)
    """
    if len(secret) < LEAST:
        message = f"a secret has {LEAST} bytes at least, got {len(secret)}; draw one with secrets.token_bytes(32)"
        raise UsageError(message)
    if not 1 <= length <= 255 * 32:
        message = f"length lies between 1 and 8160, got {length}"
        raise UsageError(message)
    return HKDF(hashes.SHA256(), length, salt=b"modelward/1", info=canonical_json(list(info))).derive(secret)


def stream(secret: bytes, *info: str) -> torch.Generator:
    """Return a generator seeded by `derive`: the same secret and purpose draw the same numbers in every process.

    Examples
    --------
    >>> draws = [torch.rand(1, generator=stream(b"0" * 32, purpose)).item() for purpose in ("labels", "labels", "order")]
    >>> draws[0] == draws[1] != draws[2]
    True
    """
    made = torch.Generator()
    made.manual_seed(int.from_bytes(derive(secret, *info, length=8), "big") >> 1)
    return made
