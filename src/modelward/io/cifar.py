"""CIFAR-10 batches: the binary form, and the Python form through an unpickler that knows arrays, lists, texts and numbers only.

The Python form is a pickle. It is read in two steps: its instructions are counted and compared with an allow-list before any of them runs
(ten bytes could otherwise fill the memory, nested tuples could end the process), then it is unpickled with inert stand-ins for the parts of
a numpy array, so that no constructor of numpy ever sees a number from the file.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelward.core.errors import FormatError, UnsafeFileError
from modelward.io.files import one_line, read_bytes

FILE_CAP = 256 * 2**20
RECORD = 3073
INSTRUCTION_CAP = 1_000_000
TUPLE_CAP = 1_000
_TUPLES = frozenset({"EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"})
_STORES = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_INSTRUCTIONS = _TUPLES | _STORES | {
    "PROTO", "FRAME", "STOP", "MARK", "MEMOIZE", "GET", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "NONE",
    "NEWTRUE", "NEWFALSE", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "INT", "BININT", "BININT1",
    "BININT2", "LONG", "LONG1", "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_WHOLE = frozenset({"u1", "i1", "u2", "i2", "u4", "i4", "i8"})
_NDARRAY = "ndarray"
Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]


class _Dtype:
    """What a pickle says of a numpy type: its name and its byte order."""

    def __init__(self, name: object, *_: object) -> None:
        self.name = _text(name)
        self.order = "<"

    def __setstate__(self, state: object) -> None:
        self.order = _text(state[1]) if isinstance(state, tuple) and len(state) > 1 else "?"


class _Array:
    """What a pickle says of a numpy array: shape, type, bytes."""

    def __init__(self, kind: object = _NDARRAY, *_: object) -> None:
        self.parts: tuple[object, object, object, object] = (None, None, None, None)
        if kind is not _NDARRAY:
            raise UnsafeFileError("it asks for something else than a plain array")

    def __setstate__(self, state: object) -> None:
        if isinstance(state, tuple) and len(state) == 5:
            self.parts = (state[4], state[2], state[1], "F" if state[3] else "C")

    def value(self) -> NDArray[np.generic]:
        """Return the array; raises `ValueError` when its parts do not fit together."""
        raw, kind, shape, order = self.parts
        if (
            not isinstance(raw, bytes | bytearray)
            or not isinstance(kind, _Dtype)
            or kind.name not in _WHOLE
            or kind.order not in {"<", ">", "|", "="}
        ):
            raise ValueError("not whole numbers")
        if not isinstance(shape, tuple) or len(shape) > 2 or not all(type(side) is int and side >= 0 for side in shape):
            raise ValueError("no shape")
        plain = np.dtype(kind.order + kind.name)
        if math.prod(shape) * plain.itemsize != len(raw):
            raise ValueError("shape and bytes differ")
        return np.frombuffer(raw, plain).reshape(shape, order="F" if order == "F" else "C")


class _FromBuffer:
    """Notes an array as protocol 5 writes it. An object without slots, because a pickle could set attributes of a function."""

    __slots__ = ()

    def __call__(self, raw: object, kind: object, shape: object, order: object, *_: object) -> _Array:
        made = _Array()
        made.parts = (raw, kind, shape, order)
        return made


class _Encode:
    """Undoes how protocol 2 writes bytes."""

    __slots__ = ()

    def __call__(self, text: object, codec: object) -> bytes:
        if not isinstance(text, str) or codec != "latin1":
            raise UnsafeFileError("it asks for an unusual encoding")
        return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], object] = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer(),
    ("numpy._core.numeric", "_frombuffer"): _FromBuffer(),
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encode(),
}


class _Restricted(pickle.Unpickler):
    """An unpickler with an allow-list of stand-ins: nothing real can be named."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            message = f"it names {module}.{name}, which no CIFAR batch needs; it was refused before it could run"
            raise UnsafeFileError(message)
        return _ALLOWED[module, name]


def _text(value: object) -> str:
    """Return a text that Python 2 wrote as bytes."""
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _require_tame(data: bytes) -> None:
    """Refuse instructions that no batch needs, and too many of those that it does; nothing is run."""
    tuples = 0
    for count, (code, argument, _) in enumerate(pickletools.genops(io.BytesIO(data)), start=1):
        tuples += code.name in _TUPLES
        if code.name not in _INSTRUCTIONS:
            message = f"it uses the instruction {code.name}, which no CIFAR batch needs"
            raise UnsafeFileError(message)
        if count > INSTRUCTION_CAP or tuples > TUPLE_CAP or (code.name in _STORES and not 0 <= int(argument or 0) <= count):
            raise UnsafeFileError("it would take far more memory than a CIFAR batch needs")


def read_cifar_batch(path: Path | str) -> Batch:
    """Return (pixels uint8 (N, 3, 32, 32), labels int64 (N,)) of a CIFAR-10 Python batch, as Python 2 or 3 and numpy 1 or 2 wrote it.

    Raises
    ------
    UnsafeFileError
        when the pickle names anything but array parts, or would fill the memory.
    FormatError
        when it is damaged or holds something else.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "data_batch_1"
    >>> _ = path.write_bytes(pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [7]}, protocol=2))
    >>> read_cifar_batch(path)[1].tolist()
    [7]
    """
    name = Path(path).name
    data = read_bytes(path, cap=FILE_CAP)
    try:
        _require_tame(data)
        table = _Restricted(io.BytesIO(data), encoding="bytes").load()
        parts = {_text(key): value.value() if isinstance(value, _Array) else value for key, value in table.items()}
    except UnsafeFileError as error:
        message = f"{name} is a pickle that is no CIFAR batch: {one_line(error)}"
        raise UnsafeFileError(message) from error
    except Exception as error:  # a damaged pickle raises whatever it likes
        message = f"{name} is no CIFAR batch, or damaged: {type(error).__name__}"
        raise FormatError(message) from error
    return _batch(parts.get("data"), parts.get("labels", parts.get("fine_labels")), name)


def _batch(pixels: object, labels: object, name: str) -> Batch:
    """Check the two parts of a batch."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != RECORD - 1:
        message = f"{name} is no CIFAR batch: data must be uint8 (N, 3072)"
        raise FormatError(message)
    values = labels.tolist() if isinstance(labels, np.ndarray) and labels.ndim == 1 else labels
    whole = isinstance(values, list) and all(type(value) is int and 0 <= value < 2**31 for value in values)
    if not isinstance(values, list) or not whole or len(values) != len(pixels):
        message = f"{name} is no CIFAR batch: it needs one whole-number label for each of {len(pixels)} images"
        raise FormatError(message)
    return np.array(pixels, order="C").reshape(-1, 3, 32, 32), np.array(values, dtype=np.int64)


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
