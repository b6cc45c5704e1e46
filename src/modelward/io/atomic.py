"""Writes that are whole or not there: temp file in the same folder, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from pathlib import Path

from modelward.core.errors import StoreError

_TEMPORARY = re.compile(r"\..+\.\d+\.[0-9a-f]+\.tmp", re.DOTALL)


def write_bytes(path: Path | str, data: bytes, mode: int = 0o644) -> None:
    """Write ``data`` to ``path`` in one step: readers see the old file or the new one, never a part.

    Raises
    ------
    StoreError
        when the folder is missing or unwritable, or the disk is full. Nothing is left behind.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        _write(temporary, data, mode)
        temporary.replace(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
        message = f"{path} cannot be written: {getattr(error, 'strerror', None) or error}; free some space or choose another folder"
        raise StoreError(message) from error
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write and flush a new file."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), mode)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode())


def claim_file(path: Path | str) -> bool:
    """Make an empty file of mode 0600 that only its owner can read; return whether it was not there before.

    Raises
    ------
    StoreError
        when it is neither there nor can be made.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600))
    except FileExistsError:
        return False
    except (OSError, ValueError) as error:
        message = f"{path} cannot be made: {getattr(error, 'strerror', None) or error}; choose a folder that you may write"
        raise StoreError(message) from error
    return True


def sweep(folder: Path | str, older_than_s: float) -> int:
    """Remove temp files below ``folder`` that an interrupted write left behind; return how many.

    Parameters
    ----------
    older_than_s
        age in seconds; younger ones may belong to a writer at work.
    """
    limit, removed = time.time() - older_than_s, 0
    for path in Path(folder).rglob(".*.tmp"):
        with contextlib.suppress(OSError):
            if _TEMPORARY.fullmatch(path.name) and path.lstat().st_mtime < limit:
                path.unlink()
                removed += 1
    return removed
