"""Trees of image files, in a folder or a zip, as listings: decoded when asked for, archives remembered between runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelward.core.errors import InputError
from modelward.core.progress import advance
from modelward.data.folders import Tree, read_tree, walk
from modelward.data.listing import Listing, require_labels, require_memory
from modelward.data.stored import cache_folder, entry_path, keep, recall
from modelward.data.stratify import Indices
from modelward.io.archives import ZipFolder
from modelward.io.files import sha256_file
from modelward.io.images import read_image

Size = tuple[int, int] | None
Fetch = Callable[[str], NDArray[np.uint8]]
KEEP_FROM = 2_000
"""Fewer images than this decode in under a second, so their pixels are not kept on disk."""


def decode(paths: Sequence[str], fetch: Fetch, name: str) -> tuple[Tensor, Tensor]:
    """Read images of one size into one tensor; grey ones are spread over three channels as soon as one has colour.

    Parameters
    ----------
    paths
        N names of files.
    fetch
        returns the uint8 pixels (C, H, W) of one of them, C in {1, 3}.
    name
        the set, for messages.

    Returns
    -------
    tuple
        pixels uint8 (N, C, H, W), and the number of channels each image had of its own, uint8 (N,).

    Raises
    ------
    InputError
        when sizes differ, or the set needs more than 2 GiB.

    Examples
    --------
    >>> pixels, channels = decode(["1", "3"], lambda path: np.full((int(path), 2, 2), 7, np.uint8), "toy")
    >>> tuple(pixels.shape), channels.tolist()
    ((2, 3, 2, 2), [1, 3])
    """
    first = fetch(paths[0])
    require_memory(len(paths), first.shape, name)
    pixels = np.empty((len(paths), *first.shape), dtype=np.uint8)
    channels = np.empty(len(paths), dtype=np.uint8)
    for i, path in enumerate(paths):
        image = first if i == 0 else fetch(path)
        if image.shape[1:] != first.shape[1:]:
            sizes = [f"{shape[1]}x{shape[2]}" for shape in (first.shape, image.shape)]
            message = f"{name}: images differ in size ({paths[0]} is {sizes[0]}, {path} is {sizes[1]}); give one with `--size H,W`"
            raise InputError(message)
        if len(image) > pixels.shape[1]:
            require_memory(len(paths), image.shape, name)
            pixels = np.repeat(pixels, len(image), axis=1)
        pixels[i], channels[i] = image, len(image)
        if i % 500 == 0:
            advance(f"reading {name}", i, len(paths))
    advance(f"reading {name}", len(paths), len(paths))
    return torch.from_numpy(pixels), torch.from_numpy(channels)


def _chosen(pixels: Tensor, channels: Tensor, where: Indices) -> Tensor:
    """Return the chosen images as if only they had been decoded."""
    if len(where) < len(pixels) or bool((np.diff(where) != 1).any()):
        index = torch.from_numpy(where)
        pixels, channels = pixels[index], channels[index]
    # Grey images inside a colour set were spread over three equal channels; a choice without colour goes back to one.
    return pixels[:, :1].contiguous() if int(channels.max()) == 1 < pixels.shape[1] else pixels


def _listing(tree: Tree, name: str, read: Callable[[Indices], Tensor]) -> Listing:
    """Turn a tree into a listing."""
    classes = tuple(sorted({entry.class_name for entry in tree.entries}, key=lambda word: word.encode("utf-8", "surrogateescape")))
    place = {word: label for label, word in enumerate(classes)}
    labels = np.asarray([place[entry.class_name] for entry in tree.entries], dtype=np.int64)
    require_labels(labels, len(classes), name)
    test = np.asarray([entry.test for entry in tree.entries]) if tree.split else None
    groups = tuple(entry.track for entry in tree.entries)
    return Listing(name, classes, named=True, labels=labels, test=test, groups=groups, read=read, notes=tree.notes)


def list_folder(folder: Path, name: str, *, size: Size = None) -> Listing:
    """List a folder of class folders; see `folders.read_tree` for what is understood.

    Raises
    ------
    InputError
        when there is nothing to be found; later, from ``read``, when images differ in size and ``size`` is not given.
    """
    tree = read_tree(walk(folder), name)

    def read(where: Indices) -> Tensor:
        paths = [tree.entries[i].path for i in where]
        pixels, _ = decode(paths, lambda path: read_image(folder / path, size=size, name=path), name)
        return pixels

    return _listing(tree, name, read)


def list_zip(archive: Path, name: str, *, size: Size = None, cache: Path | None = None) -> Listing:
    """List a zip of class folders; the decoded pixels of a large one are kept in ``cache`` under the digest of the archive.

    Raises
    ------
    InputError, FormatError
        as `list_folder`; when the archive is damaged or refused.
    """
    with ZipFolder(archive) as opened:
        tree = read_tree(opened, name)

    def decoded(where: Indices) -> tuple[Tensor, Tensor]:
        with ZipFolder(archive) as opened:
            return decode([tree.entries[i].path for i in where], lambda path: read_image(opened.read(path), size=size, name=path), name)

    def read(where: Indices) -> Tensor:
        if len(where) < KEEP_FROM:
            return decoded(where)[0]
        place = entry_path(cache or cache_folder(), sha256_file(archive), size)
        found = recall(place, len(tree.entries))
        if found is not None:
            return _chosen(*found, where)
        everything = np.arange(len(tree.entries), dtype=np.int64)
        if len(where) < len(everything):
            return decoded(where)[0]
        pixels, channels = decoded(everything)
        if not keep(place, pixels, channels):
            advance(f"reading {name}", len(where), len(where), "not kept for next time: the cache folder cannot be written")
        return _chosen(pixels, channels, where)

    return _listing(tree, name, read)
