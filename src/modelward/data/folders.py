"""Where the classes and splits stand in a tree of image files, be it a folder or a zip."""

from __future__ import annotations

import os
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from modelward.core.errors import InputError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".pgm", ".ppm"})
FOREIGN = frozenset(
    {".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".pbm", ".pnm", ".dng", ".tga", ".dds", ".exr"}
)
TRAIN = frozenset({"train", "training"})
TEST = ("test", "testing", "val", "valid", "validation")
FILE_CAP = 5_000_000


@dataclass(frozen=True)
class Entry:
    """One image file of a tree.

    Parameters
    ----------
    path
        where it is, relative to the tree, ``/`` between the parts.
    class_name
        the name of its class folder.
    test
        true in the test split.
    """

    path: str
    class_name: str
    test: bool

    @property
    def track(self) -> str:
        """Return what must not be torn apart: the file name before its first ``_``, or the whole name where it has none."""
        stem = self.path.rpartition("/")[2].rpartition(".")[0]
        return stem.split("_", maxsplit=1)[0]


@dataclass(frozen=True)
class Tree:
    """The images of a tree, training part first, sorted by class and path in byte order.

    ``split`` is true when the tree itself says which images are for test. ``left_out`` names the images that are no entries: those outside the
    class folders, and those of formats that are not read.
    """

    entries: tuple[Entry, ...]
    split: bool
    notes: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def walk(folder: Path) -> list[str]:
    """Return the relative paths of all files and of empty folders (ending in ``/``) under ``folder``; links to folders are not followed.

    Raises
    ------
    InputError
        when there are more than five million.
    """
    found: list[str] = []
    for here, folders, files in os.walk(folder):
        relative = PurePosixPath(Path(here).relative_to(folder).as_posix())
        found.extend((relative / name).as_posix() for name in files)
        links = [name for name in folders if (Path(here) / name).is_symlink()]
        found.extend(f"{(relative / name).as_posix()}/" for name in links)
        if not files and not folders and here != str(folder):
            found.append(f"{relative.as_posix()}/")
        if len(found) > FILE_CAP:
            message = f"{folder.name} holds more than {FILE_CAP:,} files; point to the folder whose subfolders are the classes"
            raise InputError(message)
    return found


def _visible(parts: Sequence[str]) -> bool:
    """Tell hidden files and the leftovers of archivers from content."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _suffix(path: str) -> str:
    """Return the lower-case suffix of a file, nothing for a folder."""
    return "" if path.endswith("/") else posixpath.splitext(path)[1].lower()


def _folder(path: str) -> tuple[str, ...]:
    """Return the folder that ``path`` is, or is in."""
    return tuple(path.split("/")[:-1])


def _without_top(paths: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Strip one folder that wraps all class folders, if there is one."""
    tops = {parts[0] for parts in paths}
    return [parts[1:] for parts in paths] if len(tops) == 1 and all(len(parts) > 2 for parts in paths) else paths


def _test_folder(tops: Iterable[str], name: str) -> tuple[str, str] | None:
    """Return the names of the training and the test folder among the top folders, or ``None`` where the top folders are classes."""
    by_word = {top.lower(): top for top in sorted(tops, reverse=True)}
    train = next((by_word[word] for word in sorted(TRAIN) if word in by_word), None)
    test = next((by_word[word] for word in TEST if word in by_word), None)
    if train is not None and test is not None:
        return train, test
    if (train or test) and len(by_word) > 1 and all(word in (*TRAIN, *TEST) for word in by_word):
        message = f"{name}: its folders are {' and '.join(sorted(by_word))}; call them train and test, or point to the one to use"
        raise InputError(message)
    return None


def _entries(paths: list[tuple[str, ...]], full: dict[tuple[str, ...], str], sides: tuple[str, str] | None) -> list[Entry]:
    """Turn split paths into entries; files outside class folders and outside the two split folders are left out."""
    if sides is None:
        return [Entry(full[parts], _composed(parts[0]), test=False) for parts in paths if len(parts) > 1]
    return [Entry(full[parts], _composed(parts[1]), test=parts[0] == sides[1]) for parts in paths if len(parts) > 2 and parts[0] in sides]


def _composed(name: str) -> str:
    """Return a folder's name in the form in which names are compared: some systems write accents as characters of their own."""
    return unicodedata.normalize("NFC", name)


def _once(paths: list[tuple[str, ...]], sides: tuple[str, str] | None) -> list[tuple[str, ...]]:
    """Take out a split folder that lies in one of its name, as in ``train/train/CLASS/image``."""
    if sides is None:
        return paths
    doubled = [
        side
        for side in sides
        if all(len(parts) > 3 and parts[1].lower() == side.lower() for parts in paths if parts[0] == side and len(parts) > 1)
    ]
    return [parts[:1] + parts[2:] if parts[0] in doubled and len(parts) > 1 else parts for parts in paths]


def _raw(name: str) -> bytes:
    """Return the bytes of a file name, also of one that is not valid UTF-8."""
    return name.encode("utf-8", "surrogateescape")


def _order(entry: Entry) -> tuple[bool, bytes, bytes]:
    """Training part first, then byte order, so that the same files give the same set everywhere."""
    return entry.test, _raw(entry.class_name), _raw(entry.path)


def _bare_classes(bare: Iterable[tuple[str, ...]], known: set[str], sides: tuple[str, str] | None) -> list[str]:
    """Return class folders without a readable image: dropping them silently would renumber the classes after them."""
    if sides is None:
        return sorted({_composed(parts[0]) for parts in bare} - known)
    return sorted({_composed(parts[1]) for parts in bare if parts[0] in sides and len(parts) > 1} - known)


def read_tree(files: Iterable[str], name: str) -> Tree:
    """Find classes and splits in a list of relative paths.

    Understood are ``CLASS/.../image`` and ``train|test/CLASS/.../image``, each also inside one top folder. Hidden files and files that are
    not images are left out. ``val`` stands in for ``test`` where there is none.

    Raises
    ------
    InputError
        when there are no images, no class folders, one class only, or a class folder without images.

    Examples
    --------
    >>> tree = read_tree(["pets/train/cat/1.png", "pets/train/dog/1.png", "pets/test/cat/2.png", "pets/README"], "pets")
    >>> [(entry.path, entry.class_name, entry.test) for entry in tree.entries]  # doctest: +NORMALIZE_WHITESPACE
    [('pets/train/cat/1.png', 'cat', False), ('pets/train/dog/1.png', 'dog', False), ('pets/test/cat/2.png', 'cat', True)]
    """
    full = {parts: path for path in files if _visible(parts := tuple(path.rstrip("/").split("/")))}
    images = [parts for parts, path in full.items() if _suffix(path) in SUFFIXES]
    if not images:
        message = f"{name}: there are no images in it (PNG, JPEG, WebP, PGM or PPM files in one folder a class)"
        raise InputError(message)
    stripped = _without_top(images)
    top = images[0][: len(images[0]) - len(stripped[0])]
    sides = _test_folder({parts[0] for parts in stripped if len(parts) > 1}, name)
    stripped = _once(stripped, sides)
    entries = _entries(stripped, {short: full[parts] for short, parts in zip(stripped, images, strict=True)}, sides)
    classes = {entry.class_name for entry in entries}
    bare = [_folder(path) for path in full.values() if path.endswith("/") or _suffix(path) in FOREIGN]
    lacking = _bare_classes([parts[len(top) :] for parts in bare if parts[: len(top)] == top and len(parts) > len(top)], classes, sides)
    if lacking:
        message = (
            f"{name}: the class folder {lacking[0]!r} holds no image that can be read (PNG, JPEG, WebP, PGM, PPM; links to folders are not "
            "followed); fill it or remove it"
        )
        raise InputError(message)
    if len(classes) < 2:
        found = f"only the class folder {min(classes)!r}" if classes else "images but no class folders"
        message = f"{name}: found {found}; a set needs one folder of images for each of two or more classes"
        raise InputError(message)
    taken = {entry.path for entry in entries}
    left_out = sorted((path for path in full.values() if _suffix(path) in SUFFIXES | FOREIGN and path not in taken), key=_raw)
    notes = (*_notes(entries, len(images), sides), *_unread(full.values(), entries))
    return Tree(tuple(sorted(entries, key=_order)), sides is not None, notes, tuple(left_out))


def _unread(paths: Iterable[str], entries: Sequence[Entry]) -> tuple[str, ...]:
    """Say which files beside the images are of a kind that is not read, and which folders beside the classes hold nothing but them."""
    classes = {entry.path.rpartition("/")[0] for entry in entries}
    beside = {folder.rpartition("/")[0] for folder in classes}
    kinds, folders = Counter[str](), Counter[str]()
    for path in paths:
        here = path.rpartition("/")[0]
        if path.endswith("/") or _suffix(path) in SUFFIXES:
            continue
        if here in classes:
            kinds[_suffix(path) or "no suffix"] += 1
        elif here.rpartition("/")[0] in beside and here and here not in beside:
            folders[here.rpartition("/")[2]] += 1
    found = ["files that are not read were left out: " + ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items()))] if kinds else []
    return (
        *found,
        *(f"folder {name} is no class: it holds no image that is read, and {n} other files" for name, n in sorted(folders.items())),
    )


def _notes(entries: list[Entry], images: int, sides: tuple[str, str] | None) -> tuple[str, ...]:
    """Say what was left out, and which classes one side lacks."""
    notes = [f"{images - len(entries)} images outside the class folders were left out"] if len(entries) < images else []
    if sides is not None:
        if not re.fullmatch("test(ing)?", sides[1], re.IGNORECASE):
            notes.append(f"there is no test folder; {sides[1]} was taken for it")
        train, test = ({entry.class_name for entry in entries if entry.test is side} for side in (False, True))
        notes.extend(f"class {name} has no training images" for name in sorted(test - train))
        notes.extend(f"class {name} has no test images" for name in sorted(train - test))
    return tuple(notes)
