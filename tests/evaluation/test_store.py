"""The store: what goes in comes out, once, whole, or with one sentence."""

import hashlib
import os
import string
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_work import cell

from modelward.core.canonical import canonical_json
from modelward.core.errors import InputError
from modelward.evaluation.cell import Cell, Outcome
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


WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from toy_work import cell
from modelward.evaluation.cell import Cell, Outcome
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


def test_cells_that_came_together_are_recorded_together_or_not_at_all(tmp_path):
    store = Store(tmp_path)
    cells = [Cell("toy_work:figure", {"name": name}, label=name) for name in "abc"]
    first = store.finish(cells[0], Outcome([{"value": 1}]), None, 1.0)
    with pytest.raises(InputError):
        store.finish_many([(cells[1], Outcome([{"value": 2}]), None, 1.0), (cells[2], Outcome([{"value": object()}]), None, 1.0)])
    assert store.find(cells[1].key) is None
    done = store.finish_many([(cell, Outcome([{"value": 9}]), None, 2.0) for cell in cells])
    assert [finished.key for finished in done] == [cell.key for cell in cells]
    assert store.find(cells[0].key).rows == first.rows  # what is there stays
    assert [store.find(cell.key).rows for cell in cells[1:]] == [[{"value": 9}]] * 2
    assert store.finish_many([]) == []
