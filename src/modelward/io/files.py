"""Reading whole files, with a cap before and a digest after."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from modelward.core.errors import FormatError, InputError, UnsafeFileError

CHUNK = 2**20


def _open(path: Path) -> int:
    """Open a regular file without blocking on pipes or devices."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        message = f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise InputError(message) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        message = f"{path} is not a regular file"
        raise InputError(message)
    return handle


def read_bytes(path: Path | str, *, cap: int, digest: str | None = None) -> bytes:
    """Return the content of a regular file of at most ``cap`` bytes.

    Raises
    ------
    InputError
        when there is no such regular file.
    UnsafeFileError
        when it is larger than ``cap`` (checked before reading), or its SHA-256 is not ``digest``.
    """
    path = Path(path)
    with os.fdopen(_open(path), "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > cap:
            message = f"{path.name} has {size:,} bytes, more than the {cap:,} that are read"
            raise UnsafeFileError(message)
        try:
            data = stream.read(size + 1)
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror or error}"
            raise InputError(message) from error
    if len(data) > size:
        message = f"{path.name} grew past {size:,} bytes while it was read"
        raise UnsafeFileError(message)
    if digest is not None and hashlib.sha256(data).hexdigest() != digest:
        message = f"{path.name} is not what it was: its SHA-256 differs from the recorded {digest[:12]}..."
        raise UnsafeFileError(message)
    return data


def read_head(path: Path | str, size: int) -> bytes:
    """Return the first ``size`` bytes of a regular file."""
    with os.fdopen(_open(Path(path)), "rb") as stream:
        return stream.read(size)


def sha256_file(path: Path | str) -> str:
    """Return the SHA-256 of a regular file in hex."""
    total = hashlib.sha256()
    with os.fdopen(_open(Path(path)), "rb") as stream:
        while chunk := stream.read(CHUNK):
            total.update(chunk)
    return total.hexdigest()


def require_text(data: bytes, name: str) -> str:
    """Return ``data`` as UTF-8 text; raises `FormatError` for anything else."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{name} is not UTF-8 text (byte {error.start})"
        raise FormatError(message) from error


def one_line(text: object, most: int = 200) -> str:
    r"""Return the first line of words that a stranger's file had a hand in, short and without control characters.

    >>> one_line("bad \x1b[2J header" + chr(10) + "more")
    'bad ?[2J header'
    """
    first = next((line.strip() for line in str(text).splitlines() if line.strip()), "")
    return "".join(char if char.isprintable() else "?" for char in first[:most]) + ("..." if len(first) > most else "")
