"""One way in: a name, a folder, an archive or an array file becomes a training and a test set."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from modelward.core.errors import InputError, UsageError
from modelward.core.images import ImageSet
from modelward.core.nearest import nearest
from modelward.core.rng import derive_seed
from modelward.data.arrays import list_cifar, list_idx, list_npz
from modelward.data.digits import list_digits
from modelward.data.fashion import list_embedded
from modelward.data.known import DIGITS, EMBEDDED, FASHION, NAMES, require_data
from modelward.data.listing import Listing, read_classes, with_classes
from modelward.data.stratify import Indices, split_off, stratified_order
from modelward.data.trees import list_folder, list_zip

Size = tuple[int, int] | None


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set: training and test images with the same classes and shape.

    Parameters
    ----------
    train, test
        the two sets.
    name
        what the data set is called in reports.
    source
        what it was loaded from, as the caller said it.
    notes
        what the reader should know: what was left out, how the split was made.
    halved
        whether the set had no test part of its own, so that the split is ours.

    Raises
    ------
    InputError
        when the two sets differ in classes or shape.
    """

    train: ImageSet
    test: ImageSet
    name: str
    source: str
    notes: tuple[str, ...] = ()
    halved: bool = False

    def __post_init__(self) -> None:
        """Check that the two sets are of one kind."""
        if self.train.classes != self.test.classes or self.train.shape != self.test.shape:
            message = (
                f"{self.name}: training and test images must have the same classes and shape, got {self.train.shape} and {self.test.shape}"
            )
            raise InputError(message)


def _list_path(place: Path, name: str, size: Size, cache: Path | None) -> Listing:
    """Find out what kind of data set ``place`` is, and list it."""
    if place.is_dir():
        words = FASHION if name == "fashion-mnist" else None
        found = list_idx(place, name, classes=words, size=size) or list_cifar(place, name, size=size)
        return found or list_folder(place, name, size=size)
    if place.suffix.lower() == ".npz":
        return list_npz(place, name, size=size)
    if place.suffix.lower() == ".zip":
        return list_zip(place, name, size=size, cache=cache)
    message = (
        f"{place.name} is no data set that can be read; bring a folder of class folders, a .zip of one, IDX or CIFAR-10 files, or .npz"
    )
    raise InputError(message)


def _list_source(source: str | Path, size: Size, cache: Path | None) -> Listing:
    """List a named set or the one at a path; a name wins over a file of that name."""
    if source == EMBEDDED:
        return list_embedded(size=size)
    if isinstance(source, str) and source in NAMES:
        place = require_data(source)
        if source == DIGITS and place.is_file() and place.suffix == ".gz":
            return list_digits(place, size=size)
        return _list_path(place, source, size, cache)
    place = Path(source).expanduser()
    if not place.exists():
        message = (
            f"there is no data set, folder or file {str(source)!r}{nearest(str(source), NAMES)}; `modelward data list` shows the names"
        )
        raise UsageError(message)
    return _list_path(place, place.resolve().stem if place.is_file() else place.resolve().name, size, cache)


def _sides(listing: Listing, seed: int) -> tuple[Indices, Indices, tuple[str, ...]]:
    """Return the indices of the training and the test part, and notes on how they came about."""
    if listing.test is not None:
        return np.flatnonzero(~listing.test).astype(np.int64), np.flatnonzero(listing.test).astype(np.int64), ()
    rng = np.random.default_rng(derive_seed("data split", seed))
    train, test, torn = split_off(listing.labels, listing.groups, rng=rng)
    notes = [f"no test part of its own: split 80/20 by class with seed {seed}"]
    grouped = len(set(zip(listing.labels.tolist(), listing.groups, strict=True))) < len(listing.labels)
    if grouped and len(torn) < len(np.unique(listing.labels)):
        notes.append("files of one class with the same name before '_' were kept in one part")
    if grouped and len(torn):
        notes.append(f"{len(torn)} classes have one name before '_' only, and were split file by file")
    return train, test, tuple(notes)


def _limited(where: Indices, labels: Indices, limit: int | None, seed: int, side: str) -> Indices:
    """Return the first ``limit`` of a seeded, stratified shuffle."""
    if limit is None or limit >= len(where):
        return where
    order = stratified_order(labels[where], rng=np.random.default_rng(derive_seed("data limit", side, seed)))
    return where[order[:limit]]


def _check(size: Size, limit: int | None) -> None:
    """Refuse numbers that mean nothing."""
    if size is not None and not all(1 <= length <= 8192 for length in size):
        message = f"size is height and width in pixels, each from 1 to 8192, got {size}"
        raise UsageError(message)
    if limit is not None and limit < 1:
        message = f"limit must be 1 or more images, got {limit}"
        raise UsageError(message)


def load_data(
    source: str | Path = EMBEDDED,
    *,
    size: Size = None,
    classes_file: Path | None = None,
    seed: int = 0,
    limit: int | None = None,
    cache: Path | None = None,
) -> Splits:
    """Load a data set.

    Parameters
    ----------
    source
        a name that `known.list_data` gives (write ``./NAME`` or a `Path` for a file of that name); a folder of class folders, with
        ``train`` and ``test`` inside or not; a zip of one; a folder of IDX or CIFAR-10 files; an npz file.
    size
        height and width to resize to, pixels.
    classes_file
        text file with one class name a line, in the order of the model's outputs.
    seed
        of the 80/20 split where the set has none, and of ``limit``.
    limit
        number of images to take of each part, chosen at random with the class shares kept; n images are the beginning of n + 1.
    cache
        folder for decoded archives; ``$MODELWARD_HOME/data`` or ``~/.cache/modelward/data`` by default.

    Returns
    -------
    Splits
        pixels uint8 (N, C, H, W), C = 1 when all images are grey and 3 otherwise.

    Raises
    ------
    UsageError
        for an unknown name, a path that does not exist, a size or limit that means nothing.
    UnavailableError
        for a named set that is not here.
    InputError, FormatError
        for a set that cannot be worked on: no images, one class, mixed sizes without ``size``, damaged files.

    Examples
    --------
    >>> splits = load_data("fashion-mini", limit=100)
    >>> len(splits.train), splits.train.shape, splits.train.classes[1]
    (100, (1, 28, 28), 'Trouser')
    """
    _check(size, limit)
    listing = _list_source(source, size, cache)
    if classes_file is not None:
        listing = with_classes(listing, read_classes(Path(classes_file)))
    train, test, notes = _sides(listing, seed)
    if not len(train) or not len(test):
        message = f"{listing.name}: its {len(listing.labels)} images leave no {'test' if len(train) else 'training'} part; bring more"
        raise InputError(message)
    train, test = (_limited(side, listing.labels, limit, seed, word) for side, word in ((train, "train"), (test, "test")))
    pixels = listing.read(np.concatenate([train, test]))
    labels = torch.from_numpy(np.concatenate([listing.labels[train], listing.labels[test]]))
    whole = ImageSet(pixels, labels, listing.classes, listing.name)
    return Splits(
        dataclasses.replace(whole, pixels=pixels[: len(train)], labels=labels[: len(train)], name=f"{listing.name} train"),
        dataclasses.replace(whole, pixels=pixels[len(train) :], labels=labels[len(train) :], name=f"{listing.name} test"),
        listing.name,
        str(source),
        (*listing.notes, *notes),
        halved=listing.test is None,
    )
