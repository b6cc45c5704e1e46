"""Files that people have: deep grey images with a transparent value, labels in order, arrays beside folders of their names, labels from one."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from modelward.core.errors import FormatError, UnsafeFileError
from modelward.data.sets import load_data
from modelward.io.arrays import read_npz
from modelward.io.images import read_image
from modelward.io.tables import read_answers_csv


def test_the_transparent_value_of_a_deep_grey_image_is_white() -> None:
    stream, wide = io.BytesIO(), np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    Image.fromarray(wide).save(stream, "PNG")
    whole = stream.getvalue()
    at = whole.index(b"IDAT") - 4
    chunks = io.BytesIO()
    PngImagePlugin.putchunk(chunks, b"tRNS", (0).to_bytes(2, "big"))
    clear = whole[:at] + chunks.getvalue() + whole[at:]
    assert read_image(whole).tolist() == [[[0, 1, 128, 255]]]
    assert read_image(clear).tolist() == [[[255, 1, 128, 255]]]


def test_labels_in_order_are_read_and_bombs_are_not(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(10), 15_000)
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((4, 2, 2), np.uint8), y=labels)
    assert np.array_equal(read_npz(tmp_path / "a.npz")["y"], labels)
    np.savez_compressed(tmp_path / "b.npz", y=np.zeros(10_000_000, np.int64))
    with pytest.raises(UnsafeFileError, match="unpacks to 80,000,128 bytes"):
        read_npz(tmp_path / "b.npz")


def test_a_folder_of_the_name_of_an_idx_file_is_passed_over(tmp_path: Path) -> None:
    def idx(array: np.ndarray) -> bytes:
        return bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape) + array.tobytes()

    for side in ("train", "t10k"):
        for kind, array in (("images", np.zeros((8, 4, 4), np.uint8)), ("labels", np.arange(8, dtype=np.uint8) % 2)):
            (tmp_path / f"{side}-{kind}.idx{array.ndim}-ubyte").write_bytes(idx(array))
            (tmp_path / f"{side}-{kind}-idx{array.ndim}-ubyte").mkdir()
    splits = load_data(str(tmp_path))
    assert (len(splits.train), len(splits.test)) == (8, 8)


def test_labels_that_count_from_one_are_refused(tmp_path: Path) -> None:
    names = [f"{i:05d}.png" for i in range(20)]
    path = tmp_path / "answers.csv"
    path.write_text("file,label\n" + "".join(f"{name},{i % 10 + 1}\n" for i, name in enumerate(names)))
    with pytest.raises(FormatError, match="classes 0 to 9; do they count from 1"):
        read_answers_csv(path, names, 10)
    assert read_answers_csv(path, names, 11).labels.max() == 10
