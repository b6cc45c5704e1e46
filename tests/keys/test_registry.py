"""The registry: numbers, states, two processes at once, and files that are locked, read-only, damaged, foreign or newer."""

import contextlib
import datetime as dt
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelward.core.errors import FormatError, InputError, ModelwardError, StoreError, UsageError
from modelward.keys.grants import Grant, Request
from modelward.keys.registry import Registry
from modelward.keys.roster import read_roster

DIGEST = "ab" * 32


def request(user: str, expires: str | None = None) -> Request:
    return Request(user, DIGEST, expires)


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "registry.sqlite", create=True)


def test_a_registry_is_for_its_owner_only_and_says_that_it_is_new(tmp_path):
    path = tmp_path / "registry.sqlite"
    assert Registry(path, create=True).made
    assert path.stat().st_mode & 0o777 == 0o600
    assert not Registry(path, create=True).made
    with pytest.raises(InputError, match="there is no registry"):
        Registry(tmp_path / "other.sqlite")


def test_numbers_are_dense_for_each_purpose_and_survive_renewal(registry):
    registry.issue([request("ann"), request("bob")], purpose="zhang", generation=1)
    registry.issue([request("bob")], purpose="deepmarks", generation=1)
    registry.issue([request("bob"), request("cy")], purpose="zhang", generation=2)
    found = {(g.purpose, g.user, g.generation): g.number for g in registry.grants()}
    assert found == {
        ("zhang", "ann", 1): 0, ("zhang", "bob", 1): 1, ("deepmarks", "bob", 1): 0, ("zhang", "bob", 2): 1, ("zhang", "cy", 2): 2,
    }  # fmt: skip


def test_issuing_is_all_or_none(registry):
    registry.issue([request("ann")], purpose="zhang", generation=1)
    with pytest.raises(UsageError, match="ann has a grant for zhang already"):
        registry.issue([request("bob"), request("ann")], purpose="zhang", generation=1)
    assert [g.user for g in registry.grants()] == ["ann"]


def test_a_revoked_user_stays_revoked_and_keeps_the_number(registry):
    registry.issue([request("ann"), request("bob")], purpose="zhang", generation=1)
    assert registry.revoke("ann") == 1
    assert registry.revoke("ann") == 0
    with pytest.raises(UsageError, match="ann was revoked for zhang"):
        registry.issue([request("ann")], purpose="zhang", generation=2)
    assert registry.issue([request("cy")], purpose="zhang", generation=1)[0].number == 2
    with pytest.raises(InputError, match="ann for zhang is revoked since 20"):
        registry.require("ann", "zhang")
    assert registry.require("bob", "zhang").number == 1
    for call in (lambda: registry.revoke("eve"), lambda: registry.require("eve", "zhang"), lambda: registry.require("bob", "adi")):
        with pytest.raises(InputError, match="there is no user"):
            call()


def test_an_expired_grant_is_refused_from_the_day_after(registry):
    today = dt.datetime.now(dt.UTC).date()
    days = {"past": today - dt.timedelta(1), "today": today, "later": today + dt.timedelta(1)}
    registry.issue([request(user, day.isoformat()) for user, day in days.items()], purpose="zhang", generation=1)
    assert {g.user: g.state() for g in registry.grants()} == {"past": "expired", "today": "active", "later": "active"}
    with pytest.raises(InputError, match="past for zhang is expired since"):
        registry.require("past", "zhang")


def test_two_processes_issue_at_once_and_no_number_is_given_twice(tmp_path):
    path = tmp_path / "registry.sqlite"
    command = [sys.executable, str(Path(__file__).with_name("issuing_driver.py")), str(path)]
    runs = [subprocess.Popen([*command, name], stderr=subprocess.PIPE) for name in ("ann", "bob")]
    assert [(run.communicate(timeout=60)[1], run.returncode) for run in runs] == [(b"", 0)] * 2
    grants = Registry(path).grants()
    assert sorted(g.number for g in grants) == [*range(100)]
    assert len({g.user for g in grants}) == 100


def test_a_registry_that_another_process_holds_is_one_sentence(registry):
    with contextlib.closing(sqlite3.connect(registry.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        hasty = Registry(registry.path, patience=0.1)
        with pytest.raises(StoreError, match="locked by another process"):
            hasty.issue([request("ann")], purpose="zhang", generation=1)
        assert hasty.grants() == []  # reading goes on
        other.execute("ROLLBACK")
    assert hasty.issue([request("ann")], purpose="zhang", generation=1)[0].number == 0


def test_a_registry_on_a_read_only_disk_is_read_and_not_written(registry):
    registry.issue([request("ann")], purpose="zhang", generation=1)
    registry.path.chmod(0o444)
    registry.path.parent.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with contextlib.suppress(PermissionError):  # folders above may be closed to nobody
            registry.path.stat()
            locked = Registry(registry.path, create=True)
            assert [g.user for g in locked.grants()] == ["ann"]
            with pytest.raises(StoreError, match="read-only"):
                locked.issue([request("bob")], purpose="zhang", generation=1)
            with pytest.raises(StoreError, match="cannot be made"):
                Registry(registry.path.with_name("new.sqlite"), create=True)
    finally:
        if root:
            os.seteuid(0)
        registry.path.parent.chmod(0o755)


def test_a_foreign_newer_or_cut_registry_is_one_sentence(tmp_path, registry):
    registry.issue([request(f"u{i}") for i in range(200)], purpose="zhang", generation=1)
    whole = registry.path.read_bytes()
    with contextlib.closing(sqlite3.connect(tmp_path / "foreign.sqlite")) as other:
        other.execute("CREATE TABLE grants (x)")
        other.commit()
    with contextlib.closing(sqlite3.connect(registry.path)) as other:
        other.execute("PRAGMA user_version=2")
        other.commit()
    with pytest.raises(FormatError, match="newer modelward"):
        Registry(registry.path)
    with pytest.raises(FormatError, match="no registry of modelward"):
        Registry(tmp_path / "foreign.sqlite")
    for name, data in (("text", b"user,expires\n" * 99), ("half", whole[: len(whole) // 2])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FormatError, match="damaged or no registry"):
            Registry(tmp_path / name).grants()


def test_what_was_written_into_the_file_by_hand_is_not_believed(registry):
    registry.issue([request("ann")], purpose="zhang", generation=1)
    for column, value in (("user", "../../evil"), ("status", "owner"), ("expires", "never"), ("number", -1), ("key_digest", "x")):
        read, write = f"SELECT {column} FROM grants", f"UPDATE grants SET {column} = ?"  # noqa: S608  # names of our own
        with contextlib.closing(sqlite3.connect(registry.path)) as other:
            before = other.execute(read).fetchone()[0]
            other.execute(write, (value,))
            other.commit()
            with pytest.raises(FormatError, match="damaged or was altered"):
                registry.grants()
            other.execute(write, (before,))
            other.commit()
    assert len(registry.grants()) == 1


@settings(max_examples=40)
@given(st.data())
def test_no_altered_registry_is_more_than_one_sentence(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("registry")
    registry = Registry(folder / "registry.sqlite", create=True)
    registry.issue([request("ann")], purpose="zhang", generation=1)
    raw = bytearray(registry.path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=8)):
        raw[place] ^= data.draw(st.integers(1, 255))
    registry.path.write_bytes(raw)
    with contextlib.suppress(ModelwardError):
        assert all(isinstance(grant, Grant) for grant in Registry(registry.path).grants())


def test_a_backup_is_a_registry_and_is_remembered(tmp_path, registry):
    registry.issue([request("ann")], purpose="zhang", generation=1)
    assert registry.notes() == {}
    registry.backup(tmp_path / "copy.sqlite")
    assert Registry(tmp_path / "copy.sqlite").grants() == registry.grants()
    assert dt.datetime.fromisoformat(registry.notes()["backup"]).tzinfo is not None
    with pytest.raises(UsageError, match="overwrites nothing"):
        registry.backup(tmp_path / "copy.sqlite")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,expires\nann,\n", "first line must be"), ("user,expires\n", "names 0 users"), ("user,expires\nann\n", "line 2: 2 cells"),
        ("user,expires\nann,soon\n", "line 2: a day is written as"), ("user,expires\nann,\nbob,2020-01-01\n", "line 3: 2020-01-01 is past"),
        ("user\n=cmd()\n", "line 2: a name has"), ("user\n../x\n", "line 2"),
        ("user\nann\nbob\nann\n", "line 4: user ann occurs twice"), ('user\n"ann\n', "no CSV table"), ("user\n" + "a" * 200_000, "no CSV table"),
    ],
)  # fmt: skip
def test_a_wrong_roster_names_its_line(tmp_path, text, words):
    path = tmp_path / "users.csv"
    path.write_text(text)
    with pytest.raises(FormatError, match=words):
        read_roster(path)
