"""A file format under attack, and how small valid files are made."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from modelward.core.rng import generator
from modelward.models.nets import build

FILE, CONTENT = "file", "content"
NAMES = ["a.png", "b.png", "c.png"]
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
LABELS = np.array([0, 1, 0, 1, 0, 1])


@dataclass(frozen=True)
class Format:
    """A format under attack.

    Parameters
    ----------
    read
        the door: takes the altered file, returns what it holds.
    seeds
        valid files, which are altered; ``donors`` are others to splice with.
    kind
        which alterations know it, see `mutations_knowing.KNOWING`.
    file
        where the altered file is written.
    share
        how many cases it gets, in relation to the others; ``most`` bounds it.
    covers
        what its digest is over: ``file``, every byte; ``content``, what is read; nothing.
    seconds
        a case that takes longer is a hang.
    """

    read: Callable[[Path], Any]
    seeds: tuple[bytes, ...]
    file: Path
    kind: str = "bytes"
    donors: tuple[bytes, ...] = ()
    share: float = 1.0
    most: int = 10**9
    covers: str = ""
    seconds: float = 5.0

    @property
    def slow(self) -> bool:
        """Whether a case takes about a second: a whole child, or a key that is derived from a passphrase."""
        return self.most < 10


def encoded(kind: str, mode: str = "RGB", index: int = 0, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS[index].transpose(1, 2, 0)).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return stream.getvalue()


def written(write: Callable[[Path], object], path: Path) -> bytes:
    """Return the bytes that ``write`` leaves at ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)
    return path.read_bytes()


def idx(array: np.ndarray[Any, Any]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape) + array.astype(np.uint8).tobytes()


def net(arch: str = "mlp:width=4", seed: int = 0) -> Any:
    return build(arch, classes=2, channels=1, size=(8, 8), rng=generator(seed))
