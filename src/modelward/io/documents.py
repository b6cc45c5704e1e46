"""JSON files of ours that strangers may have changed: a cap before parsing, no name twice, a schema, a version that is not newer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from modelward.core.errors import FormatError
from modelward.io.files import one_line, read_bytes

CAP = 4 * 2**20


def read_document(path: Path | str, schema: str, version: int, *, cap: int = CAP) -> dict[str, Any]:
    """Return the content of a JSON file; see `parse_document`."""
    return parse_document(read_bytes(path, cap=cap), schema, version, name=Path(path).name)


def parse_document(data: bytes | str, schema: str, version: int, *, name: str) -> dict[str, Any]:
    """Return the JSON object ``data`` with its ``schema`` and ``version``.

    Raises
    ------
    FormatError
        for what is no JSON, names a value twice, or is of another schema or a newer version.

    Examples
    --------
    >>> parse_document(b'{"schema": "modelward/opening", "version": 1}', "modelward/opening", 1, name="x.json")["version"]
    1
    >>> parse_document(b'{"schema": "modelward/opening", "version": 2}', "modelward/opening", 1, name="x.json")
    Traceback (most recent call last):
    ...
    modelward.core.errors.FormatError: x.json was made by a newer modelward (opening version 2, this one reads up to 1); update modelward
    """
    kind = schema.partition("/")[2]
    try:
        found = json.loads(data, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        message = f"{name} is no {kind} of modelward, or it is damaged: {one_line(error)}"
        raise FormatError(message) from error
    if not isinstance(found, dict) or found.get("schema") != schema or not isinstance(found.get("version"), int):
        message = f"{name} is no {kind} of modelward: its schema is not {schema}"
        raise FormatError(message)
    if found["version"] > version:
        message = (
            f"{name} was made by a newer modelward ({kind} version {found['version']}, this one reads up to {version}); update modelward"
        )
        raise FormatError(message)
    return found


def texts(document: dict[str, Any], *names: str, name: str) -> list[str]:
    """Return fields of a document that must be text; raises `FormatError` naming the one that is not."""
    for field in names:
        if not isinstance(document.get(field), str):
            message = f"{name} is damaged or was altered: it has no {field!r}"
            raise FormatError(message)
    return [document[field] for field in names]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; raises `ValueError` for a name that stands twice: two readers could believe two values."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found
