"""What a file is, by its first bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

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


def kind_of(path: Path | str) -> str:
    """Return the kind of a file.

    One of ``safetensors``, ``torch`` (legacy .pt), ``npz``, ``zip``, ``pickle``, ``png``, ``jpeg``, ``webp``, ``pgm``, ``ppm``, ``gzip``,
    ``npy``, ``age``, ``csv``, ``text`` and ``unknown``.
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
    return _text(head)


def _zip(path: Path | str) -> str:
    """Tell a legacy torch file and an npz from another zip by their names."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:10_000]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
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
