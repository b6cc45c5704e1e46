"""IDX, npy and npz arrays: sizes read from the header before anything is unpacked, never a pickle."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelward.core.errors import FormatError, UnsafeFileError
from modelward.io.archives import ZipFolder
from modelward.io.files import one_line, read_bytes, read_head

ARRAY_CAP = 2 * 2**30
LABELS = 64 * 2**20  # of an array that may be packed as tightly as it can be: eight million labels
_IDX_TYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
AnyArray = NDArray[np.generic]


def read_idx(path: Path | str) -> AnyArray:
    """Return the array in an IDX file (as MNIST comes), gzipped or not.

    Raises
    ------
    UnsafeFileError
        when the header promises more than 2 GiB.
    FormatError
        when it is no IDX file, or shorter or longer than its header says.
    """
    name = Path(path).name
    data = read_bytes(path, cap=ARRAY_CAP)
    try:
        stream = gzip.GzipFile(fileobj=io.BytesIO(data)) if data[:2] == b"\x1f\x8b" else io.BytesIO(data)
        magic = stream.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_TYPES or not 1 <= magic[3] <= 4:
            message = f"{name} is no IDX file"
            raise FormatError(message)
        kind: np.dtype[np.generic] = np.dtype(_IDX_TYPES[magic[2]])
        sides = stream.read(4 * magic[3])
        shape = [int.from_bytes(sides[4 * i : 4 * i + 4], "big") for i in range(magic[3])]
        size = math.prod(shape) * kind.itemsize
        if size > ARRAY_CAP:
            message = f"{name} promises {size:,} bytes, more than the {ARRAY_CAP:,} that are read"
            raise UnsafeFileError(message)
        body = stream.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        message = f"{name} is damaged: {one_line(error)}"
        raise FormatError(message) from error
    if len(sides) != 4 * magic[3] or len(body) != size:
        message = f"{name} holds {len(body):,} bytes where its header says {size:,}"
        raise FormatError(message)
    array = np.frombuffer(body, kind).reshape(shape)
    return array.astype(kind.newbyteorder("="), copy=False)


def _require_plain(kind: np.dtype[Any], promised: int, present: int, name: str) -> None:
    """Refuse by the header alone objects, and more bytes than there are."""
    if kind.hasobject:
        message = f"{name} holds Python objects, which can run code when loaded; save plain numbers"
        raise UnsafeFileError(message)
    if promised > max(present, 1):
        message = f"{name} promises {promised:,} bytes but has {present:,}"
        raise FormatError(message)


def _npy(data: bytes, name: str) -> AnyArray:
    """Return the array in npy bytes; the size is checked from the header."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = reader(stream)
        _require_plain(kind, math.prod(shape) * kind.itemsize, len(data), name)
        array: AnyArray = np.load(io.BytesIO(data), allow_pickle=False)
    except FormatError:
        raise
    except Exception as error:  # numpy parses the header as Python text, which raises whatever it likes
        message = f"{name} is no npy array, or damaged: {one_line(error) or type(error).__name__}"
        raise FormatError(message) from error
    return array


def read_npz(path: Path | str) -> dict[str, AnyArray]:
    """Return the arrays of an ``.npz`` file (or of one ``.npy``, called ``"array"``) by name."""
    name = Path(path).name
    if read_head(path, 4) == b"PK\x03\x04":
        with ZipFolder(path, most=ARRAY_CAP, free=LABELS) as folder:
            return {
                member.removesuffix(".npy"): _npy(folder.read(member), f"{name}:{one_line(member)}")
                for member in folder.names
                if member.endswith(".npy")
            }
    return {"array": _npy(read_bytes(path, cap=ARRAY_CAP), name)}
