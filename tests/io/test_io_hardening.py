"""Attacks that small files made on the doors, each with the answer that is now expected: one sentence, at once, and little memory."""

import io
import itertools
import json
import os
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from modelward.core.errors import FormatError, InputError, StoreError, UnsafeFileError
from modelward.io import archives, arrays, atomic, cifar, files, images, sniff
from modelward.io import safetensors as st


def header(content):
    """Return safetensors bytes whose header is ``content``."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text


def test_headers_of_every_length_are_told_from_pickles():
    lengths = set()
    for width in range(1, 700, 8):
        data = st.dump_arrays({"a" * width: np.zeros(1, np.float32)}, {})
        assert list(st.parse_arrays(data)[0]) == ["a" * width]
        lengths.add(data[0])
    assert 0x80 in lengths  # as a pickle begins


@pytest.mark.parametrize("kind", [[], {}, None, 7, "BF16", "F8_E8M0", "F4", "F99"])
def test_types_that_numpy_does_not_know_are_named(kind):
    data = header({"a": {"dtype": kind, "shape": [2], "data_offsets": [0, 4]}}) + bytes(4)
    with pytest.raises(FormatError):
        st.parse_arrays(data)


def test_bfloat16_is_read_as_torch_and_refused_as_numpy(tmp_path):
    path = tmp_path / "b.safetensors"
    st.save_tensors(path, {"w": torch.arange(4, dtype=torch.bfloat16)}, {})
    assert torch.equal(st.load_tensors(path)[0]["w"], torch.arange(4, dtype=torch.bfloat16))
    with pytest.raises(FormatError, match="bfloat16"):
        st.load_arrays(path)


def test_the_numpy_door_needs_no_torch(tmp_path):
    path = tmp_path / "a.safetensors"
    code = (
        "import sys, numpy; from modelward.io import archives, container, safetensors as st, sniff, tables;"
        f"st.save_arrays({str(path)!r}, {{'a': numpy.ones(3)}}); st.load_arrays({str(path)!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "a"
    atomic.write_bytes(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StoreError, match="cannot be written"):
            atomic.write_bytes(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert path.read_bytes() == b"old"


def test_odd_names_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(StoreError):
        atomic.write_bytes("a\0b", b"")
    with pytest.raises(InputError):
        files.read_bytes("a\0b", cap=1)
    with pytest.raises(StoreError):
        atomic.write_bytes(tmp_path / ("n" * 300), b"")


def test_the_sweeper_takes_its_own_files_only(tmp_path):
    for name in (".mine.tmp", ".a.b.tmp", "a.1.ff.tmp", ".k.mw.77.0badcafe.tmp"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    assert atomic.sweep(tmp_path, 60) == 1
    assert not (tmp_path / ".k.mw.77.0badcafe.tmp").exists()


def test_nobody_waits_at_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for door in (arrays.read_npz, arrays.read_idx, archives.ZipFolder, sniff.kind_of, images.read_image, cifar.read_cifar_batch):
        with pytest.raises(InputError):
            door(tmp_path / "pipe")


def test_sixteen_bits_are_scaled_alike_whatever_the_content():
    def read(values):
        stream = io.BytesIO()
        Image.fromarray(np.array([values], np.uint16)).save(stream, "PNG")
        return images.read_image(stream.getvalue())[0, 0].tolist()

    assert read([0, 257, 65535]) == [0, 1, 255]
    assert read([0, 255, 200]) == [0, 1, 1]
    assert images.read_image(b"P5 2 1 1023\n\x03\xff\x00\x00")[0, 0].tolist() == [255, 0]
    with pytest.raises(FormatError, match="floating-point"):
        images.read_image(b"Pf\n1 1\n-1.0\n" + np.array([0.5], "<f4").tobytes())


def test_grey_stays_grey_where_a_grey_level_is_transparent():
    stream = io.BytesIO()
    Image.fromarray(np.array([[0, 9]], np.uint8)).save(stream, "PNG", transparency=9)
    assert images.read_image(stream.getvalue()).tolist() == [[[0, 255]]]


def pickle_file(tmp_path, data):
    path = tmp_path / "data_batch_1"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02}K\x01" + b"\x85" * 2_000_000 + b"K\x01s.",  # a key of nested tuples: hashing it ended the process
        b"\x80\x02]r\xff\xff\xff\x3f.",  # a memo slot far away: took 16 GB
        b"\x80\x02" + b"]" * 3_000_000 + b"a" * 2_999_999 + b".",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x03666\x85R.",
        b"\x80\x02cnumpy\nndarray\nccopyreg\n__newobj__\n\x85\x81.",
        b"cos\nsystem\n(S'true'\ntR.",
    ],
    ids=["nested keys", "far memo", "nested lists", "eval", "newobj", "protocol 0"],
)
def test_pickle_bombs_end_before_they_begin(tmp_path, data, monkeypatch):
    path, steps, genops = pickle_file(tmp_path, data), itertools.count(), cifar.pickletools.genops
    counted = SimpleNamespace(genops=lambda stream: (step for step, _ in zip(genops(stream), steps, strict=False)))
    monkeypatch.setattr(cifar, "pickletools", counted)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnsafeFileError, match="data_batch_1"):
        cifar.read_cifar_batch(path)
    assert next(steps) <= cifar.INSTRUCTION_CAP + 2  # instructions that were looked at
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize(
    "target", ["cnumpy\ndtype\n", "cnumpy._core.numeric\n_frombuffer\n", "c_codecs\nencode\n", "cnumpy.core.multiarray\n_reconstruct\n"]
)
def test_a_pickle_changes_nothing_of_ours(tmp_path, target):
    before = {
        name: dict(vars(value)) for name, value in vars(cifar).items() if isinstance(value, type) and value.__module__ == cifar.__name__
    }
    for state in (b"}U\x05valueK\x01s", b"N}U\x05valueK\x01s\x86", b"}X\x05\x00\x00\x00valueK\x01s"):
        with pytest.raises(FormatError):
            cifar.read_cifar_batch(pickle_file(tmp_path, b"\x80\x02" + target.encode() + state + b"b."))
    assert before == {name: dict(vars(getattr(cifar, name))) for name in before}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_batches_of_every_protocol_and_numpy_are_read(tmp_path, protocol, module):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
    batch = {b"data": pixels, b"labels": [3, 1, 4, 1], b"filenames": [b"a.png"] * 4, b"batch_label": b"x"}
    data = pickle.dumps(batch, protocol=protocol)
    if protocol < 4:  # longer names are written without their length
        data = data.replace(b"numpy._core", module.encode())
    found, labels = cifar.read_cifar_batch(pickle_file(tmp_path, data))
    assert np.array_equal(found.reshape(4, -1), pixels)
    assert labels.tolist() == [3, 1, 4, 1]
    found[0] = 0  # writable, as torch wants it
    batch[b"data"], batch[b"labels"] = np.asfortranarray(pixels), np.array([3, 1, 4, 1], ">i4")
    found, labels = cifar.read_cifar_batch(pickle_file(tmp_path, pickle.dumps(batch, protocol=protocol)))
    assert np.array_equal(found.reshape(4, -1), pixels)
    assert labels.tolist() == [3, 1, 4, 1]


def test_a_python_2_batch_is_read(tmp_path):
    """Hand-written as cPickle of Python 2 wrote CIFAR-10: protocol 2, byte strings, the old numpy module."""
    raw = bytes(range(256)) * 12
    data = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05"
        b"(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + struct.pack("<I", len(raw)) + raw + b"tbU\x06labelsq\x08]q\x09K\x05au."
    )
    pixels, labels = cifar.read_cifar_batch(pickle_file(tmp_path, data))
    assert pixels.tobytes() == raw
    assert labels.tolist() == [5]


def test_a_directory_of_millions_is_not_built(tmp_path, monkeypatch):
    path, entries = tmp_path / "z.zip", 1_500_000
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"")
    data = path.read_bytes()
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    monkeypatch.setattr(zipfile, "ZipInfo", lambda *_: pytest.fail("an entry became an object"))
    for count in (250_000, entries):
        size = (end - start) * count
        body = data[:start] + data[start:end] * count
        record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start) + struct.pack(
            "<4sLQL", b"PK\6\7", 0, len(body), 1
        )
        path.write_bytes(body + record + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0))
        with pytest.raises(UnsafeFileError):
            archives.ZipFolder(path)
        assert sniff.kind_of(path) == "zip"


def test_odd_members_are_refused(tmp_path):
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", os.urandom(100))
    with pytest.raises(UnsafeFileError, match="unusual"):
        archives.ZipFolder(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"x" * 200)
        archive.writestr("b", b"y" * 200)
    data = path.read_bytes()
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    encrypted = bytearray(data)
    encrypted[entry + 8] |= 1
    path.write_bytes(encrypted)
    with pytest.raises(UnsafeFileError, match="encrypted"):
        archives.ZipFolder(path)
    long = bytearray(data)
    long[entry + 20 : entry + 28] = struct.pack("<2L", 900, 900)
    path.write_bytes(long)
    with pytest.raises(UnsafeFileError, match="overlap"):
        archives.ZipFolder(path)
    twin = data.replace(b"b", b"a")
    path.write_bytes(twin)
    with pytest.raises(UnsafeFileError, match="twice"):
        archives.ZipFolder(path)


def test_well_packed_labels_are_no_bomb(tmp_path):
    labels = np.repeat(np.arange(10), 6000)
    np.savez_compressed(tmp_path / "x.npz", labels=labels)
    assert np.array_equal(arrays.read_npz(tmp_path / "x.npz")["labels"], labels)


@pytest.mark.parametrize("shape", ["(-1,)", "(2**40,)", "(1, 2, 'x')", "9" * 5000, "(True,)", "()"])
def test_npy_headers_are_no_program(tmp_path, shape):
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
    with pytest.raises(FormatError):
        arrays.read_npz(tmp_path / "x.npy")
