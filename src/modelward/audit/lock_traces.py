"""Whose name is in images: those that an authorised user sent to a locked model, and a copy of a locked image set that turned up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modelward.audit.locked_sets import read_locked
from modelward.audit.locking import locking
from modelward.core.errors import InputError, Undecided, UsageError
from modelward.core.image_locks import DataLock
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.data.folders import SUFFIXES
from modelward.io.images import read_image

MOST = 100_000


@dataclass(frozen=True)
class Named:
    """Whose name is in images.

    Parameters
    ----------
    user
        the user, or ``None``.
    votes
        how many images name whom, where every image speaks for itself.
    images
        how many were read.
    """

    user: str | None
    votes: dict[str, int]
    images: int


def trace_images(suspect: Path, key: Key, users: Sequence[str], *, locked: Path | None = None) -> Named:
    """Return whose name is in the images of a folder, or in one image.

    Parameters
    ----------
    suspect
        an image, or a folder that is searched through.
    key
        the owner's, of a lock whose images carry names.
    users
        who is looked for.
    locked
        the published folder, for a lock of image sets.

    Raises
    ------
    Undecided
        when there is nobody to look for.
    UsageError
        for a lock whose images carry no names, and where ``locked`` is missing.
    InputError
        for a suspect without images, or with images of several sizes.
    """
    if not users:
        raise Undecided("there is nobody to look for: pass --registry, or --user NAME for each")
    method: Any = locking(key.method, dict(key.fact(dict, "settings")))
    pixels = read_pixels(suspect)
    if isinstance(method, DataLock):
        if locked is None:
            message = f"{key.method} reads names with the set that was published: say --locked DIR"
            raise UsageError(message)
        copy = ImageSet(pixels, torch.zeros(len(pixels), dtype=torch.int64), ("",), suspect.name)
        votes = dict(method.traced(copy, read_locked(locked).locked, key, users))
        first = sorted(votes, key=lambda name: -votes[name])
        alone = len(first) == 1 or (len(first) > 1 and votes[first[0]] > votes[first[1]])
        return Named(first[0] if alone else None, votes, len(pixels))
    if not hasattr(method, "trace"):
        message = f"{key.method} draws no names into images; pass a key file that was found"
        raise UsageError(message)
    return Named(method.trace(pixels, key, users), {}, len(pixels))


def image_files(place: Path) -> list[Path]:
    """Return the images in a folder in the order of their names, or the one image; raises `InputError` for none, or too many."""
    files = sorted(path for path in place.rglob("*") if path.suffix.lower() in SUFFIXES) if place.is_dir() else [place]
    if not files or not place.exists():
        message = f"{place} holds no images; pass an image, or a folder of PNG or JPEG files"
        raise InputError(message)
    if len(files) > MOST:
        message = f"{place} holds {len(files):,} images; pass at most {MOST:,}"
        raise InputError(message)
    return files


def read_pixels(place: Path) -> Tensor:
    """Return the images (N, C, H, W), uint8, of a folder in the order of their names, or one image; raises `InputError` for none."""
    found = [read_image(path, name=path.name) for path in image_files(place)]
    shapes = {image.shape for image in found}
    if len(shapes) > 1:
        message = f"the images in {place} differ in size or colour: {', '.join(map(str, sorted(shapes)[:3]))}; names are read from images as they were sent"
        raise InputError(message)
    return torch.from_numpy(np.stack(found))
