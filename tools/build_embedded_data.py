"""Build the embedded data set from the four gz IDX files of Fashion-MNIST.

Usage: ``python tools/build_embedded_data.py SOURCE_FOLDER [OUT_FOLDER]``. The same source gives the same bytes; their SHA-256 are pinned in
`modelward.data.fashion`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modelward.core.rng import derive_seed
from modelward.data.stratify import stratified_order
from modelward.io.arrays import read_idx
from modelward.io.atomic import write_bytes

OUT = Path(__file__).resolve().parents[1] / "src" / "modelward" / "data" / "embedded"
SIDES = (("train", "train", 6_000), ("t10k", "test", 2_000))
CLASSES = 10


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """Return an array of bytes in the IDX format: magic 0, 0, 8 (uint8), number of axes, big-endian lengths, then the data."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def gz_bytes(data: bytes) -> bytes:
    """Return ``data`` as gz without time or name, so that it depends on the data and the deflate library alone."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=buffer, mode="wb", compresslevel=9, mtime=0) as stream:
        stream.write(data)
    return buffer.getvalue()


def chosen(labels: NDArray[np.int64], count: int, side: str) -> NDArray[np.int64]:
    """Return ``count`` sorted indices, the same number from each class."""
    rng = np.random.default_rng(derive_seed("fashion-mini", side))
    where = np.sort(stratified_order(labels, rng=rng)[:count])
    shares = np.bincount(labels[where], minlength=CLASSES)
    if (shares != count // CLASSES).any():
        message = f"the {side} subset is not balanced: {shares.tolist()}"
        raise SystemExit(message)
    return where


def build(source: Path, out: Path) -> None:
    """Write the four files and print their sizes and digests."""
    out.mkdir(parents=True, exist_ok=True)
    total = 0
    for side, name, count in SIDES:
        images = read_idx(source / f"{side}-images-idx3-ubyte.gz").astype(np.uint8, copy=False)
        labels = read_idx(source / f"{side}-labels-idx1-ubyte.gz").astype(np.uint8, copy=False)
        where = chosen(labels.astype(np.int64), count, name)
        for kind, array in (("images", images), ("labels", labels)):
            data = gz_bytes(idx_bytes(array[where]))
            path = out / f"{name}-{kind}.idx.gz"
            write_bytes(path, data)
            total += len(data)
            print(f'"{path.name}": "{hashlib.sha256(data).hexdigest()}",  # {len(data)} bytes')
    print(f"{total} bytes in all")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    build(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) == 3 else OUT)
