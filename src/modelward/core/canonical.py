"""One spelling for every value, so that equal things have equal digests."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from modelward.core.errors import InputError


def plain(value: object) -> Any:  # JSON is what JSON is
    """Return ``value`` as JSON types: dataclasses by their fields, enums by value, tuples as lists.

    NaN and infinities become ``None``: a figure that was not measured is null, never 0.

    >>> plain({"eps": 0.5, "sizes": (1, 2), "missing": float("nan")})
    {'eps': 0.5, 'sizes': [1, 2], 'missing': None}
    """
    if value is None or isinstance(value, bool | int | str):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [plain(item) for item in value]
        return sorted(items, key=repr) if isinstance(value, set | frozenset) else items
    if isinstance(value, PurePath):
        return value.as_posix()
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return plain(value.item())
    message = f"cannot write a {type(value).__name__} as JSON; use numbers, text, lists and mappings"
    raise InputError(message)


def canonical_json(value: object) -> bytes:
    """Return the canonical JSON bytes of ``value``: sorted keys, no spaces, UTF-8, shortest floats.

    >>> canonical_json({"b": 1, "a": [1.0, True]})
    b'{"a":[1.0,true],"b":1}'
    """
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def digest_bytes(data: bytes | memoryview) -> str:
    """Return the SHA-256 of ``data`` in lower-case hex (64 characters)."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: object) -> str:
    """Return the SHA-256 of the canonical JSON of ``value``.

    >>> digest_of({"a": 1}) == digest_of({"a": 1})
    True
    """
    return digest_bytes(canonical_json(value))
