"""Zips of folders, read member by member into names we check; nothing is ever extracted."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from modelward.core.errors import FormatError, InputError, UnsafeFileError
from modelward.io.files import one_line

MEMBER_CAP = 200_000
MEMBER_BYTES = 128 * 2**20
TOTAL_BYTES = 8 * 2**30
RATIO_CAP = 200
RATIO_FREE = 2**20
DIRECTORY_BYTES = 32 * 2**20
_ENTRY = b"PK\x01\x02"


class _Stream(io.BufferedReader):
    """A file whose zip directory is counted when it is read as one block, before any entry of it becomes an object."""

    opening = True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to ``size`` bytes; while the archive is being opened, refuse a directory that is too large."""
        if self.opening and size is not None and size > DIRECTORY_BYTES:
            message = f"its directory has {size:,} bytes"
            raise UnsafeFileError(message)
        data = super().read(size)
        if self.opening and len(data) > MEMBER_CAP and data.count(_ENTRY) > MEMBER_CAP:
            message = f"it has more than {MEMBER_CAP:,} members"
            raise UnsafeFileError(message)
        return data


class _Archive(zipfile.ZipFile):
    """A zip that closes the stream it was given."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        super().__init__(stream)

    def close(self) -> None:
        """Close the archive and its stream."""
        super().close()
        self._stream.close()


def open_zip(path: Path | str) -> zipfile.ZipFile:
    """Return the zip at ``path``, opened for reading; its members are not checked yet, only their number.

    Raises
    ------
    InputError
        when there is no such regular file.
    UnsafeFileError
        when it lists more than 200,000 members; the list is not built.
    FormatError
        when it is no zip, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        message = f"{path} is not a file"
        raise InputError(message)
    try:
        stream = _Stream(io.FileIO(path))
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise InputError(message) from error
    try:
        archive = _Archive(stream)
    except UnsafeFileError as error:
        stream.close()
        message = f"{path.name} was refused: {one_line(error)}"
        raise UnsafeFileError(message) from error
    except Exception as error:  # a damaged directory raises whatever it likes
        stream.close()
        message = f"{path.name} is no zip, or damaged: {one_line(error)}"
        raise FormatError(message) from error
    stream.opening = False
    return archive


def _told(entry: zipfile.ZipInfo) -> str:
    """Return a member's name with ``/`` between its parts: some archivers write backslashes, or begin with ``./``."""
    return "/".join(PurePosixPath(entry.filename.replace("\\", "/")).parts).replace("//", "/", 1)


def _why_not(entry: zipfile.ZipInfo, most: int, free: int) -> str | None:
    """Return why a member is refused by its directory entry alone, or ``None``."""
    parts, name = PurePosixPath(_told(entry)).parts, f"{entry.filename!r:.120}"
    if not parts or parts[0].startswith("/") or ".." in parts or "\0" in entry.filename or ":" in parts[0]:
        return f"the name {name} leads out of the archive"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return f"{name} is a link"
    if entry.flag_bits & 1:
        return f"{name} is encrypted"
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        return f"{name} is packed in an unusual way; use stored or deflated members"
    if entry.file_size > most or entry.file_size > max(free, RATIO_CAP * entry.compress_size):
        return f"{name} unpacks to {entry.file_size:,} bytes"
    return None


class ZipFolder:
    """The files in a zip, sorted by name.

    Parameters
    ----------
    path
        a zip archive. Its directory is checked before anything is read: at most 200,000 members, no ``..``, no absolute names, no
        links, no duplicates, no overlaps, no encryption, nothing but stored and deflated members, none of more than 128 MiB, none over
        1 MiB that unpacks to more than 200 times its size, 8 GiB together.
    most, free
        other bounds in bytes for one member, and for what may unpack to any multiple of its size: labels in order pack 1,000 to 1.

    Raises
    ------
    UnsafeFileError
        when a check fails.
    FormatError
        when it is no zip.
    """

    def __init__(self, path: Path | str, *, most: int = MEMBER_BYTES, free: int = RATIO_FREE) -> None:
        self.path, self._most, self._free = Path(path), most, free
        self._zip = open_zip(self.path)
        try:
            self._members = self._checked(self._zip.infolist())
        except UnsafeFileError:
            self._zip.close()
            raise

    def _checked(self, entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        """Return the members by name after all checks."""
        if len(entries) > MEMBER_CAP:
            self._refuse(f"it has {len(entries):,} members, more than {MEMBER_CAP:,}")
        found: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            if entry.filename.endswith(("/", "\\")):
                continue
            name = _told(entry)
            why = f"the name {entry.filename!r:.120} occurs twice" if name in found else _why_not(entry, self._most, self._free)
            if why:
                self._refuse(why)
            found[name] = entry
        if sum(entry.file_size for entry in found.values()) > TOTAL_BYTES:
            self._refuse(f"it unpacks to more than {TOTAL_BYTES:,} bytes")
        if sum(entry.compress_size for entry in found.values()) > self.path.stat().st_size:
            self._refuse("its members overlap")
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
            message = f"{self.path.name} holds no {name!r:.120}"
            raise InputError(message)
        entry = self._members[name]
        try:
            with self._zip.open(entry) as stream:
                data = stream.read(entry.file_size + 1)
        except Exception as error:  # damaged members raise whatever the unpacker likes
            message = f"{self.path.name}: {name!r:.120} is damaged: {one_line(error)}"
            raise FormatError(message) from error
        if len(data) != entry.file_size:
            message = f"{self.path.name}: {name!r:.120} is not as long as its entry says"
            raise UnsafeFileError(message)
        return data

    def close(self) -> None:
        """Close the archive."""
        self._zip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
