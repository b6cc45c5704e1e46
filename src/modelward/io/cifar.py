"""CIFAR-10 batches: the binary form, and the Python form through an unpickler that knows arrays, lists, texts and numbers only."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelward.core.errors import FormatError, UnsafeFileError
from modelward.io.files import read_bytes

FILE_CAP = 256 * 2**20
RECORD = 3073
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]


class _Restricted(pickle.Unpickler):
    """An unpickler with an allow-list: nothing but the parts of a numpy array can be named."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            message = f"it names {module}.{name}, which no CIFAR batch needs; it was refused before it could run"
            raise UnsafeFileError(message)
        if name == "_reconstruct":
            return _reconstruct
        if module == "_codecs":
            return _encode
        return getattr(np, name)


def _reconstruct(kind: object, shape: object, code: object) -> NDArray[np.generic]:
    """Make the empty array that a pickle then fills; anything but a plain array is refused."""
    if kind is not np.ndarray or shape != (0,) or code not in {b"b", "b"}:
        raise UnsafeFileError("it asks for something else than a plain array")
    return np.ndarray((0,), np.int8)


def _encode(text: object, codec: object) -> bytes:
    """Undo how protocol 2 writes bytes."""
    if not isinstance(text, str) or codec != "latin1":
        raise UnsafeFileError("it asks for an unusual encoding")
    return text.encode("latin1")


def read_cifar_batch(path: Path | str) -> Batch:
    """Return (pixels uint8 (N, 3, 32, 32), labels int64 (N,)) of a CIFAR-10 Python batch.

    Raises
    ------
    UnsafeFileError
        when the pickle names anything but array parts.
    FormatError
        when it is damaged or holds something else.
    """
    name = Path(path).name
    data = read_bytes(path, cap=FILE_CAP)
    try:
        table = _Restricted(io.BytesIO(data), encoding="bytes").load()
    except UnsafeFileError as error:
        message = f"{name} is a pickle that is no CIFAR batch: {error}"
        raise UnsafeFileError(message) from error
    except Exception as error:  # a damaged pickle raises whatever it likes
        message = f"{name} is no CIFAR batch, or damaged: {type(error).__name__}"
        raise FormatError(message) from error
    if not isinstance(table, dict):
        message = f"{name} is no CIFAR batch: it holds no table"
        raise FormatError(message)
    table = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in table.items()}
    return _batch(table.get("data"), table.get("labels", table.get("fine_labels")), name)


def _batch(pixels: object, labels: object, name: str) -> Batch:
    """Check the two parts of a batch."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != RECORD - 1:
        message = f"{name} is no CIFAR batch: data must be uint8 (N, 3072)"
        raise FormatError(message)
    whole = isinstance(labels, list | np.ndarray) and all(isinstance(value, int | np.integer) and 0 <= value < 2**31 for value in labels)
    if not isinstance(labels, list | np.ndarray) or len(labels) != len(pixels) or not whole:
        message = f"{name} is no CIFAR batch: it needs one whole-number label for each of {len(pixels)} images"
        raise FormatError(message)
    return np.ascontiguousarray(pixels).reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)


def read_cifar_binary(path: Path | str) -> Batch:
    """Return (pixels uint8 (N, 3, 32, 32), labels int64 (N,)) of a CIFAR-10 binary batch (3,073 bytes an image)."""
    name = Path(path).name
    data = read_bytes(path, cap=FILE_CAP)
    if not data or len(data) % RECORD:
        message = f"{name} is no CIFAR-10 binary batch: {len(data):,} bytes are not a multiple of {RECORD}"
        raise FormatError(message)
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    if records[:, 0].max() > 9:
        message = f"{name} is no CIFAR-10 binary batch: labels run to {records[:, 0].max()}"
        raise FormatError(message)
    return records[:, 1:].reshape(-1, 3, 32, 32).copy(), records[:, 0].astype(np.int64)
