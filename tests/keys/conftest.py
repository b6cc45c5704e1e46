"""age files whose scrypt takes a blink, written by the specification; and a time-stamping authority that exists for one test run."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF


def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=salt, info=info).derive(key)


def encode(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


def quick_age(data: bytes, passphrase: str, rounds: int = 14) -> bytes:
    """Return ``data`` (at most 64 KiB) as an age file for a passphrase with 2**rounds of scrypt."""
    file_key, salt, nonce = os.urandom(16), os.urandom(16), os.urandom(16)
    wrapping = hashlib.scrypt(
        passphrase.encode(), salt=b"age-encryption.org/v1/scrypt" + salt, n=2**rounds, r=8, p=1, maxmem=2**28, dklen=32
    )
    body = encode(ChaCha20Poly1305(wrapping).encrypt(bytes(12), file_key, None))
    head = b"age-encryption.org/v1\n-> scrypt " + encode(salt) + b" " + str(rounds).encode() + b"\n" + body + b"\n---"
    seal = hmac.new(hkdf(file_key, b"", b"header"), head, hashlib.sha256).digest()
    sealed = ChaCha20Poly1305(hkdf(file_key, nonce, b"payload")).encrypt(bytes(11) + b"\x01", data, None)
    return head + b" " + encode(seal) + b"\n" + nonce + sealed


@pytest.fixture(scope="session")
def quick() -> Callable[..., bytes]:
    """Return the maker of age files that open quickly."""
    return quick_age
