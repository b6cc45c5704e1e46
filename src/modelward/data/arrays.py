"""Sets that come as arrays: IDX folders, CIFAR-10 folders, npz files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelward.core.errors import InputError, UnsafeFileError
from modelward.data.known import CIFAR10
from modelward.data.listing import CLASS_CAP, Listing, require_labels, require_memory
from modelward.data.stratify import Indices
from modelward.io.arrays import read_idx, read_npz
from modelward.io.cifar import read_cifar_batch, read_cifar_binary
from modelward.io.files import one_line, sha256_file

Array = NDArray[np.generic]
Pair = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Pixels (N, C, H, W) and labels (N,)."""


def _pixels(array: Array, name: str) -> NDArray[np.uint8]:
    """Return (N, C, H, W) of an array (N, H, W), (N, H, W, 1) or (N, H, W, 3)."""
    if array.dtype != np.uint8:
        message = f"{name}: images must be 8-bit (uint8, 0-255), these are {array.dtype}"
        raise InputError(message)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[3] not in (1, 3) or 0 in array.shape[1:]:
        message = f"{name}: images must have the shape (N, H, W), (N, H, W, 1) or (N, H, W, 3), these have {array.shape}"
        raise InputError(message)
    return array.transpose(0, 3, 1, 2).astype(np.uint8, copy=False)


def _pair(images: Array, labels: Array, name: str) -> Pair:
    """Check that images and labels fit together."""
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.ndim != 1 or not np.issubdtype(flat.dtype, np.integer) or len(flat) != len(images):
        message = f"{name}: {len(images)} images need as many whole numbers as labels, got {labels.dtype} of shape {labels.shape}"
        raise InputError(message)
    if len(flat) and not 0 <= int(flat.min()) <= int(flat.max()) < CLASS_CAP:
        message = f"{name}: labels run from {int(flat.min())} to {int(flat.max())}, outside [0, {CLASS_CAP})"
        raise InputError(message)
    return _pixels(images, name), flat.astype(np.int64)


def resize(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return uint8 images (N, C, H, W) at another size (H, W): bilinear with antialiasing, as a picture file would be resized.

    >>> tuple(resize(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), (4, 6)).shape)
    (2, 1, 4, 6)
    """
    if tuple(pixels.shape[2:]) == size:
        return pixels
    return torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)


def joined(
    train: Pair, test: Pair | None, name: str, *, classes: tuple[str, ...] | None = None, size: tuple[int, int] | None = None
) -> Listing:
    """Return a listing of arrays, the training part first.

    Parameters
    ----------
    train, test
        pixels (N, C, H, W) and labels (N,); ``test`` is ``None`` for a set without splits.
    name
        what the set is called.
    classes
        class names in label order; ``None``: the numbers 0 to the largest label.
    size
        height and width to resize to.

    Raises
    ------
    InputError
        when labels do not fit, or the two parts differ in shape.
    """
    parts = [train] if test is None else [train, test]
    if any(pixels.shape[1:] != train[0].shape[1:] for pixels, _ in parts):
        message = f"{name}: training images have the shape {train[0].shape[1:]}, test images {parts[1][0].shape[1:]}"
        raise InputError(message)
    labels = np.concatenate([part[1] for part in parts])
    count = len(classes) if classes is not None else int(labels.max(initial=-1)) + 1
    require_labels(labels, count, name)
    sides = None if test is None else np.arange(len(labels)) >= len(train[1])

    def read(where: Indices) -> Tensor:
        require_memory(len(where), (train[0].shape[1], *(size or train[0].shape[2:])), name)
        own = where < len(train[1])
        chosen = np.empty((len(where), *train[0].shape[1:]), dtype=np.uint8)
        chosen[own] = train[0][where[own]]
        if test is not None:
            chosen[~own] = test[0][where[~own] - len(train[1])]
        pixels = torch.from_numpy(chosen)
        return resize(pixels, size) if size else pixels

    names = classes or tuple(map(str, range(count)))
    return Listing(name, names, classes is not None, labels, sides, tuple(map(str, range(len(labels)))), read)


def read_idx_pair(images: Path, labels: Path, name: str, *, digests: Mapping[str, str] | None = None) -> Pair:
    """Read an IDX file of images (N, H, W) and the one of its labels (N,), both plain or gz.

    Raises
    ------
    UnsafeFileError
        when a digest is pinned for a file name and the file has another.
    InputError
        when they do not fit together.
    """
    for path in (images, labels):
        if digests is not None and sha256_file(path) != digests.get(path.name):
            message = f"{name}: {path.name} was altered or is incomplete (its SHA-256 is not the pinned one); install modelward again"
            raise UnsafeFileError(message)
    return _pair(read_idx(images), read_idx(labels), name)


def _idx_file(folder: Path, sides: tuple[str, ...], kind: str) -> Path | None:
    """Return the IDX file of one side and kind, by the names in use: ``t10k-labels-idx1-ubyte.gz``, ``test-labels.idx``."""
    found = sorted(path for side in sides for path in folder.glob(f"{side}-{kind}*") if "idx" in path.name and path.is_file())
    return found[0] if found else None


def list_idx(folder: Path, name: str, *, classes: tuple[str, ...] | None = None, size: tuple[int, int] | None = None) -> Listing | None:
    """List a folder of IDX files (``train-images...``, ``train-labels...``, ``t10k-`` or ``test-``); ``None`` when it is not one.

    Raises
    ------
    InputError
        when the labels of a side are missing or do not fit.
    """
    pairs: list[Pair] = []
    for sides in (("train",), ("t10k", "test")):
        images, labels = (_idx_file(folder, sides, kind) for kind in ("images", "labels"))
        if images is None and not pairs:
            return None
        if images is not None:
            if labels is None:
                message = f"{name}: {images.name} has no file of labels ({sides[0]}-labels...) beside it"
                raise InputError(message)
            pairs.append(read_idx_pair(images, labels, name))
    return joined(pairs[0], pairs[1] if len(pairs) > 1 else None, name, classes=classes, size=size)


def list_cifar(folder: Path, name: str, *, size: tuple[int, int] | None = None) -> Listing | None:
    """List a CIFAR-10 folder, python or binary version (``data_batch_1...``, ``test_batch``); ``None`` when it is not one.

    Raises
    ------
    InputError
        when labels lie outside [0, 10).
    """
    for suffix, read_batch in (("", read_cifar_batch), (".bin", read_cifar_binary)):
        train = sorted(folder.glob(f"data_batch_[0-9]{suffix}"))
        if train:
            pairs = [_chw(*read_batch(path), name) for path in train]
            first = (np.concatenate([pixels for pixels, _ in pairs]), np.concatenate([labels for _, labels in pairs]))
            test = folder / f"test_batch{suffix}"
            return joined(first, _chw(*read_batch(test), name) if test.is_file() else None, name, classes=CIFAR10, size=size)
    return None


def _chw(images: Array, labels: Array, name: str) -> Pair:
    """Check a CIFAR batch, whose images are (N, C, H, W) already."""
    return _pair(images.transpose(0, 2, 3, 1), labels, name)


def list_npz(path: Path, name: str, *, size: tuple[int, int] | None = None) -> Listing:
    """List an npz file with ``x`` and ``y``, or ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

    Images are uint8 (N, H, W) or (N, H, W, C) with C in {1, 3}, labels whole numbers (N,).

    Raises
    ------
    InputError
        when keys are missing or arrays do not fit together.
    """
    arrays = read_npz(path)
    if {"x_train", "y_train", "x_test", "y_test"} <= arrays.keys():
        train, test = (_pair(arrays[f"x_{side}"], arrays[f"y_{side}"], name) for side in ("train", "test"))
        return joined(train, test, name, size=size)
    if {"x", "y"} <= arrays.keys():
        return joined(_pair(arrays["x"], arrays["y"], name), None, name, size=size)
    found = one_line(", ".join(sorted(arrays))) or "nothing"
    message = f"{name}: an npz file holds x and y, or x_train, y_train, x_test and y_test; this one holds {found}"
    raise InputError(message)
