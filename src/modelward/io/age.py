"""Encryption at rest: age (C2SP), by passphrase or X25519 recipients, and nothing else. Secrets never come from argv."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pyrage

from modelward.core.errors import FormatError, UsageError
from modelward.io.files import read_bytes

MAGIC = b"age-encryption.org/v1\n"
VARIABLE = "MODELWARD_PASSPHRASE"
SECRET_CAP = 4096


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
        raw = read_bytes(file, cap=SECRET_CAP) if file is not None else os.read(fd or 0, SECRET_CAP)
        lines = raw.decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        message = f"the passphrase cannot be read: {error}"
        raise UsageError(message) from error
    return Secret(lines[0] if lines else "")


def is_encrypted(data: bytes) -> bool:
    """Return whether ``data`` is an age file."""
    return data.startswith(MAGIC)


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
    FormatError
        one sentence for a wrong passphrase and for a damaged file alike.
    """
    if passphrase is None and not identities:
        message = f"{name} is encrypted; give its passphrase with --passphrase-file, --passphrase-fd or ${VARIABLE}"
        raise UsageError(message)
    try:
        if passphrase is not None:
            return bytes(pyrage.passphrase.decrypt(data, passphrase.reveal()))
        return bytes(pyrage.decrypt(data, [pyrage.x25519.Identity.from_str(secret.reveal()) for secret in identities]))
    except (pyrage.DecryptError, pyrage.IdentityError, ValueError) as error:
        message = f"{name} cannot be opened: the passphrase is wrong or the file is damaged"
        raise FormatError(message) from error
