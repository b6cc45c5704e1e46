"""Image sets to lock: what they hold, and why some are refused before anything is written."""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from modelward.audit.locked_sets import CAP, COMMENT, MANIFEST, SCHEMA, SEAL
from modelward.core.errors import InputError
from modelward.core.images import ImageSet
from modelward.data import load_data
from modelward.data.folders import FOREIGN, SUFFIXES, Tree, read_tree, walk
from modelward.data.forms import form_of
from modelward.data.trees import decode
from modelward.io.archives import ZipFolder
from modelward.io.files import read_bytes
from modelward.io.images import FILE_CAP, read_image

Fetch = Callable[[str], bytes]


@dataclass(frozen=True, eq=False)
class Source:
    """Images to lock.

    Parameters
    ----------
    images, names
        N images, and the names of their files.
    place
        the folder or zip where those files are, if there are any.
    grey
        positions of grey images that were spread over three channels, because others have colour.
    recoded
        positions of palette and one-bit images: without their files, they come back in the same colours as RGB and as grey.
    """

    images: ImageSet
    names: tuple[str, ...]
    place: Path | None = None
    grey: tuple[int, ...] = ()
    recoded: tuple[int, ...] = ()

    def files(self, which: Iterable[int]) -> dict[int, bytes]:
        """Return the whole files of images, by position; nothing where there are none."""
        if self.place is None:
            return {}
        with _opened(self.place) as fetch:
            return {i: fetch(self.names[i]) for i in which}


def read_source(data: str, *, whole: bool) -> Source:
    """Return the images of a folder or a zip of class folders, of both splits, or of another set that has a name or a file.

    A locked set is known by its manifest, by its sidecars, and by the comment in its images' files. Where somebody has written the images
    anew nothing tells them from others: what they hide is enciphered and has no header, so that it takes the key to find it.

    Parameters
    ----------
    data
        what `load_data` takes.
    whole
        every image comes back as a whole file, so that its form does not matter.

    Raises
    ------
    InputError
        for a set that is locked already, with images outside the class folders or of different sizes; unless ``whole``, for images
        with transparency, more than 8 bits, other colours than RGB, or several frames.
    """
    place = Path(data).expanduser()
    if place.is_dir():
        return _read(place, walk(place), place.resolve().name, whole=whole)
    if place.is_file() and place.suffix.lower() == ".zip":
        with ZipFolder(place) as archive:
            names = archive.names
        return _read(place, names, place.resolve().stem, whole=whole)
    splits = load_data(data)
    sides = [("train", splits.train), ("test", splits.test)]
    names = [f"{side}/{part.classes[k]}/{i:06d}.png" for side, part in sides for i, k in enumerate(part.labels.tolist())]
    pixels, labels = (torch.cat([getattr(part, what) for _, part in sides]) for what in ("pixels", "labels"))
    return Source(ImageSet(pixels, labels, splits.train.classes, splits.name), tuple(names))


@contextlib.contextmanager
def _opened(place: Path, cap: int = FILE_CAP) -> Iterator[Fetch]:
    """Give what reads the files of a folder or a zip."""
    if place.is_dir():
        yield lambda name: read_bytes(place / name, cap=cap)
        return
    with ZipFolder(place) as archive:
        yield archive.read


def _read(place: Path, files: Sequence[str], name: str, *, whole: bool) -> Source:
    """Return the images of a folder or a zip."""
    _require_unlocked(place, files)
    tree = read_tree(files, name)
    _require_all_labelled(tree, name)
    names = [entry.path for entry in tree.entries]
    recoded: set[str] = set()
    try:
        with _opened(place) as fetch:
            pixels, channels = decode(names, lambda path: _image(fetch(path), path, name, recoded, whole=whole), name)
    except InputError as error:
        raise InputError(
            str(error).replace("give one with `--size H,W`", "a lock needs one size: lock each size as a set of its own")
        ) from error
    classes = tuple(dict.fromkeys(sorted((entry.class_name for entry in tree.entries), key=str.encode)))
    labels = torch.tensor([classes.index(entry.class_name) for entry in tree.entries])
    grey = torch.nonzero(channels < pixels.shape[1]).flatten().tolist()
    again = [i for i, path in enumerate(names) if path in recoded]
    return Source(ImageSet(pixels, labels, classes, name), tuple(names), place, tuple(grey), tuple(again))


def _image(content: bytes, path: str, name: str, recoded: set[str], *, whole: bool) -> NDArray[np.uint8]:
    """Return the pixels of a file, and note a path whose file is recoded; refuse what would not come back as it was."""
    form = form_of(content)
    if form.comment == COMMENT:
        message = f"{name} is locked already: {path} says so, and the {MANIFEST} is gone; lock the originals"
        raise InputError(message)
    if form.lost and not whole:
        message = (
            f"{name}: {path} has {form.lost}, and backend=rdh gives back 8 bits of grey or RGB only; lock this set with "
            "`--set backend=sidecar`, which gives back whole files"
        )
        raise InputError(message)
    if form.recoded:
        recoded.add(path)
    return read_image(content, name=path)


def _require_all_labelled(tree: Tree, name: str) -> None:
    """Refuse a set with images that would be missing in the locked one: whoever publishes it would hardly notice."""
    foreign = [path for path in tree.left_out if posixpath.splitext(path)[1].lower() in FOREIGN]
    beside = [path for path in tree.left_out if path not in foreign]
    if beside:
        where = "the class folders of train and test" if tree.split else "the class folders"
        message = (
            f"{name}: {_count(beside, 'image', 'images')} beside {where}, the first is {beside[0]}: labels are missing; "
            "move each into the folder of its class, or out of the set"
        )
        raise InputError(message)
    if foreign:
        message = (
            f"{name}: {_count(foreign, 'image', 'images')} there in a format that is not read, the first is {foreign[0]}; "
            "save each as PNG, or move it out of the set"
        )
        raise InputError(message)


def _count(names: Sequence[str], one: str, many: str) -> str:
    """Return how many there are, with the verb.

    >>> _count(["a"], "image", "images"), _count(["a", "b"], "image", "images")
    ('1 image lies', '2 images lie')
    """
    return f"1 {one} lies" if len(names) == 1 else f"{len(names):,} {many} lie"


def _require_unlocked(place: Path, files: Sequence[str]) -> None:
    """Refuse a set that is locked, by its manifest or by the sidecars of its images."""
    with _opened(place, cap=CAP) as fetch:
        found = next((path for path in files if posixpath.basename(path) == MANIFEST and _of_ours(fetch(path))), None)
    above = place.resolve().parent / MANIFEST
    if found is None and place.is_dir() and above.is_file():
        content = read_bytes(above, cap=CAP)
        found = f"../{MANIFEST}" if _of_ours(content) and f'"{place.resolve().name}/'.encode() in content else None
    if found is not None:
        message = f"{place} is locked already: {found} is the manifest of a locked set; unlock it first, or lock the originals"
        raise InputError(message)
    sealed = {path.removesuffix(SEAL) for path in files if path.endswith(SEAL)} & set(files)
    if sealed:
        images = sum(posixpath.splitext(path)[1].lower() in SUFFIXES for path in files)
        message = (
            f"{place} is locked already: {len(sealed):,} of {images:,} images have a sidecar ({SEAL}) beside them, and the {MANIFEST} is gone; "
            "lock the originals"
        )
        raise InputError(message)


def _of_ours(manifest: bytes) -> bool:
    """Return whether a manifest is that of a locked set, also of one whose end is cut off; other tools write files of this name too."""
    return SCHEMA.encode() in manifest or manifest.startswith(b'{"files":[')
