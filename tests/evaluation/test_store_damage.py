"""A damaged, foreign or locked store is one sentence, and nothing that was whole is lost."""

import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_work import cell

from modelward.core.errors import StoreError, UnsafeFileError
from modelward.evaluation.cell import Outcome
from modelward.evaluation.engine import Engine
from modelward.evaluation.store import Store

ARRAYS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array(7, dtype=np.int64)}


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
    with pytest.raises(StoreError, match=r"cannot be read: .*malformed"):
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
