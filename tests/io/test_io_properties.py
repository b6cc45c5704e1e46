"""Laws of the doors: what is written is what is read, and equal content has equal bytes."""

import csv
import io
import math
import os
import random
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.extra import numpy as npst

from modelward.core.canonical import digest_bytes, plain
from modelward.io import archives, arrays, atomic, container, files, images, sniff, tables
from modelward.io import safetensors as st

NAMES = some.text(some.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).filter(
    lambda name: name != "__metadata__"
)
KINDS = some.sampled_from(["uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "bool"])
ARRAYS = KINDS.flatmap(lambda kind: npst.arrays(kind, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))
TABLES = some.dictionaries(NAMES, ARRAYS, max_size=4)
FACTS = some.dictionaries(NAMES, some.text(some.characters(codec="utf-8"), max_size=20), max_size=4)
fewer = settings(max_examples=40)


def same(left, right):
    """Tell whether two tables hold the same types, shapes and bytes."""
    return {k: (a.dtype, a.shape, a.tobytes()) for k, a in left.items()} == {k: (a.dtype, a.shape, a.tobytes()) for k, a in right.items()}


@fewer
@given(TABLES, FACTS)
def test_safetensors_are_content_addressed(parts, facts):
    data = st.dump_arrays(parts, facts)
    back, metadata = st.parse_arrays(data)
    assert same(back, parts)
    assert metadata == facts
    assert st.dump_arrays(dict(reversed(parts.items())), dict(reversed(facts.items()))) == data
    assert st.dump_arrays(back, metadata) == data


@fewer
@given(TABLES)
def test_both_doors_see_the_same_numbers(parts):
    tensors, _ = st.parse_tensors(st.dump_arrays(parts, {}))
    assert same({name: tensor.numpy() for name, tensor in tensors.items()}, parts)


FACT = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**60), 2**60) | some.floats() | some.text(some.characters(codec="utf-8"), max_size=9),
    lambda inner: (
        some.lists(inner, max_size=3) | some.dictionaries(some.text(some.characters(codec="utf-8"), max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@fewer
@given(some.dictionaries(some.sampled_from(["method", "facts", "digest", "modelward", "0" * 64]), FACT, max_size=4), TABLES)
def test_keys_come_back_whole(header, parts):
    data = container.pack(header, parts)
    back, found = container.unpack(data)
    assert back == plain(header)
    assert same(found, parts)


@fewer
@given(npst.arrays(np.uint8, some.tuples(some.sampled_from([1, 3]), some.integers(1, 9), some.integers(1, 9))))
def test_png_keeps_every_pixel(pixels):
    data = images.png_bytes(pixels)
    assert np.array_equal(images.read_image(data), pixels)
    assert images.image_size(data) == pixels.shape[1:]


@fewer
@given(
    some.lists(
        some.lists(some.text(some.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8), min_size=2, max_size=2), max_size=5
    )
)
def test_csv_cells_are_never_formulas_and_lose_nothing(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        tables.write_csv(path, ["a", "b"], rows)
        back = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))
    assert back[0] == ["a", "b"]
    assert len(back) == len(rows) + 1
    for row, read in zip(rows, back[1:], strict=True):
        for cell, text in zip(row, read, strict=True):
            assert text[:1] not in {"=", "+", "-", "@", "\t"}
            assert text in {cell, f"'{cell}"}


@fewer
@given(some.integers(2, 6), some.integers(1, 8), some.randoms(use_true_random=False), some.integers(0, 6))
def test_answers_come_back_in_the_asked_order(classes, count, shuffler, decimals):
    chances = np.random.default_rng(count).dirichlet(np.ones(classes), count)
    lines = [f"{i}.png," + ",".join(f"{p:.{decimals}f}" for p in row) for i, row in enumerate(chances)]
    written = np.array([[float(f"{p:.{decimals}f}") for p in row] for row in chances])
    if not written.sum(1).all():  # every chance was rounded to nothing: no answer is left
        return
    shuffler.shuffle(lines)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.csv"
        path.write_text("\n".join(["file," + ",".join(f"p{k}" for k in range(classes)), *lines]))
        answers = tables.read_answers_csv(path, [f"{i}.png" for i in range(count)])
    assert np.array_equal(answers.probabilities, written.astype(np.float32))
    assert answers.decimals == (decimals if decimals <= 5 else None)


@fewer
@given(
    npst.arrays(some.sampled_from([">u1", ">i2", ">i4", ">f4", ">f8"]), npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)),
    some.booleans(),
)
def test_idx_files_are_read_as_they_were_written(array, packed):
    import gzip

    codes = {"u1": 8, "i2": 11, "i4": 12, "f4": 13, "f8": 14}
    head = bytes([0, 0, codes[array.dtype.str[1:]], array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.idx"
        path.write_bytes(gzip.compress(head + array.tobytes()) if packed else head + array.tobytes())
        back = arrays.read_idx(path)
    assert back.dtype == array.dtype.newbyteorder("=")
    assert back.astype(array.dtype).tobytes() == array.tobytes()
    assert back.shape == array.shape


def test_digests_are_those_of_the_whole_file(tmp_path):
    data = random.Random(1).randbytes(3 * 2**20 + 7)
    atomic.write_bytes(tmp_path / "f", data)
    assert files.sha256_file(tmp_path / "f") == digest_bytes(data)
    assert files.read_bytes(tmp_path / "f", cap=len(data), digest=digest_bytes(data)) == data
    assert files.read_head(tmp_path / "f", 5) == data[:5]
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o644 & ~os.umask(os.umask(0o022) or 0o022)


def test_images_are_resized_and_coloured_as_asked():
    pixels = np.full((1, 6, 4), 77, np.uint8)
    back = images.read_image(images.png_bytes(pixels), size=(3, 8), grey=False)
    assert back.shape == (3, 3, 8)
    assert (back == 77).all()


def test_tied_tensors_are_saved_twice_and_equal(tmp_path):
    weight = torch.arange(4.0)
    st.save_tensors(tmp_path / "t.safetensors", {"b": weight, "a": weight[1:], "c": weight.view(2, 2).t()}, {"arch": "mlp"})
    first = (tmp_path / "t.safetensors").read_bytes()
    st.save_tensors(tmp_path / "t.safetensors", {"c": weight.view(2, 2).t(), "a": weight[1:], "b": weight}, {"arch": "mlp"})
    assert (tmp_path / "t.safetensors").read_bytes() == first
    tensors, metadata = st.load_tensors(tmp_path / "t.safetensors")
    assert tensors["c"].tolist() == [[0, 2], [1, 3]]
    assert metadata == {"arch": "mlp"}
    assert sniff.kind_of(tmp_path / "t.safetensors") == "safetensors"


def test_many_small_members_are_read_from_one_opening_of_the_archive(tmp_path, monkeypatch):
    path, count = tmp_path / "many.zip", 20_000
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(count):
            archive.writestr(f"train/{index % 10}/{index:05d}.jpg", b"x" * 900)
    opened, pieces = [], []
    open_zip, read = archives.open_zip, archives._Stream.read
    monkeypatch.setattr(archives, "open_zip", lambda path: opened.append(path) or open_zip(path))
    monkeypatch.setattr(archives._Stream, "read", lambda self, size=-1, /: pieces.append(data := read(self, size)) or data)
    with archives.ZipFolder(path) as folder:
        total = sum(len(folder.read(name)) for name in folder)
        assert folder.size(folder.names[0]) == 900
    assert total == 900 * count
    assert folder.names == sorted(folder.names)
    assert len(opened) == 1
    assert sum(map(len, pieces)) < 1.1 * path.stat().st_size  # every byte once


@pytest.mark.parametrize("value", [float("nan"), math.inf])
def test_numbers_that_are_none_are_null_in_keys(value):
    assert container.unpack(container.pack({"facts": {"x": value}}, {}))[0]["facts"]["x"] is None
