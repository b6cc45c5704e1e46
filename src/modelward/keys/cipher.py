"""A key of its own for every item of a set: a stream to hide bits under, and sealed boxes that open whole or not at all."""

from __future__ import annotations

import hmac
import secrets

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from modelward.core.errors import FormatError
from modelward.keys.derive import derive

ZERO = bytes(16)


def fresh_secret() -> bytes:
    """Return 32 bytes of the operating system's random numbers."""
    return secrets.token_bytes(32)


def stream_bits(secret: bytes, count: int, *info: str) -> NDArray[np.uint8]:
    """Return the first ``count`` bits (0 and 1) of AES-256 in counter mode under a key that is derived for ``info`` alone.

    Nothing that two different messages may be hidden under: ``info`` must name the message.

    Examples
    --------
    >>> stream_bits(b"0" * 32, 8, "set", "image 3").tolist()
    [0, 0, 1, 0, 0, 0, 1, 1]
    """
    encryptor = Cipher(algorithms.AES(derive(secret, "stream", *info)), modes.CTR(ZERO)).encryptor()
    return np.unpackbits(np.frombuffer(encryptor.update(bytes((count + 7) // 8)), np.uint8))[:count]


def seal(secret: bytes, data: bytes, *info: str) -> bytes:
    """Return ``data`` under AES-256-GCM, with a key that is derived for ``info`` alone; ``info`` must name what is sealed."""
    return AESGCM(derive(secret, "box", *info)).encrypt(ZERO[:12], data, None)


def unseal(secret: bytes, box: bytes, *info: str) -> bytes:
    """Return what `seal` was given.

    Raises
    ------
    FormatError
        for another key, and for a box of which a single bit was changed.

    Examples
    --------
    >>> unseal(b"0" * 32, seal(b"0" * 32, b"hello", "x"), "x")
    b'hello'
    >>> unseal(b"1" * 32, seal(b"0" * 32, b"hello", "x"), "x")
    Traceback (most recent call last):
    modelward.core.errors.FormatError: the box does not open: its key is another one, or it was changed
    """
    try:
        return AESGCM(derive(secret, "box", *info)).decrypt(ZERO[:12], box, None)
    except (InvalidTag, ValueError) as error:
        raise FormatError("the box does not open: its key is another one, or it was changed") from error


def mac(secret: bytes, data: bytes, *info: str) -> str:
    """Return 16 bytes of HMAC-SHA256 in hex: who lacks the secret can neither make it nor test a guess of ``data`` with it."""
    return hmac.digest(derive(secret, "mac", *info), data, "sha256")[:16].hex()
