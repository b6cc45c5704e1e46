"""Exactly the images that a model was trained on, as ``SET`` or ``SET:PART``."""

from __future__ import annotations

import warnings

import torch

from modelward.core.errors import InputError
from modelward.core.images import ImageSet
from modelward.data import load_data

PARTS = ("train", "test", "all")


def set_and_part(trained_on: str) -> tuple[str, str | None]:
    """Return the set that ``SET:PART`` names, and which part of it; ``None`` where that is left open.

    >>> set_and_part("images/"), set_and_part("images/:all"), set_and_part("C:/images")
    (('images/', None), ('images/', 'all'), ('C:/images', None))
    """
    source, _, part = trained_on.rpartition(":")
    return (source, part) if source and part in PARTS else (trained_on, None)


def training_set(trained_on: str, *, size: tuple[int, int] | None = None) -> ImageSet:
    """Return the images that ``trained_on`` names: all of a set without a test part of its own, of another one its training part, which is said.

    Parameters
    ----------
    trained_on
        a folder, file or name; ``SET:train``, ``SET:test`` and ``SET:all`` say which part of a set that has a test part.
    size
        (H, W) that images are brought to.

    Raises
    ------
    InputError
        for a part that the set does not have.

    Examples
    --------
    >>> len(training_set("fashion-mini:train")), len(training_set("fashion-mini:test")), len(training_set("fashion-mini:all"))
    (6000, 2000, 8000)
    """
    source, part = set_and_part(trained_on)
    splits = load_data(source, size=size)
    if splits.halved and part in {"train", "test"}:
        message = f"--trained-on {trained_on}: {splits.name} has no {part} part of its own; leave :{part} away to take all of it"
        raise InputError(message)
    if part == "test":
        return splits.test
    if part == "train" or (part is None and not splits.halved):
        if part is None:
            told = f"--trained-on {source}: its training part was taken, {len(splits.train)} images; {source}:all takes the test part that it has, too"
            warnings.warn(told, stacklevel=2)
        return splits.train
    pixels, labels = (torch.cat([getattr(one, name) for one in (splits.train, splits.test)]) for name in ("pixels", "labels"))
    return ImageSet(pixels, labels, splits.train.classes, splits.name)
