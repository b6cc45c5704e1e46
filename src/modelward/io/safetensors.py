"""safetensors, with our own caps on the header before the library sees it."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from modelward.core.errors import FormatError, UnsafeFileError
from modelward.io.atomic import write_bytes
from modelward.io.files import one_line, read_bytes

if TYPE_CHECKING:
    from torch import Tensor

HEADER_CAP = 4 * 2**20
TENSOR_CAP = 20_000
BYTES_CAP = 2**31
_PICKLE = b"\x80"
_ZIP = b"PK\x03\x04"
_FOREIGN = ("BF", "F8_", "F6_", "F4")


def read_header(data: bytes, name: str = "the file") -> dict[str, Any]:
    """Return the header of safetensors bytes, capped before it is parsed.

    Raises
    ------
    UnsafeFileError
        pickles and zips in disguise; headers over 4 MiB or with more than 20,000 tensors.
    FormatError
        anything that is not a safetensors header.
    """
    disguised = data[:1] == _PICKLE and not (
        data[8:9] == b"{" and data[5:8] == bytes(3)
    )  # a header of 128 + 256 k bytes begins with 0x80 too
    if disguised or data[:4] == _ZIP:
        message = f"{name} is a pickle or a legacy .pt file, which can run code when loaded; convert it with `modelward convert {name} model.safetensors`"
        raise UnsafeFileError(message)
    if len(data) < 10:
        message = f"{name} is no safetensors file: it has only {len(data)} bytes"
        raise FormatError(message)
    (size,) = struct.unpack("<Q", data[:8])
    if data[8:9] != b"{" or size > len(data) - 8:
        what = "truncated" if data[8:9] == b"{" else "not one at all"
        message = f"{name} is no safetensors file: the header is {what}"
        raise FormatError(message)
    if size > HEADER_CAP:
        message = f"{name} has a header of {size:,} bytes, more than the {HEADER_CAP:,} that are parsed"
        raise UnsafeFileError(message)
    raw = data[8 : 8 + size]
    if raw.count(b"data_offsets") > TENSOR_CAP:  # counted before parsing: a million empty tensors cost a minute
        message = f"{name} lists more than {TENSOR_CAP:,} tensors"
        raise UnsafeFileError(message)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        message = f"{name} is no safetensors file: its header is not JSON"
        raise FormatError(message) from error
    if not isinstance(header, dict) or len(header) > TENSOR_CAP + 1:
        message = f"{name} is no safetensors file: its header is not a table of tensors"
        raise FormatError(message)
    return header


def _metadata(header: dict[str, Any], name: str) -> dict[str, str]:
    """Return the text metadata of a header."""
    facts = header.get("__metadata__") or {}
    if not isinstance(facts, dict) or not all(isinstance(value, str) for value in facts.values()):
        message = f"{name}: the metadata is not text"
        raise FormatError(message)
    return facts


def parse_arrays(data: bytes, name: str = "the file") -> tuple[dict[str, NDArray[np.generic]], dict[str, str]]:
    """Return (arrays, metadata) of safetensors bytes, as numpy; never imports torch."""
    header = read_header(data, name)
    if any(isinstance(entry, dict) and str(entry.get("dtype")).startswith(_FOREIGN) for entry in header.values()):
        message = f"{name} holds bfloat16 or smaller floats, which numpy does not know; read it as torch tensors"
        raise FormatError(message)
    try:
        return safetensors.numpy.load(data), _metadata(header, name)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FormatError(_damaged(name, error)) from error


def load_arrays(
    path: Path | str, *, cap: int = BYTES_CAP, digest: str | None = None
) -> tuple[dict[str, NDArray[np.generic]], dict[str, str]]:
    """Read a safetensors file as numpy arrays; see `parse_arrays`."""
    return parse_arrays(read_bytes(path, cap=cap, digest=digest), Path(path).name)


def parse_tensors(data: bytes, name: str = "the file") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return (tensors, metadata) of safetensors bytes, as torch tensors."""
    import safetensors.torch

    header = read_header(data, name)
    try:
        return safetensors.torch.load(data), _metadata(header, name)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise FormatError(_damaged(name, error)) from error


def load_tensors(path: Path | str, *, cap: int = BYTES_CAP, digest: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file as torch tensors with its metadata; see `parse_tensors`."""
    return parse_tensors(read_bytes(path, cap=cap, digest=digest), Path(path).name)


def _damaged(name: str, error: Exception) -> str:
    return f"{name} is damaged: {one_line(error) or type(error).__name__}"


def dump_arrays(arrays: Mapping[str, NDArray[np.generic]], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return safetensors bytes that depend on the content alone: names and metadata are sorted."""
    ordered = {name: np.ascontiguousarray(arrays[name]).reshape(np.shape(arrays[name])) for name in sorted(arrays)}
    return _sorted_metadata(safetensors.numpy.save(ordered), metadata or {})


def save_arrays(path: Path | str, arrays: Mapping[str, NDArray[np.generic]], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays to a safetensors file in one step."""
    write_bytes(path, dump_arrays(arrays, metadata))


def save_tensors(path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write torch tensors to a safetensors file in one step."""
    import safetensors.torch

    ordered = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    write_bytes(path, _sorted_metadata(safetensors.torch.save(ordered), metadata or {}))


def _sorted_metadata(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """Put ``metadata`` into safetensors bytes in sorted order: the library's own order changes from run to run."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    facts = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    text = json.dumps({**facts, **header}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + size :]
