"""The store: what goes in comes out, once, whole, or with one sentence."""

import contextlib
import hashlib
import os
import sqlite3
import string
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_work import cell

from modelward.core.canonical import canonical_json
from modelward.core.errors import InputError, StoreError, UnsafeFileError
from modelward.evaluation.cell import Outcome
from modelward.evaluation.engine import Engine
from modelward.evaluation.store import Store, default_home

HERE = Path(__file__).parent
ARRAYS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array(7, dtype=np.int64)}
NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@contextlib.contextmanager
def unwritable(folder):
    """Make a tree read-only for the block, also for root, who for that time is nobody."""
    paths = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.fixture
def public():
    """Return a folder that every user can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.dictionaries(NAMES, VALUES, max_size=4), max_size=4), seed=st.integers(0, 2**63 - 1), label=st.text(max_size=9))
def test_rows_come_back_as_they_went_in(tmp_path_factory, rows, seed, label):
    folder = tmp_path_factory.getbasetemp() / "shared-store"
    done = cell("figure", label, seed=seed, salt=canonical_json(rows).decode())
    kept = Store(folder).finish(done, Outcome(rows), None, 0.5)
    found = Store(folder).find(done.key)
    assert kept.rows == found.rows == rows
    assert (found.key, found.artifact, found.seconds, found.cached, kept.cached) == (done.key, None, 0.5, True, False)


def test_what_was_not_measured_is_null(store):
    done = cell("figure", "nan")
    store.finish(done, Outcome([{"value": float("nan"), "ci_low": float("inf"), "n": 0}]), None, 0.0)
    assert store.find(done.key).rows == [{"value": None, "ci_low": None, "n": 0}]


@settings(max_examples=30, deadline=None)
@given(
    shape=st.lists(st.integers(0, 3), max_size=3),
    dtype=st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]),
    facts=st.dictionaries(NAMES, st.text(max_size=9), max_size=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_arrays_come_back_as_they_went_in(tmp_path_factory, shape, dtype, facts, seed):
    store = Store(tmp_path_factory.getbasetemp() / "shared-store")
    array = np.random.default_rng(seed).integers(0, 200, size=shape).astype(dtype)
    arrays, read = store.get(store.put({"x": array}, facts))
    assert arrays["x"].dtype == array.dtype
    assert arrays["x"].shape == array.shape
    assert np.array_equal(arrays["x"], array)
    assert read == facts


def test_an_artefact_is_named_by_its_content_alone(store):
    digest = store.put(ARRAYS, {"z": "1", "y": "2"})
    assert digest == store.put(dict(reversed(ARRAYS.items())), {"y": "2", "z": "1"})
    assert digest == hashlib.sha256(store.path(digest).read_bytes()).hexdigest()
    assert digest != store.put(ARRAYS, {"z": "1", "y": "3"})
    assert len(list(store.blobs.rglob("*.safetensors"))) == 2


@settings(max_examples=40, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_one_sentence_and_putting_it_again_mends_it(tmp_path_factory, place, bit):
    store = Store(tmp_path_factory.getbasetemp() / "flipped-store")
    digest = store.put(ARRAYS)
    data = bytearray(store.path(digest).read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    store.path(digest).write_bytes(data)
    with pytest.raises(UnsafeFileError) as caught:
        store.get(digest)
    assert f"delete {store.path(digest)}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert store.put(ARRAYS) == digest
    assert np.array_equal(store.get(digest)[0]["b"], ARRAYS["b"])


@pytest.mark.parametrize("damage", ["truncate", "empty"])
def test_a_truncated_artefact_is_refused(store, damage):
    digest = store.put(ARRAYS)
    data = store.path(digest).read_bytes()
    store.path(digest).write_bytes(data[:-1] if damage == "truncate" else b"")
    with pytest.raises(UnsafeFileError):
        store.get(digest)


def test_a_damaged_artefact_fails_its_reader_until_it_is_deleted(store, toy_log):
    first = cell("add", "first", seed=1)
    second = cell("add", "second", needs=[first])
    path = store.path(Engine(store, jobs=1).run([first]).of(first).artifact)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    run = Engine(store, jobs=1).run([second])
    assert run.failed.keys() == {second.key}
    assert f"delete {path}" in run.failed[second.key]
    path.unlink()
    assert store.find(first.key) is None
    assert not Engine(store, jobs=1).run([second]).failed
    assert path.read_bytes() == whole
    assert toy_log.lines() == ["first", "first", "second"]


def test_an_unknown_artefact_is_one_sentence(store):
    with pytest.raises(InputError):
        store.get("0" * 64)


def test_a_cell_that_is_there_stays_as_it_was(store):
    done = cell("figure", "once")
    store.finish(done, Outcome([{"value": 1}]), None, 1.0)
    store.finish(done, Outcome([{"value": 2}]), None, 2.0)
    found = store.find(done.key)
    assert (found.rows, found.seconds, store.count()) == ([{"value": 1}], 1.0, 1)


def test_a_cell_whose_artefact_is_gone_is_replaced(store):
    done, other = cell("add", "once"), {"x": np.ones(2)}
    lost, kept = store.put(ARRAYS), store.put(other)
    store.finish(done, Outcome([{"value": 1}]), lost, 1.0)
    store.path(lost).unlink()
    assert store.find(done.key) is None
    store.finish(done, Outcome([{"value": 2}]), kept, 2.0)
    assert (store.find(done.key).rows, store.find(done.key).artifact, store.count()) == ([{"value": 2}], kept, 1)


def test_many_keys_are_found_at_once(store):
    cells = [cell("figure", str(index), seed=index) for index in range(5)]
    for done in cells[:4]:
        store.finish(done, Outcome([{"n": done.seed}]), None, 0.0)
    keys = [f"{index:064}" for index in range(1200)]
    found = store.find_many([*keys, *(c.key for c in cells)])
    assert {key: f.rows[0]["n"] for key, f in found.items()} == {c.key: c.seed for c in cells[:4]}
    assert store.find_many([]) == {}


def test_listing_and_clear(store):
    digest = store.put(ARRAYS)
    store.finish(cell("add", "big", seed=3), Outcome(), digest, 2.0)
    store.finish(cell("figure", "small"), Outcome(), None, 1.0)
    listed = {entry["label"]: entry for entry in store.listing()}
    assert listed["big"]["bytes"] == store.path(digest).stat().st_size
    assert (listed["big"]["seed"], listed["big"]["seconds"], listed["small"]["bytes"]) == (3, 2.0, 0)
    assert store.clear() == 2
    assert (store.count(), list(store.listing()), list(store.blobs.rglob("*.safetensors"))) == (0, [], [])


@pytest.mark.parametrize("name", ["a b", "50%20", "what?x=1", "a#b", "ünï", "per%cent"])
def test_the_folder_may_have_any_name(tmp_path, name):
    store = Store(tmp_path / name)
    store.finish(cell("figure", "x"), Outcome(), None, 0.0)
    assert (tmp_path / name / "cells.sqlite").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("content", [b"not a database at all " * 200, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_one_sentence(tmp_path, content):
    (tmp_path / "cells.sqlite").write_bytes(content)
    with pytest.raises(StoreError, match=r"cannot be opened: .*move it away"):
        Store(tmp_path)
    assert (tmp_path / "cells.sqlite").read_bytes() == content


def test_a_folder_where_the_database_should_be_is_one_sentence(tmp_path):
    (tmp_path / "cells.sqlite").mkdir()
    with pytest.raises(StoreError, match="cannot be opened"):
        Store(tmp_path)


def test_a_file_where_the_folder_should_be_is_one_sentence(tmp_path):
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        Store(tmp_path / "store")


def test_a_database_damaged_inside_is_one_sentence(tmp_path):
    store = Store(tmp_path)
    cells = [cell("figure", str(index), salt="x" * 2000) for index in range(40)]
    for done in cells:
        store.finish(done, Outcome([{"text": "y" * 500}]), None, 0.0)
    store._engine.dispose()
    data = bytearray((tmp_path / "cells.sqlite").read_bytes())
    data[4096:] = bytes([0xA5]) * (len(data) - 4096)
    (tmp_path / "cells.sqlite").write_bytes(data)
    with pytest.raises(StoreError, match="cannot be read: .*malformed"):
        Store(tmp_path).find_many(c.key for c in cells)


def test_rows_that_are_no_json_any_more_are_one_sentence(store):
    done = cell("figure", "x")
    store.finish(done, Outcome([{"value": 1}]), None, 0.0)
    with contextlib.closing(sqlite3.connect(store.folder / "cells.sqlite")) as connection, connection:
        connection.execute("UPDATE cells SET rows = '[{'")
    with pytest.raises(StoreError, match="cannot be read"):
        store.find(done.key)


def test_another_programme_s_table_is_one_sentence(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "cells.sqlite")) as connection, connection:
        connection.execute("CREATE TABLE cells (colour TEXT)")
    store = Store(tmp_path)
    with pytest.raises(StoreError, match="cannot be read"):
        store.find("0" * 64)
    with pytest.raises(StoreError, match="cannot be written"):
        store.finish(cell("figure", "x"), Outcome(), None, 0.0)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="file modes are POSIX")
def test_a_read_only_store_can_be_read_and_says_that_it_cannot_be_written(public):
    done = cell("add", "x")
    store = Store(public / "store")
    digest = store.put(ARRAYS)
    store.finish(done, Outcome([{"value": 1}]), digest, 0.0)
    store._engine.dispose()
    with unwritable(public / "store"):
        read_only = Store(public / "store")
        assert read_only.find(done.key).rows == [{"value": 1}]
        assert read_only.put(ARRAYS) == digest
        with pytest.raises(StoreError, match="cannot be written"):
            read_only.finish(cell("figure", "y"), Outcome(), None, 0.0)
        with pytest.raises(StoreError, match="cannot be written"):
            read_only.put({"x": np.zeros(3)})
        read_only._engine.dispose()


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="file modes are POSIX")
@pytest.mark.parametrize("below", ["", "new"])
def test_a_store_cannot_be_made_in_a_read_only_folder(public, below):
    (public / "locked").mkdir()
    with unwritable(public / "locked"), pytest.raises(StoreError, match=r"\$MODELWARD_HOME"):
        Store(public / "locked" / below)


WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from toy_work import cell
from modelward.evaluation.cell import Outcome
from modelward.evaluation.store import Store
folder, own, start = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
time.sleep(max(0.0, start - time.time()))
store = Store(folder)
for index in range(25):
    for name in ("common", f"own {own}"):
        digest = store.put({"x": np.full(3, index)}, {"name": name})
        store.finish(cell("add", f"{name} {index}", seed=index), Outcome([{"value": index}]), digest, 0.0)
"""


def test_processes_may_make_and_write_one_store_at_once(tmp_path):
    import time

    start = str(time.time() + 1.5)
    environment = os.environ | {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WRITER, str(tmp_path / "store")]
    writers = [subprocess.Popen([*command, str(i), start], env=environment, stderr=subprocess.PIPE, text=True) for i in range(3)]
    errors = [writer.communicate(timeout=60)[1] for writer in writers]
    assert errors == [""] * 3
    store = Store(tmp_path / "store")
    assert store.count() == 4 * 25
    names = ["common", "own 0", "own 1", "own 2"]
    cells = [cell("add", f"{name} {index}", seed=index) for name in names for index in range(25)]
    found = store.find_many(c.key for c in cells)
    assert all(found[c.key].rows == [{"value": c.seed}] for c in cells)
    assert all(np.array_equal(store.get(found[c.key].artifact)[0]["x"], np.full(3, c.seed)) for c in cells)
    assert not list(store.folder.rglob("*.tmp"))


def test_the_home_is_what_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELWARD_HOME", str(tmp_path / "home"))
    assert default_home() == Store().folder == tmp_path / "home"
    monkeypatch.delenv("MODELWARD_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_home() == tmp_path / "modelward"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_home() == tmp_path / ".cache" / "modelward"
