"""What a file is, by its first bytes."""

from __future__ import annotations

import io
import pickletools
from pathlib import Path

from modelward.core.errors import FormatError
from modelward.io.archives import open_zip
from modelward.io.files import read_head

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"age-encryption.org/v1\n", "age"),
    (b"-----BEGIN AGE ENCRYPTED FILE-----", "age"),
    (b"\x1f\x8b", "gzip"),
    (b"\x93NUMPY", "npy"),
    (b"P5", "pgm"),
    (b"P6", "ppm"),
    (b"\x80", "pickle"),
)
_ONNX_FIELDS = (b"\x12", b"\x1a", b"\x22", b"\x28", b"\x32", b"\x3a", b"\x42")


def kind_of(path: Path | str) -> str:
    """Return the kind of a file.

    One of ``safetensors``, ``torch`` (legacy .pt), ``npz``, ``zip``, ``pickle``, ``png``, ``jpeg``, ``webp``, ``pgm``, ``ppm``, ``gzip``,
    ``npy``, ``onnx``, ``age``, ``csv``, ``text`` and ``unknown``.

    Raises
    ------
    InputError
        when there is no such regular file.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> _ = path.write_bytes(bytes([128, 4, 93, 46]))
    >>> kind_of(path)
    'pickle'
    """
    head = read_head(path, 4096)
    if head[:4] == b"PK\x03\x04":
        return _zip(path)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if len(head) > 8 and head[8:9] == b"{" and head[5:8] == b"\0\0\0":
        return "safetensors"
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if (
        head[:1] == b"\x08" and b"\x01" <= head[1:2] <= b"\x20" and head[2:3] in _ONNX_FIELDS
    ):  # protobuf: ir_version, then a field of ModelProto
        return "onnx"
    return "pickle" if _old_pickle(head) else _text(head)


def _old_pickle(head: bytes) -> bool:
    """Return whether text is a protocol 0 or 1 pickle that names code; nothing of it is run."""
    names = False
    try:
        for code, _, _ in pickletools.genops(io.BytesIO(head)):
            names = names or code.name in {"GLOBAL", "INST"}
    except Exception:  # noqa: BLE001  # not a pickle
        return False
    return names


def _zip(path: Path | str) -> str:
    """Tell a legacy torch file and an npz from another zip by their names."""
    try:
        with open_zip(path) as archive:
            names = archive.namelist()[:10_000]
    except FormatError:
        return "zip"
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    return "npz" if names and all(name.endswith(".npy") for name in names) else "zip"


def _text(head: bytes) -> str:
    """Tell tables from other text."""
    try:
        text = head.decode("utf-8-sig", errors="strict") if len(head) < 4096 else head[:4000].decode("utf-8-sig", errors="ignore")
    except UnicodeDecodeError:
        return "unknown"
    if not text or any(ord(char) < 32 and char not in "\r\n\t" for char in text):
        return "unknown"
    first = text.splitlines()[0]
    return "csv" if first.count(",") and first.split(",")[0].strip().strip('"') == "file" else "text"
