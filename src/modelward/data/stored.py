"""Decoded pixels of an archive kept between runs, under the digest of the archive, checked on every read."""

from __future__ import annotations

import hashlib
import os
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from modelward.core.canonical import digest_of
from modelward.core.errors import FormatError, StoreError
from modelward.io.safetensors import load_tensors, save_tensors

LAYOUT = 1
"""Raised whenever the order or the meaning of the stored pixels changes."""


def cache_folder() -> Path:
    """Return ``$MODELWARD_HOME/data``, else ``modelward/data`` in ``$XDG_CACHE_HOME`` or ``~/.cache``; the folder need not exist."""
    home = os.environ.get("MODELWARD_HOME")
    if home:
        return Path(home).expanduser() / "data"
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "modelward" / "data"


def entry_path(folder: Path, source_digest: str, size: tuple[int, int] | None) -> Path:
    """Return where the decoded pixels of an archive at one size are kept.

    The decoder's version is part of the name, because another JPEG decoder may give other pixels.
    """
    key = digest_of([source_digest, list(size) if size else None, LAYOUT, version("pillow")])
    return folder / f"{key}.safetensors"


def _digest(pixels: Tensor, channels: Tensor) -> str:
    """Return the SHA-256 over shape, pixels and channel counts."""
    state = hashlib.sha256(repr(tuple(pixels.shape)).encode())
    state.update(pixels.contiguous().numpy().data)
    state.update(channels.contiguous().numpy().data)
    return state.hexdigest()


def recall(path: Path, count: int) -> tuple[Tensor, Tensor] | None:
    """Return stored pixels (N, C, H, W) and channel counts of the originals (N,), both uint8, or ``None``.

    A damaged or altered entry counts as absent: it is decoded anew and replaced.
    """
    if not path.is_file():
        return None
    try:
        tensors, metadata = load_tensors(path)
    except (FormatError, StoreError):
        return None
    pixels, channels = tensors.get("pixels"), tensors.get("channels")
    if pixels is None or channels is None or pixels.dtype != torch.uint8 or channels.dtype != torch.uint8:
        return None
    if pixels.ndim != 4 or len(pixels) != count or channels.shape != (count,) or metadata.get("sha256") != _digest(pixels, channels):
        return None
    return pixels, channels


def keep(path: Path, pixels: Tensor, channels: Tensor) -> bool:
    """Store decoded pixels atomically; return false where that is not possible, because reading works without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, {"pixels": pixels, "channels": channels}, {"sha256": _digest(pixels, channels)})
    except (OSError, StoreError):
        return False
    return True
