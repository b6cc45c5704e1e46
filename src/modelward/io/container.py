"""The ``.mw`` container: safetensors with a canonical JSON header, a digest of every part and of the header, optionally inside age.

Layout of the header::

    {"schema": "modelward/key", "version": 1, "parts": {NAME: sha256, ...}, ...facts...}

It stands in the safetensors metadata as ``modelward``, and ``digest`` beside it is the SHA-256 of the whole file with that digest left
empty, so that no byte can change unnoticed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelward.core.canonical import canonical_json, digest_bytes
from modelward.core.errors import FormatError, InputError, UnsafeFileError
from modelward.io.age import Secret, decrypt, encrypt, is_encrypted
from modelward.io.atomic import write_bytes
from modelward.io.files import read_bytes
from modelward.io.safetensors import HEADER_CAP, dump_arrays, parse_arrays

SCHEMA = "modelward/key"
VERSION = 1
CAP = 512 * 2**20
_BLANK = "0" * 64
_MARKS = (b'"digest"', b'"modelward"', SCHEMA.encode())


def write_mw(
    path: Path | str,
    header: Mapping[str, Any],
    arrays: Mapping[str, NDArray[np.generic]],
    *,
    passphrase: Secret | None = None,
    recipients: Sequence[str] = (),
) -> None:
    """Write a key file, readable by its owner only (mode 0600)."""
    data = pack(header, arrays)
    if passphrase is not None or recipients:
        data = encrypt(data, passphrase=passphrase, recipients=recipients)
    write_bytes(path, data, mode=0o600)


def pack(header: Mapping[str, Any], arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """Return the bytes of an unencrypted container."""
    reserved = {"schema", "version", "parts"} & set(header)
    if reserved:
        message = f"the header fields {sorted(reserved)} are written by the container itself"
        raise InputError(message)
    parts = {name: _part(array) for name, array in arrays.items()}
    text = canonical_json({**header, "schema": SCHEMA, "version": VERSION, "parts": parts}).decode()
    blank = dump_arrays(arrays, {"digest": _BLANK, "modelward": text})
    return blank.replace(_BLANK.encode(), digest_bytes(blank).encode(), 1)


def _part(array: NDArray[np.generic]) -> str:
    """Return the digest of one array: its type, shape and bytes."""
    return digest_bytes(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())


def read_mw(
    path: Path | str, *, passphrase: Secret | None = None, identities: Sequence[Secret] = ()
) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    """Return (header, arrays) of a key file.

    Raises
    ------
    UnsafeFileError
        when any byte was altered.
    FormatError
        when it is no key, of a newer version, or the passphrase is wrong.
    UsageError
        when it is encrypted and no passphrase was given.
    """
    name = Path(path).name
    data = read_bytes(path, cap=CAP)
    if is_encrypted(data):
        data = decrypt(data, passphrase=passphrase, identities=identities, name=name)
    return unpack(data, name)


def unpack(data: bytes, name: str = "the key") -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    """Return (header, arrays) of container bytes after every digest was checked."""
    arrays, facts = _parsed(data, name)
    stated = facts.get("digest", "")
    blank = data.replace(stated.encode(), _BLANK.encode(), 1) if len(stated) == len(_BLANK) else b""
    if digest_bytes(blank) != stated:
        message = f"{name} was altered or is damaged: its digest does not match"
        raise UnsafeFileError(message)
    header = _header(facts.get("modelward", "null"), name)
    version = header.get("version")
    if header.get("schema") == SCHEMA and isinstance(version, int) and version > VERSION:
        message = f"{name} was made by a newer modelward (key version {version}, this one reads up to {VERSION}); update modelward"
        raise FormatError(message)
    parts = header.pop("parts", {})
    if header.pop("schema", None) != SCHEMA or header.pop("version", None) != VERSION or not isinstance(parts, dict):
        message = f"{name} is no modelward key"
        raise FormatError(message)
    if {part: _part(array) for part, array in arrays.items()} != parts:
        message = f"{name} was altered: the digest of a part does not match"
        raise UnsafeFileError(message)
    return header, arrays


def _parsed(data: bytes, name: str) -> tuple[dict[str, NDArray[np.generic]], dict[str, str]]:
    """Return (arrays, metadata); tell a damaged key from a file that never was one by the marks that are left."""
    marked = any(mark in data[:HEADER_CAP] for mark in _MARKS)
    try:
        arrays, facts = parse_arrays(data, name)
    except UnsafeFileError:
        raise
    except FormatError as error:  # what the reader of the bytes says of them tells the holder of a key nothing
        message = f"{name} was altered or is damaged, it may be cut short: take a backup" if marked else f"{name} is no modelward key"
        raise (UnsafeFileError if marked else FormatError)(message) from error
    if not marked:
        message = f"{name} is no modelward key"
        raise FormatError(message)
    return arrays, facts


def _header(text: str, name: str) -> dict[str, Any]:
    """Return the parsed header."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        message = f"{name} was altered or is damaged: its header is not JSON"
        raise UnsafeFileError(message) from error
    if not isinstance(header, dict):
        message = f"{name} is no modelward key: its header is not a table"
        raise FormatError(message)
    return header
