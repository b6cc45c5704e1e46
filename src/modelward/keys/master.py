"""The master secret: one file from which the secret of every user and purpose is derived, in generations that can be rotated."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from modelward.core.canonical import canonical_json, digest_bytes
from modelward.core.errors import FormatError, InputError, UnsafeFileError, UsageError
from modelward.io.age import Secret, decrypt, encrypt, is_encrypted
from modelward.io.atomic import write_bytes
from modelward.io.files import read_bytes
from modelward.keys.derive import derive

SCHEMA = "modelward/master"
VERSION = 1
CAP = 2**20
SIZE = 32
SHARED = "*"  # no user may be called that


class Master:
    """Master secrets by generation; the newest is the one that grants are issued under, the older ones still derive what they derived.

    Parameters
    ----------
    generations
        32 random bytes for each of 1, 2, ...

    Examples
    --------
    >>> master = Master.fresh()
    >>> before = master.secret("ann", "zhang")
    >>> rotated = master.rotated()
    >>> rotated.secret("ann", "zhang") == before, rotated.secret("ann", "zhang", generation=1) == before
    (False, True)
    >>> rotated
    Master(2 generations, ***)
    """

    __slots__ = ("_generations",)

    def __init__(self, generations: Mapping[int, bytes]) -> None:
        whole = list(generations) == [*range(1, len(generations) + 1)] and all(len(value) == SIZE for value in generations.values())
        if not whole or not generations:
            message = f"a master secret has generations 1, 2, ... of {SIZE} bytes each"
            raise UsageError(message)
        self._generations = dict(generations)

    @classmethod
    def fresh(cls) -> Master:
        """Return a new master secret of the operating system's random numbers."""
        return cls({1: secrets.token_bytes(SIZE)})

    @property
    def generation(self) -> int:
        """The newest generation."""
        return len(self._generations)

    def rotated(self) -> Master:
        """Return a master secret with one more generation; the old ones are kept."""
        return Master({**self._generations, self.generation + 1: secrets.token_bytes(SIZE)})

    def secret(self, user: str, purpose: str, *, generation: int | None = None) -> bytes:
        """Return the 32 bytes of a user for a purpose, HKDF-SHA256 of the generation's secret; raises `UsageError` for an unknown generation."""
        number = generation or self.generation
        if number not in self._generations:
            message = f"this master secret has the generations 1 to {self.generation}, not {number}: it is older than the grant"
            raise UsageError(message)
        return derive(self._generations[number], "user", str(number), user, purpose)

    def shared(self, purpose: str, *, generation: int | None = None) -> bytes:
        """Return the 32 bytes that all users of a purpose have in common, for codes that tell users apart by their numbers."""
        return derive(self.secret(SHARED, purpose, generation=generation), "shared")

    def packed(self) -> bytes:
        """Return the content of its file, in plain."""
        content = {"schema": SCHEMA, "version": VERSION, "generations": {str(n): value.hex() for n, value in self._generations.items()}}
        return canonical_json(content | {"digest": digest_bytes(canonical_json(content))})

    def __repr__(self) -> str:
        return f"Master({self.generation} generation{'s' * (self.generation > 1)}, ***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a master secret is never pickled")


def secret_digest(secret: bytes) -> str:
    """Return the SHA-256 by which the registry knows a user's secret again; nobody finds the 32 random bytes from it."""
    return digest_bytes(b"modelward user secret\n" + secret)


def write_master(path: Path | str, master: Master, *, passphrase: Secret | None = None, replace: bool = False) -> None:
    """Write a master secret (mode 0600), encrypted with age when a passphrase is given; ``replace`` rotates a file that is there."""
    if not replace and Path(path).exists():
        message = f"{path} exists, and a master secret is never overwritten: every user's secret hangs on it; pass another name"
        raise UsageError(message)
    data = master.packed()
    write_bytes(path, encrypt(data, passphrase=passphrase) if passphrase is not None else data, mode=0o600)


def read_master(path: Path | str, *, passphrase: Secret | None = None) -> Master:
    """Read a master secret.

    Raises
    ------
    InputError
        when there is none.
    UsageError
        when it is encrypted and no passphrase was given.
    UnsafeFileError
        when it was altered.
    FormatError
        when it is none, of a newer version, or the passphrase is wrong.
    """
    path = Path(path)
    if not path.exists():
        message = f"there is no master secret {path}; make one with: modelward key new-master --out {path}"
        raise InputError(message)
    data = read_bytes(path, cap=CAP)
    if is_encrypted(data):
        data = decrypt(data, passphrase=passphrase, name=path.name)
    return _parsed(data, path.name)


def _parsed(data: bytes, name: str) -> Master:
    """Return the master secret in the content of a file; no sentence repeats any of that content."""
    try:
        content: Any = json.loads(data)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        message = f"{name} is no master secret of modelward, or it is damaged"
        raise FormatError(message)
    if isinstance(content.get("version"), int) and content["version"] > VERSION:
        message = f"{name} was made by a newer modelward (version {content['version']}, this one reads up to {VERSION}); update modelward"
        raise FormatError(message)
    digest = content.pop("digest", "")
    if data != canonical_json(content | {"digest": digest}) or digest != digest_bytes(canonical_json(content)):
        message = f"{name} was altered or is damaged: its digest does not match; restore it from its backup"
        raise UnsafeFileError(message)
    try:
        return Master({int(number): bytes.fromhex(value) for number, value in content["generations"].items()})
    except (AttributeError, KeyError, TypeError, ValueError, UsageError):
        message = f"{name} is no master secret of modelward, or it is damaged"
        raise FormatError(message) from None
