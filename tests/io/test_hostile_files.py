"""Files from strangers: refused with one sentence, fast, and nothing altered gets through."""

import io
import json
import os
import pickle
import random
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from modelward.core.errors import FormatError, InputError, ModelwardError, StoreError, UnsafeFileError, UsageError
from modelward.io import age, archives, arrays, atomic, cifar, container, files, images, legacy, sniff, tables
from modelward.io import safetensors as st


def small_key():
    return container.pack({"method": "sac", "facts": {"alpha": 0.05}}, {"probes": np.arange(24, dtype=np.uint8).reshape(2, 3, 4)})


class Gadget:
    def __reduce__(self):
        return os.system, ("touch /tmp/modelward-was-here",)


def test_headers_with_too_many_tensors_are_refused_before_they_are_parsed(monkeypatch):
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    text = json.dumps({f"t{i}": entry for i in range(300_000)}).encode()
    monkeypatch.setattr(st, "json", SimpleNamespace(loads=lambda _: pytest.fail("the header was parsed")))
    with pytest.raises(UnsafeFileError):
        st.read_header(struct.pack("<Q", len(text)) + text)
    short = json.dumps({f"{i}": entry for i in range(30_000)}).encode()
    with pytest.raises(UnsafeFileError):
        st.read_header(struct.pack("<Q", len(short)) + short)


def test_pickles_in_disguise_are_named(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Gadget()))
    with pytest.raises(UnsafeFileError, match="modelward convert"):
        st.load_tensors(path)
    assert sniff.kind_of(path) == "pickle"


def test_safetensors_round_trip_is_deterministic(tmp_path):
    data = {"b": np.ones((2, 3), np.float32), "a": np.array(3, np.int64)}
    facts = {f"k{i}": str(i) for i in range(20)}
    assert st.dump_arrays(data, facts) == st.dump_arrays(dict(reversed(data.items())), dict(reversed(facts.items())))
    st.save_arrays(tmp_path / "x.safetensors", data, facts)
    back, metadata = st.load_arrays(tmp_path / "x.safetensors")
    assert metadata == facts
    assert back["a"].shape == ()
    tensors, _ = st.load_tensors(tmp_path / "x.safetensors")
    assert torch.equal(tensors["b"], torch.ones(2, 3))
    with pytest.raises(UnsafeFileError, match="not what it was"):
        st.load_arrays(tmp_path / "x.safetensors", digest="0" * 64)


def test_every_flipped_bit_of_a_key_is_refused():
    data = small_key()
    header, parts = container.unpack(data)
    assert header["method"] == "sac"
    assert parts["probes"].shape == (2, 3, 4)
    for position in range(len(data)):
        for bit in range(8):
            altered = bytearray(data)
            altered[position] ^= 1 << bit
            with pytest.raises(FormatError):
                container.unpack(bytes(altered))
    for cut in range(0, len(data), 7):
        with pytest.raises(FormatError):
            container.unpack(data[:cut])
    with pytest.raises(FormatError):
        container.unpack(data + b"\0")


def test_a_newer_key_says_so(monkeypatch):
    monkeypatch.setattr(container, "VERSION", 2)
    data = small_key()
    monkeypatch.undo()
    with pytest.raises(FormatError, match="newer modelward"):
        container.unpack(data)


def test_keys_are_private_and_encrypted_ones_tell_nothing(tmp_path, monkeypatch):
    path, secret = tmp_path / "k.mw", age.Secret("open sesame")
    container.write_mw(path, {"method": "sac"}, {"a": np.zeros(2, np.float32)}, passphrase=secret)
    assert path.stat().st_mode & 0o777 == 0o600
    assert b"sac" not in path.read_bytes()
    assert repr(secret) == str(secret) == "Secret(***)"
    with pytest.raises(UsageError, match="--passphrase-file"):
        container.read_mw(path)
    with pytest.raises(FormatError) as wrong:
        container.read_mw(path, passphrase=age.Secret("wrong"))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(FormatError) as damaged:
        container.read_mw(path, passphrase=secret)
    assert str(wrong.value) == str(damaged.value)
    monkeypatch.setenv(age.VARIABLE, "from the environment")
    assert age.read_secret().reveal() == "from the environment"
    (tmp_path / "p").write_text("first line\nsecond\n")
    assert age.read_secret(file=tmp_path / "p").reveal() == "first line"
    with pytest.raises(UsageError):
        age.read_secret(file=tmp_path / "p", fd=3)


def test_a_small_png_of_many_pixels_is_refused_before_it_is_decoded(monkeypatch):
    stream = io.BytesIO()
    Image.new("1", (9000, 9000)).save(stream, "PNG")
    assert len(stream.getvalue()) < 20_000
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("the pixels were decoded"))
    with pytest.raises(UnsafeFileError, match="9000x9000"):
        images.read_image(stream.getvalue())


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_common_mode_becomes_one_or_three_channels(mode):
    stream = io.BytesIO()
    Image.new(mode, (5, 4)).save(stream, "PNG")
    pixels = images.read_image(stream.getvalue())
    assert pixels.shape in {(1, 4, 5), (3, 4, 5)}
    assert images.read_image(stream.getvalue(), size=(8, 9), grey=True).shape == (1, 8, 9)


def zip_of(tmp_path, entries, **options):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def test_archives_lead_nowhere(tmp_path):
    for name in ("../up", "/etc/x", "a/../../b", "C:/x", "..\\up", "a\\..\\..\\b", "C:\\x", "\\\\server\\x", "\\etc\\x"):
        with pytest.raises(UnsafeFileError):
            archives.ZipFolder(zip_of(tmp_path, [(name, b"x")]))
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with pytest.raises(UnsafeFileError, match="link"):
        archives.ZipFolder(zip_of(tmp_path, [(link, b"/etc/passwd")]))
    with pytest.raises(UnsafeFileError, match="unpacks"):
        archives.ZipFolder(zip_of(tmp_path, [("bomb", b"\0" * 2_000_000)], compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(UnsafeFileError, match="twice"):
        archives.ZipFolder(zip_of(tmp_path, [("a/1", b"one"), ("a\\1", b"two")]))
    for names in (("set\\a\\1", "set\\b\\2"), ("./set/a/1", "./set/b/2"), ("set//a/1", "set/b//2")):
        with archives.ZipFolder(zip_of(tmp_path, [(name, name.encode()) for name in names])) as folder:
            assert folder.names == ["set/a/1", "set/b/2"]
            assert folder.read("set/b/2") == names[1].encode()
    with archives.ZipFolder(zip_of(tmp_path, [("b/2", b"two"), ("a/1", b"one")])) as folder:
        assert list(folder) == folder.names == ["a/1", "b/2"]
        assert folder.read("b/2") == b"two"
        with pytest.raises(InputError):
            folder.read("c")


def test_legacy_files_are_converted_in_a_child(tmp_path):
    net = torch.nn.Linear(3, 2)
    torch.save({"state_dict": net.state_dict(), "epoch": 3}, tmp_path / "good.pt")
    assert legacy.convert_pt(tmp_path / "good.pt", tmp_path / "good.safetensors") == 2
    tensors, _ = st.load_tensors(tmp_path / "good.safetensors")
    assert torch.equal(tensors["weight"], net.weight)


@pytest.mark.filterwarnings("ignore:Sparse")
def test_dangerous_legacy_files_are_refused(tmp_path):
    marker = "/tmp/modelward-was-here"  # noqa: S108
    torch.save({"w": Gadget()}, tmp_path / "code.pt")
    with pytest.raises(UnsafeFileError, match="code"):
        legacy.convert_pt(tmp_path / "code.pt", tmp_path / "x.safetensors")
    assert not Path(marker).exists()
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Gadget()))
    with pytest.raises(UnsafeFileError, match="pickle"):
        legacy.convert_pt(tmp_path / "bare.pt", tmp_path / "x.safetensors")
    torch.save({"w": torch.zeros(10)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as source, zipfile.ZipFile(tmp_path / "deflated.pt", "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(UnsafeFileError, match="compressed"):
        legacy.convert_pt(tmp_path / "deflated.pt", tmp_path / "x.safetensors")
    with torch.sparse.check_sparse_tensor_invariants():
        sparse = torch.sparse_csr_tensor(torch.tensor([0, 1]), torch.tensor([0]), torch.tensor([1.0]), (1, 1))
    torch.save({"w": sparse}, tmp_path / "sparse.pt")
    with pytest.raises(UnsafeFileError):
        legacy.convert_pt(tmp_path / "sparse.pt", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_cifar_batches_know_arrays_only(tmp_path):
    batch = {b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 1, 2], b"batch_label": b"x"}
    for protocol in (2, 4):
        (tmp_path / "batch").write_bytes(pickle.dumps(batch, protocol=protocol))
        pixels, labels = cifar.read_cifar_batch(tmp_path / "batch")
        assert pixels.shape == (3, 3, 32, 32)
        assert labels.tolist() == [0, 1, 2]
    (tmp_path / "evil").write_bytes(pickle.dumps({b"data": Gadget()}))
    with pytest.raises(UnsafeFileError, match="system"):
        cifar.read_cifar_batch(tmp_path / "evil")
    (tmp_path / "b.bin").write_bytes(bytes([7]) + bytes(3072))
    assert cifar.read_cifar_binary(tmp_path / "b.bin")[1].tolist() == [7]
    (tmp_path / "b.bin").write_bytes(bytes(100))
    with pytest.raises(FormatError):
        cifar.read_cifar_binary(tmp_path / "b.bin")


def test_arrays_are_capped_from_their_header(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.arange(6).reshape(2, 3))
    assert arrays.read_npz(tmp_path / "x.npz")["x"].shape == (2, 3)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UnsafeFileError):
        arrays.read_npz(tmp_path / "objects.npy")
    (tmp_path / "big.idx").write_bytes(b"\0\0\x08\x03" + b"\x7f\xff\xff\xff" * 3)
    with pytest.raises(UnsafeFileError):
        arrays.read_idx(tmp_path / "big.idx")
    (tmp_path / "ok.idx").write_bytes(b"\0\0\x08\x01\0\0\0\x02\x05\x06")
    assert arrays.read_idx(tmp_path / "ok.idx").tolist() == [5, 6]
    (tmp_path / "ok.idx").write_bytes(b"\0\0\x08\x01\0\0\0\x03\x05\x06")
    with pytest.raises(FormatError):
        arrays.read_idx(tmp_path / "ok.idx")


NAMES = ["00000.png", "00001.png"]


def test_answers_come_in_any_order(tmp_path):
    path = tmp_path / "answers.csv"
    path.write_text("file,label\n00001.png,3\n00000.png,1\n")
    assert tables.read_answers_csv(path, NAMES).labels.tolist() == [1, 3]
    assert sniff.kind_of(path) == "csv"
    path.write_text("file,p0,p1\n00000.png,0.25,0.75\n00001.png,1,0\n")
    answers = tables.read_answers_csv(path, NAMES)
    assert answers.probabilities.tolist() == [[0.25, 0.75], [1, 0]]
    assert answers.decimals == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "label\n1\n",
        "file,label\n00000.png,1\n",
        "file,label\n00000.png,1\n00001.png,2\nother.png,3\n",
        "file,label\n00000.png,1\n00000.png,1\n00001.png,2\n",
        "file,label\n00000.png,cat\n00001.png,2\n",
        "file,label\n00000.png,-1\n00001.png,2\n",
        "file,label\n00000.png\n00001.png,2\n",
        "file,p0,p1\n00000.png,0.5,0.9\n00001.png,0.5,0.5\n",
        "file,p0,p1\n00000.png,nan,0.5\n00001.png,0.5,0.5\n",
        "file,p0,p1\n00000.png,0.1,0.1\n00001.png,0.5,0.5\n",
        "file,p1,p0\n00000.png,0.5,0.5\n00001.png,0.5,0.5\n",
        "file,p0,p1\n00000.png,x,0.5\n00001.png,0.5,0.5\n",
    ],
)
def test_broken_answers_are_named(tmp_path, text):
    (tmp_path / "answers.csv").write_text(text)
    with pytest.raises(FormatError):
        tables.read_answers_csv(tmp_path / "answers.csv", NAMES)


def test_spreadsheets_get_no_formulas(tmp_path):
    tables.write_csv(tmp_path / "t.csv", ["a"], [["=1+1"], [-3], ["fine"]])
    assert (tmp_path / "t.csv").read_text().splitlines() == ["a", "'=1+1", "-3", "fine"]


def test_writes_are_whole_or_not_there(tmp_path, monkeypatch):
    atomic.write_text(tmp_path / "a", "old")
    with pytest.raises(StoreError, match="cannot be written"):
        atomic.write_text(tmp_path / "a" / "b", "x")

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        atomic.write_text(tmp_path / "a", "new")
    monkeypatch.undo()
    assert (tmp_path / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    orphan = tmp_path / ".x.1.2.tmp"
    orphan.write_text("")
    os.utime(orphan, (0, 0))
    assert atomic.sweep(tmp_path, 60) == 1


def test_reading_is_capped(tmp_path):
    (tmp_path / "f").write_bytes(b"12345")
    assert files.read_bytes(tmp_path / "f", cap=5) == b"12345"
    with pytest.raises(UnsafeFileError):
        files.read_bytes(tmp_path / "f", cap=4)
    for missing in (tmp_path, tmp_path / "none", "/dev/zero"):
        with pytest.raises(InputError):
            files.read_bytes(missing, cap=4)


def seeds(tmp_path):
    """Return (name, bytes, reader) of small valid files of every format."""
    png = images.png_bytes(np.arange(48, dtype=np.uint8).reshape(3, 4, 4))
    encoded = {}
    for kind in ("JPEG", "WEBP", "PPM"):
        stream = io.BytesIO()
        Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(stream, kind)
        encoded[kind] = stream.getvalue()
    np.savez(tmp_path / "s.npz", x=np.arange(6))
    batch = pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [0]}, protocol=2)
    tensors = st.dump_arrays({"a": np.ones((2, 2), np.float32), "b": np.ones(3, np.int64)}, {"arch": "x"})
    yield "png", png, images.read_image
    yield "jpeg", encoded["JPEG"], images.read_image
    yield "webp", encoded["WEBP"], images.read_image
    yield "ppm", encoded["PPM"], images.read_image
    yield "safetensors", tensors, st.parse_arrays
    yield "tensors", tensors, st.parse_tensors
    yield "mw", small_key(), container.unpack
    yield "npz", (tmp_path / "s.npz").read_bytes(), arrays.read_npz
    yield "idx", b"\0\0\x08\x01\0\0\0\x02\x05\x06", arrays.read_idx
    yield "cifar", batch, cifar.read_cifar_batch
    yield "csv", b"file,p0,p1\n00000.png,0.25,0.75\n00001.png,1,0\n", lambda path: tables.read_answers_csv(path, NAMES)


def mutate(data, rng):
    """Return ``data`` with a few random flips, cuts, doublings or insertions near its head."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(max(1, min(len(out), 400)))
        kind = rng.random()
        if kind < 0.5 and out:
            out[place] ^= 1 << rng.randrange(8)
        elif kind < 0.7:
            del out[place : place + rng.randint(1, 20)]
        elif kind < 0.85:
            out[place:place] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 12)))
        else:
            out = out[: rng.randrange(len(out) + 1)]
    return bytes(out)


def test_mutated_files_raise_nothing_but_our_errors(tmp_path):
    rng = random.Random(20261121)
    path = tmp_path / "mutant"
    for name, data, reader in seeds(tmp_path):
        for _ in range(300):
            bad = mutate(data, rng)
            takes_bytes = reader in {images.read_image, st.parse_arrays, st.parse_tensors, container.unpack}
            if not takes_bytes:
                path.write_bytes(bad)
            try:
                reader(bad if takes_bytes else path)
            except ModelwardError:
                continue
            assert name != "mw" or bad == data
