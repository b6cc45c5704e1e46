"""A seeded campaign: files of every format, altered at random; only our own errors may escape, and digests catch what parsers accept."""

import gzip
import io
import json
import os
import pickle
import random
import struct
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from modelward.core.errors import ModelwardError
from modelward.io import age, archives, arrays, cifar, container, images, legacy, sniff, tables
from modelward.io import safetensors as st

ROUNDS = int(os.environ.get("MODELWARD_MUTATIONS", "300"))
NAMES = ["a.png", "b.png"]


def encoded(kind, mode="RGB", **options):
    """Return a small image of one format."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def zipped(members, method=zipfile.ZIP_STORED):
    """Return a zip of ``members``."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def saved(write, content):
    """Return what ``write(stream, content)`` writes."""
    stream = io.BytesIO()
    write(stream, content)
    return stream.getvalue()


def read_all(path):
    """List a zip and read every member."""
    with archives.ZipFolder(path) as folder:
        for name in folder:
            folder.read(name)


TENSORS = st.dump_arrays({"a": np.ones((2, 2), np.float32), "b": np.ones(3, np.int64)}, {"arch": "x"})
BATCH = {b"data": np.zeros((1, 3072), np.uint8), b"labels": [0]}
OWNER = age.pyrage.x25519.Identity.generate()
KEY = container.pack({"method": "sac", "facts": {"alpha": 0.05}}, {"probes": np.arange(24, dtype=np.uint8)})
LOCKED = age.encrypt(KEY, recipients=[str(OWNER.to_public())])

FORMATS = {
    "png": (encoded("PNG"), images.read_image),
    "png-palette": (encoded("PNG", "P", transparency=3), images.read_image),
    "png-interlaced-deep": (
        saved(lambda f, a: Image.fromarray(a).save(f, "PNG"), np.arange(60, dtype=np.uint16).reshape(6, 10)),
        images.read_image,
    ),
    "jpeg-progressive": (encoded("JPEG", progressive=True, quality=80), images.read_image),
    "webp-lossless": (encoded("WEBP", lossless=True), images.read_image),
    "ppm": (encoded("PPM"), images.read_image),
    "safetensors": (TENSORS, st.load_arrays),
    "safetensors-torch": (TENSORS, st.load_tensors),
    "mw": (KEY, container.read_mw),
    "mw-age": (LOCKED, lambda path: container.read_mw(path, identities=[age.Secret(str(OWNER))])),
    "zip-stored": (zipped({"a/1": b"one", "b/2": b"two" * 50}), read_all),
    "zip-deflated": (zipped({"a/1": b"one" * 99, "b/2": b"two" * 50}, zipfile.ZIP_DEFLATED), read_all),
    "npz": (saved(lambda f, a: np.savez_compressed(f, x=a), np.arange(9)), arrays.read_npz),
    "npy": (saved(np.save, np.arange(6.0)), arrays.read_npz),
    "idx-gz": (gzip.compress(b"\0\0\x08\x01\0\0\0\x02\x05\x06"), arrays.read_idx),
    "cifar-2": (pickle.dumps(BATCH, protocol=2), cifar.read_cifar_batch),
    "cifar-5": (pickle.dumps(BATCH, protocol=5), cifar.read_cifar_batch),
    "cifar-binary": (bytes([7]) + bytes(3072), cifar.read_cifar_binary),
    "csv": (b"file,p0,p1\na.png,0.25,0.75\nb.png,1,0\n", lambda path: tables.read_answers_csv(path, NAMES)),
    "pt": (saved(lambda f, a: torch.save(a, f), {"w": torch.zeros(3)}), legacy.check_archive),
    "any": (zipped({"x/data.pkl": pickle.dumps([1], protocol=0)}), sniff.kind_of),
}


def mutate(data, rng):
    """Return ``data`` with a few flips, cuts, doublings, insertions or edges; half of them near the head, where the structure is."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(max(1, min(len(out), 400) if rng.random() < 0.5 else len(out)))
        kind = rng.randrange(7)
        if kind <= 2 and out:
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 3:
            del out[place : place + rng.randint(1, 20)]
        elif kind == 4:
            out[place:place] = rng.randbytes(rng.randint(1, 12))
        elif kind == 5:
            out[place : place + 4] = rng.choice(
                [bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", struct.pack("<I", len(out))]
            )
        else:
            out = out[: rng.randrange(len(out) + 1)]
    return bytes(out)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FORMATS)
def test_nothing_but_our_errors_escapes(tmp_path, name):
    data, reader = FORMATS[name]
    rng, path = random.Random(f"20261121 {name}"), tmp_path / "mutant"
    path.write_bytes(data)
    reader(path)
    for _ in range(ROUNDS):
        bad = mutate(data, rng)
        path.write_bytes(bad)
        try:
            reader(path)
        except ModelwardError:
            continue
        assert bad == data or not name.startswith("mw")


VALUES = [None, True, -1, 2**63, 1.5, "F32", "", [], [0], [0, 0], [0, -1], [2**64, 0], [[0]], {}, {"a": 1}, "\ud800", "__metadata__"]


@pytest.mark.parametrize("door", [st.parse_arrays, st.parse_tensors, container.unpack])
def test_headers_of_wrong_types_are_refused(door):
    """Mutations of the JSON tree, which random bytes seldom reach."""
    rng = random.Random(7)
    for _ in range(ROUNDS):
        tree = {"a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}, "__metadata__": {"modelward": "{}", "digest": "0" * 64}}
        where = rng.choice([tree, tree["a"], tree["__metadata__"]])
        where[rng.choice([*where, rng.choice(["b", "dtype", "shape", "data_offsets"])])] = rng.choice(VALUES)
        text = json.dumps(tree).encode()
        try:
            door(struct.pack("<Q", len(text)) + text + bytes(8))
        except ModelwardError:
            continue
        assert door is not container.unpack
