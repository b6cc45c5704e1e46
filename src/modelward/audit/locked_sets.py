"""Locked image sets on disk: one PNG an image where its original stood, sidecars beside them, and a manifest that holds the set together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from modelward.core.canonical import canonical_json
from modelward.core.errors import FormatError, InputError, ModelwardError, StoreError
from modelward.core.image_locks import LockedImages
from modelward.core.images import ImageSet
from modelward.core.progress import advance
from modelward.io.atomic import write_bytes
from modelward.io.documents import parse_document
from modelward.io.files import read_bytes
from modelward.io.images import FILE_CAP, png_bytes, read_image
from modelward.keys.cipher import mac
from modelward.locks.ledger import SHOWN

SCHEMA, VERSION = "modelward/locked-set", 1
MANIFEST, SEAL = "manifest.json", ".seal"
COMMENT = f"locked with modelward dataset-lock; {MANIFEST} says how, a key opens it"
CAP = 256 * 2**20


def published_names(names: Sequence[str]) -> list[str]:
    """Return the names under which images are published: their own where they are PNG already.

    >>> published_names(["cat/1.png", "cat/2.jpg"])
    ['cat/1.png', 'cat/2.jpg.png']
    """
    made = [name if name.lower().endswith(".png") else f"{name}.png" for name in names]
    twice = {name for name in made if made.count(name) > 1} if len(set(made)) < len(made) else set()
    if twice:
        message = f"two images would be published as {min(twice)}; rename one of them"
        raise InputError(message)
    return made


def write_locked(
    folder: Path, locked: LockedImages, names: Sequence[str], root: bytes, *, grey: Sequence[int], recoded: Sequence[int]
) -> None:
    """Write a locked set; files that are there with the same content are left, so that an interrupted run goes on.

    ``grey`` and ``recoded`` are positions of images that had another form in their files than in the set; see `Folder`.
    """
    published = published_names(names)
    files = {name: png_bytes(image.numpy(), comment=COMMENT) for name, image in zip(published, locked.images.pixels, strict=True)}
    files |= {published[i] + SEAL: box for i, box in locked.sidecars.items()}
    said = {"schema": SCHEMA, "version": VERSION, "files": published, "originals": list(names), "set": dict(locked.manifest)}
    said["forms"] = {"grey": list(grey), "recoded": list(recoded)}
    files[MANIFEST] = canonical_json({**said, "tag": mac(root, canonical_json(said), "folder")})
    write_whole(folder, files)


def write_whole(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a folder that appears when all of them are there; what is ready waits in a hidden folder beside it.

    Raises
    ------
    StoreError
        when the disk is full; the same call goes on where it stopped.
    """
    waiting = folder.absolute().parent / f".{folder.name}.partial"
    try:
        for number, (name, data) in enumerate(files.items()):
            path = waiting / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not (path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data):
                write_bytes(path, data)
            if number % 500 == 0:
                advance("writing", number, len(files))
        waiting.rename(folder)
    except (OSError, StoreError) as error:
        why = getattr(error, "strerror", None) or error
        message = f"{folder} was not written: {why}; what is ready waits in {waiting}, and the same command goes on from there"
        raise StoreError(message) from error


def partial(folder: Path) -> bool:
    """Return whether an interrupted run left something to go on with."""
    return (folder.absolute().parent / f".{folder.name}.partial").is_dir()


@dataclass(frozen=True, eq=False)
class Folder:
    """A locked set as it lies on disk.

    What `positions` says of forms holds once `require_tag` has passed; sets that were locked before forms were kept say nothing.
    """

    locked: LockedImages
    files: tuple[str, ...]
    originals: tuple[str, ...]
    said: Mapping[str, Any]

    def positions(self, form: str) -> frozenset[int]:
        """Return the positions of images that were ``"grey"`` in a colour set, or ``"recoded"``: palette and one-bit files."""
        forms = self.said.get("forms", {})
        return frozenset(forms.get(form, ()))

    def require_tag(self, root: bytes) -> None:
        """Raise `InputError` unless the names of the files are those that were locked."""
        rest = {name: value for name, value in self.said.items() if name != "tag"}
        if self.said.get("tag") != mac(root, canonical_json(rest), "folder"):
            message = f"the {MANIFEST} of this set was altered since it was locked; bring it as it was published"
            raise InputError(message)


def read_locked(folder: Path) -> Folder:
    """Return the locked set in a folder.

    Raises
    ------
    InputError
        when there is none, when images are missing, resized, or files of another format.
    FormatError
        for a damaged manifest.
    """
    if not (folder / MANIFEST).is_file():
        message = f"{folder} is no locked image set: it has no {MANIFEST}"
        raise InputError(message)
    said = parse_document(read_bytes(folder / MANIFEST, cap=CAP), SCHEMA, VERSION, name=MANIFEST)
    files, originals, manifest = said.get("files"), said.get("originals"), said.get("set")
    listed = [names for names in (files, originals) if isinstance(names, list) and all(isinstance(n, str) and _inside(n) for n in names)]
    shape = manifest.get("shape") if isinstance(manifest, dict) else None
    fit = len(listed) == 2 and len(listed[0]) == len(listed[1]) > 0
    if not fit or not isinstance(manifest, dict) or not isinstance(shape, list) or len(shape) != 3:
        message = f"{MANIFEST} is damaged or was altered: its lists of files and images do not fit together"
        raise FormatError(message)
    pixels = _read_pixels(folder, listed[0], shape)
    beside = {i: read_bytes(folder / (name + SEAL), cap=FILE_CAP) for i, name in enumerate(listed[0]) if (folder / (name + SEAL)).is_file()}
    images = ImageSet(pixels, torch.zeros(len(pixels), dtype=torch.int64), ("",), folder.resolve().name)
    return Folder(LockedImages(images, beside, manifest), tuple(listed[0]), tuple(listed[1]), said)


def _inside(name: str) -> bool:
    """Return whether a name stays inside the folder it is looked for in."""
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and not name.startswith("/") and "\\" not in name and "\0" not in name


def _read_pixels(folder: Path, names: Sequence[str], shape: Sequence[int]) -> torch.Tensor:
    """Return the pixels (N, C, H, W) of the images; all that are missing or of another size are named at once."""
    gone = [name for name in names if not (folder / name).is_file()]
    if gone:
        others = (
            any(path.stem == Path(gone[0]).stem for path in (folder / gone[0]).parent.glob("*")) if _readable(folder, gone[0]) else False
        )
        why = " (a file of another format stands in its place: it was encoded anew)" if others else ""
        message = f"{len(gone)} of {len(names)} images are missing: {_few(gone)}{why}; bring the set as it was published"
        raise InputError(message)
    found = []
    for name in names:
        try:
            found.append(read_image(folder / name, name=name))
        except ModelwardError as error:
            message = f"{name} was changed since it was locked: {error}"
            raise InputError(message) from error
    resized = [name for name, image in zip(names, found, strict=True) if list(image.shape) != list(shape)]
    if resized:
        message = (
            f"{len(resized)} of {len(names)} images were resized or changed in colour since they were locked: {_few(resized)}; "
            "such images cannot be unlocked, bring the set as it was published"
        )
        raise InputError(message)
    return torch.from_numpy(np.stack(found))


def _readable(folder: Path, name: str) -> bool:
    """Return whether the folder of a missing file is there."""
    return (folder / name).parent.is_dir()


def _few(names: Sequence[str]) -> str:
    """Return the first names of a list."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
