"""Sealing: a parameter key that only credentials open, each by its own slot, as disks are encrypted for several users."""

from __future__ import annotations

import base64
import binascii
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from torch import Tensor

from modelward.core.canonical import canonical_json, digest_bytes
from modelward.core.errors import InputError
from modelward.keys.derive import derive

# every key below encrypts one text only, so that a fixed nonce is never used twice under one key
NONCE = bytes(12)
MAC = 32


def pixel_digest(pixels: Tensor) -> str:
    """Return the SHA-256 over the shape and the bytes of uint8 images (m, C, H, W)."""
    return digest_bytes(f"{tuple(pixels.shape)}\n".encode() + pixels.contiguous().numpy().tobytes())


def mac_of(secret: bytes, user: str, pixels: Tensor) -> bytes:
    """Return HMAC-SHA256(secret, user id and SHA-256 of the pixels).

    Examples
    --------
    >>> import torch
    >>> pixels = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    >>> mac_of(b"0" * 32, "ann", pixels) == mac_of(b"0" * 32, "bob", pixels)
    False
    """
    return hmac.digest(secret, canonical_json(["activeguard", user, pixel_digest(pixels)]), "sha256")


class SlotKey:
    """What a credential opens: the key of one slot, and the tag by which the slot is found.

    Parameters
    ----------
    mac, pixels
        of the credential: whoever has only the images, or only the MAC, has neither key nor tag.
    build
        digest of the locked network; a slot of another build does not open.

    Examples
    --------
    >>> import torch
    >>> pixels = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    >>> key = SlotKey(b"m" * 32, pixels, "00")
    >>> SlotKey(b"m" * 32, pixels, "00").opened(key.wrapped(b"content", b"about"), b"about")
    b'content'
    """

    def __init__(self, mac: bytes, pixels: Tensor, build: str) -> None:
        digest = pixel_digest(pixels)
        self.tag = derive(mac, "slot tag", digest, build, length=16).hex()
        self._key = derive(mac, "slot key", digest, build)

    def wrapped(self, content: bytes, about: bytes) -> str:
        """Return ``content`` encrypted and bound to ``about``, as text."""
        return base64.b64encode(ChaCha20Poly1305(self._key).encrypt(NONCE, content, about)).decode()

    def opened(self, slot: str, about: bytes) -> bytes:
        """Return what is in a slot; raises `InputError` when this is not its key, or ``about`` was changed."""
        try:
            return ChaCha20Poly1305(self._key).decrypt(NONCE, base64.b64decode(slot, validate=True), about)
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise InputError("this credential does not open its slot: one of the two was altered") from error


def sealed(key: bytes, content: bytes, build: str) -> bytes:
    """Return ``content`` encrypted under ``key`` and bound to a build.

    Examples
    --------
    >>> unsealed(b"k" * 32, sealed(b"k" * 32, b"entries", "00"), "00")
    b'entries'
    """
    return ChaCha20Poly1305(key).encrypt(NONCE, content, build.encode())


def unsealed(key: bytes, content: bytes, build: str) -> bytes:
    """Return what `sealed` took; raises `InputError` for another key, another build or altered bytes."""
    try:
        return ChaCha20Poly1305(key).decrypt(NONCE, content, build.encode())
    except (InvalidTag, ValueError) as error:
        raise InputError("the sealed parameter key of this network does not open: it was altered, or is of another build") from error
