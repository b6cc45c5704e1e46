"""Images and labelled image sets: small valid files, the doors that read them, and what their digests cover."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from hostile_format import FILE, LABELS, PIXELS, Format, encoded, idx, written, zipped
from PIL import Image

from modelward.core.canonical import digest_bytes
from modelward.data.arrays import read_idx_pair
from modelward.data.listing import read_classes
from modelward.data.sets import load_data
from modelward.io import (
    arrays,
    images,
)
from modelward.io.files import sha256_file


def images_files(room: Path) -> dict[str, Format]:
    """Images of every kind that is decoded."""
    deep = written(lambda path: Image.fromarray(np.arange(60, dtype=np.uint16).reshape(6, 10)).save(path, "PNG"), room / "i.png")
    seeds = {
        "png": ("png", (encoded("PNG"), encoded("PNG", "L"), encoded("PNG", "P", transparency=3), encoded("PNG", "1"), deep)),
        "jpeg": ("bytes", (encoded("JPEG"), encoded("JPEG", progressive=True, quality=80), encoded("JPEG", "L"))),
        "webp": ("bytes", (encoded("WEBP"), encoded("WEBP", lossless=True), encoded("WEBP", "RGBA"))),
        "ppm": ("text", (encoded("PPM"), b"P3\n2 2\n255\n1 2 3 4 5 6 7 8 9 10 11 12\n")),
        "pgm": ("text", (encoded("PPM", "L"), b"P2 2 2 65535 1 2 3 4\n", encoded("PPM", "1"))),
    }
    return {name: Format(images.read_image, files, room / f"i.{name}", kind) for name, (kind, files) in seeds.items()}


def set_files(room: Path) -> dict[str, Format]:
    """Labelled image sets."""
    tree = {f"{side}/{word}/{i}.png": encoded("PNG", index=i) for side in ("train", "test") for word in ("cat", "dog") for i in range(3)}
    grey = PIXELS[:, 0]
    npz = [io.BytesIO() for _ in range(2)]
    np.savez(npz[0], x=grey, y=LABELS)
    np.savez_compressed(npz[1], x_train=grey, y_train=LABELS, x_test=grey, y_test=LABELS)
    npy = io.BytesIO()
    np.save(npy, np.arange(6.0))
    pixels = np.random.default_rng(1).integers(0, 256, (6, 3072), dtype=np.uint8)
    batches = [pickle.dumps({"data": pixels, "labels": LABELS.tolist()}, protocol=p) for p in (2, 5)]
    binary = b"".join(bytes([label]) + row.tobytes() for label, row in zip(LABELS.tolist(), pixels, strict=True))
    (room / "idx").mkdir()
    (room / "idx/train-labels-idx1-ubyte").write_bytes(idx(LABELS))
    for name in ("py", "bin"):
        (room / name).mkdir()
    whole, packed = idx(grey), gzip.compress(idx(grey), mtime=0)
    pin = {"i.gz": digest_bytes(packed), "train-labels-idx1-ubyte": sha256_file(room / "idx/train-labels-idx1-ubyte")}

    def folder(path: Path) -> Any:
        return load_data(path.parent)

    return {
        "zip of a folder": Format(load_data, (zipped(tree), zipped(tree, zipfile.ZIP_DEFLATED)), room / "set.zip", "zip", share=2),
        "npz": Format(load_data, tuple(stream.getvalue() for stream in npz), room / "set.npz", "zip"),
        "npy": Format(arrays.read_npz, (npy.getvalue(),), room / "a.npy", "text", share=0.5),
        "idx": Format(folder, (whole,), room / "idx/train-images-idx3-ubyte", share=0.7),
        "idx, gz": Format(folder, (packed,), room / "idx/train-images-idx3-ubyte", "gzip", share=0.7),
        "idx, pinned digest": Format(
            lambda path: read_idx_pair(path, room / "idx/train-labels-idx1-ubyte", "set", digests=pin), (packed,), room / "i.gz", "gzip", share=0.5, covers=FILE
        ),
        "cifar-10 python": Format(folder, tuple(batches), room / "py/data_batch_1", share=1.5),
        "cifar-10 binary": Format(folder, (binary,), room / "bin/data_batch_1.bin", share=0.5),
        "class map": Format(read_classes, (b"cat\ndog\nbird\n", "\ufeffcaf\u00e9\r\ndog\r\n".encode()), room / "classes.txt", "text", share=0.5),
    }  # fmt: skip
