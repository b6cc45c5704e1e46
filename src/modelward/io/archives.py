"""Zips of folders, read member by member into names we check; nothing is ever extracted."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from modelward.core.errors import FormatError, InputError, UnsafeFileError

MEMBER_CAP = 200_000
MEMBER_BYTES = 128 * 2**20
TOTAL_BYTES = 8 * 2**30
RATIO_CAP = 200


class ZipFolder:
    """The files in a zip, sorted by name.

    Parameters
    ----------
    path
        a zip archive. Its directory is checked before anything is read: at most 200,000 members, no ``..``, no absolute names, no
        links, no duplicates, no encryption, no member that unpacks to more than 200 times its size.

    Raises
    ------
    UnsafeFileError
        when a check fails.
    FormatError
        when it is no zip.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            message = f"{self.path} is not a file"
            raise InputError(message)
        try:
            self._zip = zipfile.ZipFile(self.path)
            entries = self._zip.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, OverflowError, UnicodeDecodeError) as error:
            message = f"{self.path.name} is no zip, or damaged: {error}"
            raise FormatError(message) from error
        try:
            self._members = self._checked(entries)
        except UnsafeFileError:
            self._zip.close()
            raise

    def _checked(self, entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        """Return the members by name after all checks."""
        if len(entries) > MEMBER_CAP:
            self._refuse(f"it has {len(entries):,} members, more than {MEMBER_CAP:,}")
        found: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            if entry.is_dir():
                continue
            parts = PurePosixPath(entry.filename).parts
            if not parts or parts[0] == "/" or ".." in parts or "\\" in entry.filename or "\0" in entry.filename or ":" in parts[0]:
                self._refuse(f"the name {entry.filename!r} leads out of the archive")
            if entry.filename in found:
                self._refuse(f"the name {entry.filename!r} occurs twice")
            if stat.S_ISLNK(entry.external_attr >> 16):
                self._refuse(f"{entry.filename!r} is a link")
            if entry.flag_bits & 1:
                self._refuse(f"{entry.filename!r} is encrypted")
            if entry.file_size > MEMBER_BYTES or entry.file_size > RATIO_CAP * max(entry.compress_size, 512):
                self._refuse(f"{entry.filename!r} unpacks to {entry.file_size:,} bytes")
            found[entry.filename] = entry
        if sum(entry.file_size for entry in found.values()) > TOTAL_BYTES:
            self._refuse(f"it unpacks to more than {TOTAL_BYTES:,} bytes")
        return dict(sorted(found.items(), key=lambda item: item[0].encode()))

    def _refuse(self, why: str) -> None:
        message = f"{self.path.name} was refused: {why}"
        raise UnsafeFileError(message)

    @property
    def names(self) -> list[str]:
        """The names of all files, sorted bytewise."""
        return list(self._members)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def size(self, name: str) -> int:
        """Return the unpacked size of a member in bytes."""
        return self._members[name].file_size

    def read(self, name: str) -> bytes:
        """Return the bytes of one member; never more than its directory entry says."""
        if name not in self._members:
            message = f"{self.path.name} holds no {name!r}"
            raise InputError(message)
        entry = self._members[name]
        try:
            with self._zip.open(entry) as stream:
                data = stream.read(entry.file_size + 1)
        except (zipfile.BadZipFile, OSError, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
            message = f"{self.path.name}: {name!r} is damaged: {error}"
            raise FormatError(message) from error
        if len(data) != entry.file_size:
            message = f"{self.path.name}: {name!r} is not as long as its entry says"
            raise UnsafeFileError(message)
        return data

    def close(self) -> None:
        """Close the archive."""
        self._zip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
