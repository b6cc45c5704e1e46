"""A set before its pixels are read: what there is, of which class, on which side, and how to read the chosen ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from modelward.core.errors import InputError
from modelward.core.nearest import nearest
from modelward.data.stratify import Indices
from modelward.io.files import read_bytes

MEMORY_CAP = 2**31
CLASS_CAP = 65_536


@dataclass(frozen=True, eq=False)
class Listing:
    """A labelled set whose pixels have not been read yet.

    Parameters
    ----------
    name
        what the set is called in reports.
    classes
        the K class names, in label order.
    named
        the names come with the set (folder names); ``False``: they are only the numbers of the labels.
    labels
        int64 (N,), values in [0, K).
    test
        bool (N,), true for samples of the test split; ``None`` when the set has no splits.
    groups
        N names of what must not be torn apart by a split.
    read
        returns the pixels of the chosen samples, in that order: uint8 (n, C, H, W).
    notes
        what the reader should know.
    """

    name: str
    classes: tuple[str, ...]
    named: bool
    labels: NDArray[np.int64]
    test: NDArray[np.bool_] | None
    groups: tuple[str, ...]
    read: Callable[[Indices], Tensor]
    notes: tuple[str, ...] = ()


def require_memory(count: int, shape: tuple[int, ...], name: str) -> None:
    """Raise `InputError` when ``count`` images of ``shape`` would take more than 2 GiB."""
    total = count * int(np.prod(shape, dtype=np.int64))
    if total > MEMORY_CAP:
        message = (
            f"{name}: {count} images of {'x'.join(map(str, shape))} take {total / 2**30:.1f} GiB, above the 2 GiB that are held in memory; "
            f"take fewer with `--limit {MEMORY_CAP * count // total // 2}` or smaller ones with `--size H,W`"
        )
        raise InputError(message)


def require_labels(labels: NDArray[np.int64], classes: int, name: str) -> None:
    """Raise `InputError` unless the labels lie in [0, classes) and name two classes at least."""
    if not len(labels):
        message = f"{name}: there are no images in it"
        raise InputError(message)
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        message = f"{name}: labels run from {low} to {high}, outside [0, {classes})"
        raise InputError(message)
    if low == high:
        message = f"{name}: all images are of one class; a set needs two classes at least"
        raise InputError(message)


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the class names of a text file, one a line, in the order of a model's outputs.

    Raises
    ------
    InputError
        when the file is not UTF-8 text, has fewer than two names or names one twice.
    """
    try:
        lines = read_bytes(path, cap=2**22).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        message = f"{path.name} is not a text file in UTF-8; it should hold one class name a line"
        raise InputError(message) from error
    names = tuple(line.strip() for line in lines if line.strip())
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    if len(names) < 2 or twice:
        message = f"{path.name} should hold two or more different class names, one a line; " + (
            f"{min(twice)!r:.80} stands in it twice" if twice else f"it holds {len(names)}"
        )
        raise InputError(message)
    return names


def with_classes(listing: Listing, names: tuple[str, ...]) -> Listing:
    """Return the listing with its labels renumbered so that class ``names[k]`` has label k.

    Where the classes of the set have names, they are looked up; names without images are allowed (outputs that the set does not exercise).
    Where they are only numbers, ``names`` names them in order.

    Raises
    ------
    InputError
        when a class of the set is not among ``names``.
    """
    if not listing.named:
        require_labels(listing.labels, len(names), listing.name)
        return dataclasses.replace(listing, classes=names, named=True)
    place = {name: label for label, name in enumerate(names)}
    missing = [name for name in listing.classes if name not in place]
    if missing:
        message = f"{listing.name}: the classes file does not name {missing[0]!r}{nearest(missing[0], names)}" + (
            f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        )
        raise InputError(message)
    renumber = np.asarray([place[name] for name in listing.classes], dtype=np.int64)
    unused = len(names) - len(listing.classes)
    notes = (*listing.notes, f"{unused} classes of the classes file have no images here") if unused else listing.notes
    return dataclasses.replace(listing, classes=names, labels=renumber[listing.labels], notes=notes)
