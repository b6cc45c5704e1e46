"""Encryption at rest: age (C2SP), by passphrase or X25519 recipients, and nothing else. Secrets never come from argv."""

from __future__ import annotations

import mmap
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pyrage

from modelward.core.errors import FormatError, UnsafeFileError, UsageError
from modelward.io.files import read_bytes

MAGIC = b"age-encryption.org/v1\n"
VARIABLE = "MODELWARD_PASSPHRASE"
SECRET_CAP = 4096
SCRYPT_CAP = 22
SPARE = 64 * 2**20
TRIES, PAUSE = 10, 0.2
_SCRYPT = re.compile(rb"\n-> scrypt \S+ (\d+)\n")


class Secret:
    """A text that no log, error or report shows.

    >>> Secret("open sesame")
    Secret(***)
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not text:
            raise UsageError("a passphrase cannot be empty")
        self._text = text

    def reveal(self) -> str:
        """Return the text itself, for the one call that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is never pickled")


def read_secret(*, file: Path | None = None, fd: int | None = None) -> Secret | None:
    """Return a passphrase from a file, an open descriptor, or ``$MODELWARD_PASSPHRASE``; ``None`` when there is none.

    Of files and descriptors the first line counts.

    Raises
    ------
    UsageError
        when the source is empty, unreadable or not text.
    """
    if file is not None and fd is not None:
        raise UsageError("give the passphrase in one place: --passphrase-file or --passphrase-fd")
    if file is None and fd is None:
        text = os.environ.get(VARIABLE)
        return Secret(text) if text else None
    try:
        raw = read_bytes(file, cap=SECRET_CAP) if file is not None else _read_line(fd or 0)
        line = raw.decode("utf-8-sig").partition("\n")[0].removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        message = f"the passphrase cannot be read: {error}"
        raise UsageError(message) from error
    return Secret(line)


def _read_line(fd: int) -> bytes:
    """Return what comes out of a descriptor up to the first line end, however many pieces it comes in."""
    data = b""
    while b"\n" not in data and len(data) < SECRET_CAP and (piece := os.read(fd, SECRET_CAP)):
        data += piece
    return data


def is_encrypted(data: bytes) -> bool:
    """Return whether ``data`` is an age file."""
    return data.startswith(MAGIC)


def _obtainable(size: int) -> bool:
    """Return whether ``size`` bytes of memory can be had: scrypt ends the process when they cannot."""
    try:
        mmap.mmap(-1, size + SPARE).close()
    except (OSError, ValueError, OverflowError, MemoryError):
        return False
    return True


def encrypt(data: bytes, *, passphrase: Secret | None = None, recipients: Sequence[str] = ()) -> bytes:
    """Return ``data`` as an age file for a passphrase, or for X25519 recipients (``age1...``)."""
    if (passphrase is None) == (not recipients):
        raise UsageError("encrypt either to a passphrase or to recipients")
    if passphrase is not None:
        return bytes(pyrage.passphrase.encrypt(data, passphrase.reveal()))
    try:
        keys = [pyrage.x25519.Recipient.from_str(text) for text in recipients]
    except pyrage.RecipientError as error:
        raise UsageError("a recipient is an age public key, age1...") from error
    return bytes(pyrage.encrypt(data, keys))


def decrypt(data: bytes, *, passphrase: Secret | None = None, identities: Sequence[Secret] = (), name: str = "the file") -> bytes:
    """Return the content of an age file.

    Raises
    ------
    UsageError
        when neither a passphrase nor an identity is given.
    UnsafeFileError
        when the file asks for more than 2**22 rounds of scrypt (4 GiB of memory), the bound of the age tool itself, or for more memory
        than can be had.
    FormatError
        one sentence for a wrong passphrase and for a damaged file alike.

    Examples
    --------
    >>> owner = pyrage.x25519.Identity.generate()
    >>> decrypt(encrypt(b"mine", recipients=[str(owner.to_public())]), identities=[Secret(str(owner))])
    b'mine'
    """
    if passphrase is None and not identities:
        message = f"{name} is encrypted; give its passphrase with --passphrase-file, --passphrase-fd or ${VARIABLE}"
        raise UsageError(message)
    rounds = _SCRYPT.search(data[:1024])
    if rounds and int(rounds[1][:4]) > SCRYPT_CAP:
        message = f"{name} was refused: it asks for 2**{int(rounds[1][:4])} rounds of scrypt, more than the 2**{SCRYPT_CAP} that are spent on a key"
        raise UnsafeFileError(message)
    if rounds and not _obtainable(2 ** (int(rounds[1][:4]) + 10)):
        message = f"{name} was refused: its scrypt takes {2 ** int(rounds[1][:4]) // 2**10:,} MiB of memory, more than can be had"
        raise UnsafeFileError(message)
    try:
        if passphrase is not None:
            return _patiently(data, passphrase, name)
        return bytes(pyrage.decrypt(data, [pyrage.x25519.Identity.from_str(secret.reveal()) for secret in identities]))
    except (pyrage.DecryptError, pyrage.IdentityError, ValueError) as error:
        message = f"{name} cannot be opened: the passphrase is wrong or the file is damaged"
        raise FormatError(message) from error


def _patiently(data: bytes, passphrase: Secret, name: str) -> bytes:
    """Return what a passphrase opens, also on a busy machine.

    The library times itself for a millisecond to find out what work this machine can stand; on a busy one it finds too little, and refuses a
    file that it wrote itself. What may be spent was checked already, so it is asked again.
    """
    for _ in range(TRIES):
        try:
            return bytes(pyrage.passphrase.decrypt(data, passphrase.reveal()))
        except pyrage.DecryptError as error:
            if "xcessive work" not in str(error):
                raise
        time.sleep(PAUSE)
    message = f"{name} takes more work to open than this machine can spend now; try again when it is less busy"
    raise FormatError(message)
