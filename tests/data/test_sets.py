from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import modelward.data.trees as trees_module
from modelward.core.errors import FormatError, InputError, UsageError
from modelward.core.images import ImageSet, assert_disjoint
from modelward.data.known import find_data, list_data
from modelward.data.sets import Splits, load_data

COUNT = 10


def picture(number: int, mode: str = "RGB", size: tuple[int, int] = (4, 5)) -> bytes:
    """A PNG (H, W) = ``size`` whose every pixel is ``number``."""
    buffer = io.BytesIO()
    Image.new(mode, size[::-1], number if mode == "L" else (number, 0, number)).save(buffer, "PNG")
    return buffer.getvalue()


def toy_files(*, mode: str = "RGB", splits: bool = True, top: str = "") -> dict[str, bytes]:
    files = {}
    for label, word in enumerate(("cat", "dog", "eel")):
        for i in range(COUNT):
            side = ("test/" if i >= 7 else "train/") if splits else ""
            files[f"{top}{side}{word}/{i}.png"] = picture(10 * label + i, mode)
    return files


def as_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def as_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def numbers(images: ImageSet) -> list[int]:
    return [int(value) for value in images.pixels[:, 0, 0, 0]]


def test_folder_and_zip_give_the_same_set(tmp_path: Path) -> None:
    plain = load_data(as_folder(tmp_path / "toy", toy_files()))
    zipped = load_data(as_zip(tmp_path / "toy.zip", toy_files()))
    wrapped = load_data(as_zip(tmp_path / "wrapped.zip", toy_files(top="toy/")))
    assert plain.train.digest == zipped.train.digest == wrapped.train.digest
    assert plain.test.digest == zipped.test.digest == wrapped.test.digest
    assert numbers(plain.train) == [10 * label + i for label in range(3) for i in range(7)]
    assert plain.test.labels.tolist() == [label for label in range(3) for _ in range(3)]
    assert (plain.train.classes, plain.train.shape, plain.name, plain.notes) == (("cat", "dog", "eel"), (3, 4, 5), "toy", ())
    assert plain.source == str(tmp_path / "toy")


def test_without_splits_a_seeded_fifth_of_each_class_is_for_test(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "toy", toy_files(splits=False))
    first, again, other = (load_data(folder, seed=seed) for seed in (1, 1, 2))
    assert first.train.labels.bincount().tolist() == [8, 8, 8]
    assert first.test.labels.bincount().tolist() == [2, 2, 2]
    assert first.test.digest == again.test.digest != other.test.digest
    assert sorted(numbers(first.train) + numbers(first.test)) == list(range(30))
    assert first.notes == ("no test part of its own: split 80/20 by class with seed 1",)
    assert_disjoint(first.train, first.test)


def test_tracks_are_not_torn_apart(tmp_path: Path) -> None:
    files = {
        f"{word}/{track:05d}_{i:05d}.png": picture(100 * label + 10 * track + i)
        for label, word in enumerate("ab")
        for track in range(5)
        for i in range(4)
    }
    splits = load_data(as_folder(tmp_path / "signs", files))
    sides = [{number // 10 for number in numbers(side)} for side in (splits.train, splits.test)]
    assert not sides[0] & sides[1]
    assert (len(splits.train), len(splits.test)) == (32, 8)
    assert any("before '_'" in note for note in splits.notes)


def test_a_class_with_one_prefix_is_split_file_by_file_and_told(tmp_path: Path) -> None:
    files = {f"{word}/img_{i}.png": picture(100 * label + i) for label, word in enumerate("ab") for i in range(10)}
    splits = load_data(as_folder(tmp_path / "toy", files))
    assert (len(splits.train), len(splits.test)) == (16, 4)
    assert splits.notes[1:] == ("2 classes have one name before '_' only, and were split file by file",)


def test_classes_file_gives_the_order_of_outputs(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "toy", toy_files())
    names = tmp_path / "names.txt"
    names.write_text("eel\nowl\ncat\n\ndog\n")
    splits = load_data(folder, classes_file=names)
    assert splits.train.classes == ("eel", "owl", "cat", "dog")
    assert splits.train.labels.tolist() == [2] * 7 + [3] * 7 + [0] * 7
    assert splits.notes == ("1 classes of the classes file have no images here",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cat\ndog\neal\n", "does not name 'eel'; did you mean 'eal'"),
        ("cat\ncat\ndog", "'cat' stands in it twice"),
        ("cat", "it holds 1"),
        ("\xff", "UTF-8"),
    ],
)
def test_a_classes_file_that_does_not_fit_is_refused(tmp_path: Path, text: str, words: str) -> None:
    names = tmp_path / "names.txt"
    names.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=words):
        load_data(as_folder(tmp_path / "toy", toy_files()), classes_file=names)


def test_a_classes_file_names_numbered_classes_in_order(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((12, 3, 3), np.uint8), y=np.arange(12) % 3)
    names = tmp_path / "names.txt"
    names.write_text("x\ny\nz\nunused\n")
    assert load_data(tmp_path / "a.npz", classes_file=names).train.classes == ("x", "y", "z", "unused")
    names.write_text("x\ny\n")
    with pytest.raises(InputError, match="labels run from 0 to 2"):
        load_data(tmp_path / "a.npz", classes_file=names)


def test_grey_stays_grey_and_one_colour_image_makes_three_channels(tmp_path: Path) -> None:
    files = toy_files(mode="L")
    assert load_data(as_folder(tmp_path / "grey", files)).train.shape == (1, 4, 5)
    files["train/dog/0.png"] = picture(99, "RGB")
    mixed = load_data(as_folder(tmp_path / "mixed", files))
    assert mixed.train.shape == mixed.test.shape == (3, 4, 5)
    assert mixed.train.pixels[3, :, 0, 0].tolist() == [3, 3, 3]
    assert mixed.train.pixels[7, :, 0, 0].tolist() == [99, 0, 99]


def test_mixed_sizes_need_a_size(tmp_path: Path) -> None:
    files = toy_files()
    files["train/dog/0.png"] = picture(1, size=(9, 9))
    folder = as_folder(tmp_path / "toy", files)
    with pytest.raises(InputError, match=r"train/dog/0\.png is 9x9.*--size H,W"):
        load_data(folder)
    assert load_data(folder, size=(6, 8)).train.shape == (3, 6, 8)


def test_limit_is_seeded_stratified_and_nested(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "toy", toy_files())
    few, more = load_data(folder, limit=3, seed=5), load_data(folder, limit=6, seed=5)
    assert few.train.labels.bincount(minlength=3).tolist() == [1, 1, 1]
    assert numbers(more.train)[:3] == numbers(few.train)
    assert few.train.classes == ("cat", "dog", "eel")
    assert numbers(load_data(folder, limit=99).train) == numbers(load_data(folder).train)


def test_limit_reads_no_more_than_it_returns(tmp_path: Path) -> None:
    folder = as_folder(tmp_path / "toy", toy_files())
    chosen = load_data(folder, limit=2)
    values = set(numbers(chosen.train) + numbers(chosen.test))
    for name, data in toy_files().items():
        if Image.open(io.BytesIO(data)).convert("RGB").getpixel((0, 0))[0] not in values:  # type: ignore[index]
            (folder / name).write_bytes(b"no image")
    assert load_data(folder, limit=2).train.digest == chosen.train.digest
    with pytest.raises(FormatError, match=r"/\d\.png is no PNG"):
        load_data(folder)


@pytest.mark.parametrize("keywords", [{"limit": 0}, {"size": (0, 4)}, {"size": (4, 9000)}])
def test_numbers_that_mean_nothing_are_refused(keywords: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        load_data("fashion-mini", **keywords)  # type: ignore[arg-type]


def test_paths_that_are_no_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no data set"):
        load_data(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images"):
        load_data(tmp_path / "empty")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"notes\.txt is no data set"):
        load_data(tmp_path / "notes.txt")
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(FormatError):
        load_data(tmp_path / "bad.zip")


def test_one_image_a_class_leaves_no_test_part(tmp_path: Path) -> None:
    files = {"a/1.png": picture(1), "b/1.png": picture(2)}
    with pytest.raises(InputError, match="leave no test part"):
        load_data(as_folder(tmp_path / "toy", files))


def test_a_name_wins_over_a_folder_and_a_path_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    as_folder(tmp_path / "fashion-mini", toy_files())
    assert load_data("fashion-mini", limit=1).train.shape == (1, 28, 28)
    assert load_data(Path("fashion-mini")).train.shape == (3, 4, 5)
    assert load_data("./fashion-mini").train.shape == (3, 4, 5)


def test_an_archive_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees_module, "KEEP_FROM", 5)
    files, cache = toy_files(mode="L"), tmp_path / "cache"
    files["train/dog/0.png"] = picture(99, "RGB")
    archive = as_zip(tmp_path / "toy.zip", files)
    few, fresh = load_data(archive, limit=4, cache=tmp_path / "unused"), load_data(archive, cache=cache)
    assert not (tmp_path / "unused").exists()
    monkeypatch.setattr(trees_module, "read_image", None)  # whatever is read from here on comes from the cache
    assert load_data(archive, cache=cache).train.digest == fresh.train.digest
    assert load_data(archive, limit=4, cache=cache).train.digest == few.train.digest
    with pytest.raises(TypeError):
        load_data(archive, size=(8, 8), cache=cache)


def test_a_damaged_entry_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees_module, "KEEP_FROM", 5)
    archive, cache = as_zip(tmp_path / "toy.zip", toy_files()), tmp_path / "cache"
    fresh = load_data(archive, cache=cache)
    entry = next(cache.iterdir())
    good = entry.read_bytes()
    entry.write_bytes(good[:-1] + bytes([good[-1] ^ 255]))
    assert load_data(archive, cache=cache).train.digest == fresh.train.digest
    assert entry.read_bytes() == good


def test_splits_of_two_kinds_cannot_be_made() -> None:
    one = ImageSet(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"), "one")
    other = ImageSet(torch.zeros(2, 3, 2, 2, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"), "other")
    with pytest.raises(InputError, match="same classes and shape"):
        Splits(one, other, "x", "x")


@pytest.mark.slow
@pytest.mark.parametrize("info", list_data(), ids=lambda info: info.name)
def test_real_sets_are_as_listed(info: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelward.data.known import DataInfo

    assert isinstance(info, DataInfo)
    if not info.present:
        pytest.skip(f"{info.name} is not in the data folder; set MODELWARD_DATA to a folder that holds it")
    decoded, read_image = list[str](), trees_module.read_image
    monkeypatch.setattr(trees_module, "read_image", lambda source, **how: decoded.append(how["name"]) or read_image(source, **how))
    splits = load_data(info.name, limit=90, cache=tmp_path)
    assert len(decoded) in {0, 90 + min(90, info.test)}  # what is not asked for is not decoded; arrays are not decoded at all
    assert splits.train.shape == info.shape
    assert len(splits.train.classes) == info.classes
    assert len(splits.train) == 90
    assert len(splits.test) == min(90, info.test)
    assert_disjoint(splits.train, splits.test)


@pytest.mark.slow
@pytest.mark.skipif(find_data("gtsrb-32") is None, reason="gtsrb-32 is not in the data folder")
def test_real_counts_are_as_listed(tmp_path: Path) -> None:
    info = next(info for info in list_data() if info.name == "gtsrb-32")
    splits = load_data("gtsrb-32", cache=tmp_path)
    assert (len(splits.train), len(splits.test)) == (info.train, info.test)
    assert load_data("gtsrb-32", cache=tmp_path).test.digest == splits.test.digest
