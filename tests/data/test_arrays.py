from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modelward.core.errors import InputError
from modelward.data.arrays import resize
from modelward.data.known import CIFAR10, FASHION
from modelward.data.sets import load_data

RNG = np.random.default_rng(7)
IMAGES = RNG.integers(0, 256, (30, 6, 5), dtype=np.uint8)
LABELS = np.arange(30, dtype=np.uint8) % 3


def idx(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def idx_folder(folder: Path, *, test: bool = True) -> Path:
    folder.mkdir()
    (folder / "train-images-idx3-ubyte").write_bytes(idx(IMAGES[:20]))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(LABELS[:20]))
    if test:
        (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES[20:])))
        (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS[20:])))
    return folder


def test_idx_folder_is_read_bit_for_bit(tmp_path: Path) -> None:
    splits = load_data(idx_folder(tmp_path / "digits"))
    assert (splits.train.pixels.numpy()[:, 0] == IMAGES[:20]).all()
    assert (splits.test.pixels.numpy()[:, 0] == IMAGES[20:]).all()
    assert splits.test.labels.tolist() == LABELS[20:].tolist()
    assert (splits.train.classes, splits.name, splits.train.name) == (("0", "1", "2"), "digits", "digits train")


def test_idx_folder_without_test_files_is_split(tmp_path: Path) -> None:
    splits = load_data(idx_folder(tmp_path / "digits", test=False))
    assert (len(splits.train), len(splits.test)) == (17, 3)  # 7, 7 and 6 a class, a fifth of which rounds to one
    assert "split 80/20" in splits.notes[0]


def test_a_folder_called_fashion_mnist_has_its_class_names(tmp_path: Path) -> None:
    assert load_data(idx_folder(tmp_path / "fashion-mnist")).train.classes == FASHION


def test_idx_images_without_labels_are_refused(tmp_path: Path) -> None:
    folder = idx_folder(tmp_path / "digits")
    (folder / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(InputError, match="no file of labels"):
        load_data(folder)


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_npz_with_one_part_and_with_two(tmp_path: Path, channels: int | None) -> None:
    shape = (30, 6, 5) if channels is None else (30, 6, 5, channels)
    images = RNG.integers(0, 256, shape, dtype=np.uint8)
    np.savez(tmp_path / "one.npz", x=images, y=LABELS.astype(np.int32)[:, None])
    np.savez_compressed(tmp_path / "two.npz", x_train=images[:18], y_train=LABELS[:18], x_test=images[18:], y_test=LABELS[18:])
    one, two = load_data(tmp_path / "one.npz"), load_data(str(tmp_path / "two.npz"))
    expected = images.reshape(30, 6, 5, channels or 1).transpose(0, 3, 1, 2)
    assert (two.train.pixels.numpy() == expected[:18]).all()
    assert (two.test.pixels.numpy() == expected[18:]).all()
    together = {row.tobytes() for row in torch.cat([one.train.pixels, one.test.pixels]).numpy()}
    assert together == {row.tobytes() for row in np.ascontiguousarray(expected)}
    assert (len(one.train), len(one.test)) == (24, 6)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": IMAGES, "labels": LABELS}, "this one holds images, labels"),
        ({"x": IMAGES / 255, "y": LABELS}, "must be 8-bit"),
        ({"x": IMAGES, "y": LABELS[:9]}, "30 images need as many"),
        ({"x": IMAGES, "y": LABELS / 2}, "whole numbers"),
        ({"x": IMAGES, "y": LABELS.astype(int) - 1}, r"outside \[0"),
        ({"x": IMAGES, "y": LABELS.astype(int) * 2**40}, r"outside \[0"),
        ({"x": IMAGES, "y": LABELS * 0}, "of one class"),
        ({"x": IMAGES[:0], "y": LABELS[:0]}, "no images"),
        ({"x": IMAGES.reshape(30, 3, 2, 5), "y": LABELS}, "must have the shape"),
        ({"x": IMAGES.reshape(30, 30), "y": LABELS}, "must have the shape"),
        ({"x": IMAGES[:, :0], "y": LABELS}, "must have the shape"),
        ({"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:, 1:], "y_test": LABELS}, "training images have the shape"),
    ],
)
def test_npz_that_is_no_set_is_refused_in_one_sentence(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:  # type: ignore[type-arg]
    np.savez(tmp_path / "bad.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=words) as caught:
        load_data(tmp_path / "bad.npz")
    assert "\n" not in str(caught.value)


def cifar_records(count: int) -> tuple[np.ndarray, list[int]]:  # type: ignore[type-arg]
    return RNG.integers(0, 256, (count, 3072), dtype=np.uint8), [i % 10 for i in range(count)]


def test_cifar_python_and_binary_folders_hold_the_same(tmp_path: Path) -> None:
    python, binary = tmp_path / "python", tmp_path / "binary"
    python.mkdir()
    binary.mkdir()
    first = None
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        data, labels = cifar_records(20)
        first = data if first is None else first
        (python / name).write_bytes(pickle.dumps({b"data": data, b"labels": labels, b"batch_label": b"x"}, protocol=2))
        records = np.concatenate([np.array(labels, dtype=np.uint8)[:, None], data], axis=1)
        (binary / f"{name}.bin").write_bytes(records.tobytes())
    one, two = load_data(python), load_data(binary)
    assert one.train.digest == two.train.digest
    assert one.test.digest == two.test.digest
    assert (len(one.train), len(one.test), one.train.shape, one.train.classes) == (40, 20, (3, 32, 32), CIFAR10)
    assert first is not None
    assert (one.train.pixels[0].numpy() == first[0].reshape(3, 32, 32)).all()


def test_resizing_is_what_pillow_does(tmp_path: Path) -> None:
    pixels = torch.from_numpy(IMAGES[:, None].copy())
    for size in ((3, 3), (12, 10), (6, 5)):
        ours = resize(pixels, size).numpy()[:, 0].astype(int)
        theirs = np.stack([np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)) for image in IMAGES])
        assert np.abs(ours - theirs).max() <= 1  # rounding of one grey level
    np.savez(tmp_path / "a.npz", x=IMAGES, y=LABELS)
    assert load_data(tmp_path / "a.npz", size=(3, 4)).train.shape == (1, 3, 4)


def test_a_set_above_the_memory_cap_names_the_limit(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.concatenate([IMAGES, IMAGES]), y=np.concatenate([LABELS, LABELS]))
    with pytest.raises(InputError, match="`--limit 16`"):  # 2^31 / 8192^2 = 32 images, half of them for each part
        load_data(tmp_path / "a.npz", size=(8192, 8192))
