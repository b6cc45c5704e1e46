"""Killed at any moment, an evaluation loses no finished cell, repeats none, and ends with the rows of an undisturbed run."""

import collections
import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_driver import plan

from modelward.core.canonical import canonical_json
from modelward.evaluation.engine import closure
from modelward.evaluation.store import Store

HERE = Path(__file__).parent
DRIVER = str(HERE / "toy_driver.py")
CELLS = closure(plan())
NAMES = {cell.key: cell.label for cell in CELLS}
GUARD_S = 60.0


class Place:
    """A store folder, the log of what was computed for it, and the runs on it."""

    def __init__(self, folder):
        folder.mkdir()
        self.folder, self.log = folder / "store", folder / "toy.log"
        self.environment = os.environ | {"PYTHONPATH": str(HERE), "TOY_LOG": str(self.log), "OMP_NUM_THREADS": "1"}

    def start(self, jobs, *trap, wait=True, **environment):
        """Start a run as the leader of its own process group; with ``wait`` until its store is open."""
        command = [sys.executable, DRIVER, str(self.folder), str(jobs), *map(str, trap)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=self.environment | environment, start_new_session=True)
        if wait:
            assert process.stdout.readline() in {b"ready\n", b""}
        return process

    def rows(self):
        """Return name -> (canonical rows, artefact) of every cell in the store, each artefact read back."""
        store = Store(self.folder)
        found = store.find_many(NAMES)
        for finished in found.values():
            if finished.artifact:
                store.get(finished.artifact)
        store._engine.dispose()
        return {NAMES[key]: (canonical_json(finished.rows), finished.artifact) for key, finished in found.items()}

    def computed(self):
        """Return name -> how often it was computed."""
        return collections.Counter(self.log.read_text().splitlines() if self.log.exists() else [])

    def sound(self):
        with contextlib.closing(sqlite3.connect(self.folder / "cells.sqlite")) as connection:
            return connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def group(leader):
    """Return the living processes of a process group."""
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == leader and state not in "ZX":
                alive.append(int(stat.parent.name))
    return alive


def gone(leader, within_s):
    deadline = time.monotonic() + within_s
    while group(leader):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def kill(process, delay_s):
    """Wait for the run to end, but kill its whole group after ``delay_s``; return its exit status."""
    try:
        process.wait(delay_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    status = process.wait(GUARD_S)
    process.stdout.close()
    assert gone(process.pid, GUARD_S)
    return status


def check(place, before, computed, reference):
    """Check what one killed or ended run left, against what was there before it; return what is there now."""
    now, counts = place.rows(), place.computed()
    assert before.keys() <= now.keys(), "a finished cell was lost"
    assert {name: counts[name] for name in before} == {name: computed[name] for name in before}, "a finished cell was computed again"
    assert now == {name: reference[name] for name in now}
    assert all(counts[name] for name in now)
    return now, counts


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Return the rows of a run that nobody killed, and seconds from open store to end by number of jobs."""
    lives, tables = {}, []
    for jobs in (1, 2):
        place = Place(tmp_path_factory.mktemp("undisturbed") / "place")
        process = place.start(jobs)
        started = time.monotonic()
        assert process.wait(GUARD_S) == 0
        process.stdout.close()
        lives[jobs] = time.monotonic() - started
        tables.append(place.rows())
        assert set(place.computed().values()) == {1}
    assert tables[0] == tables[1]
    assert tables[0].keys() == set(NAMES.values())
    return tables[0], lives


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="process groups are looked up in /proc")
@pytest.mark.parametrize(("jobs", "kills"), [(1, 8), (2, 7)])
def test_random_kills_lose_and_repeat_nothing(tmp_path, undisturbed, jobs, kills):
    reference, lives = undisturbed
    chance, done, stores = random.Random(20_000 + jobs), 0, 0
    while done < kills:
        place, (now, counts) = Place(tmp_path / f"place{stores}"), ({}, collections.Counter())
        stores += 1
        status, rounds, span = -signal.SIGKILL, 0, 0.6 * lives[jobs]
        while status == -signal.SIGKILL:
            starting = chance.random() < 0.1
            delay = chance.uniform(0, 0.35) if starting else chance.uniform(0, span)
            status = kill(place.start(jobs, wait=not starting), delay)
            assert status in {0, -signal.SIGKILL}
            rounds += status != 0
            had = len(now)
            now, counts = check(place, now, counts, reference)
            assert place.sound()
            span *= 1.3 if len(now) == had else 1.0  # a machine that got slower must not be killed in its start-up for ever
        assert now == reference
        if jobs == 1:  # at most the one cell that was at work is computed twice
            assert counts.total() <= len(CELLS) + rounds
        done += rounds
    assert done >= kills


TRAPS = [
    "before delete",
    "after delete",
    "before insert",
    "after insert",
    "commit",
    "computed",
    "finished",
    "before rename",
    "after rename",
]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="process groups are looked up in /proc")
def test_kills_inside_a_commit_lose_and_repeat_nothing(tmp_path, undisturbed):
    reference, _ = undisturbed
    chance = random.Random(5)
    place, now, counts = Place(tmp_path / "place"), {}, collections.Counter()
    for point in [*TRAPS, *["commit"] * 5]:
        delay_us = chance.randrange(1, 4000) if point == "commit" else 0  # the transaction is written and synced meanwhile
        status = kill(place.start(1, point, 1, delay_us), GUARD_S)
        assert status == -signal.SIGKILL
        now, counts = check(place, now, counts, reference)
        assert place.sound()
    assert kill(place.start(2), GUARD_S) == 0
    assert check(place, now, counts, reference)[0] == reference


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="process groups are looked up in /proc")
def test_workers_do_not_outlive_their_parent(tmp_path, undisturbed):
    place = Place(tmp_path / "place")
    process = place.start(2, TOY_LASTING="1")
    wait_for(place, "lasting 1 began")
    before, computed = place.rows(), place.computed()
    process.kill()
    process.wait(GUARD_S)
    process.stdout.close()
    assert gone(process.pid, GUARD_S)
    check(place, before, computed, undisturbed[0])


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="process groups are looked up in /proc")
@pytest.mark.parametrize("jobs", [1, 2])
def test_ctrl_c_ends_the_run_at_once_and_keeps_what_is_finished(tmp_path, undisturbed, jobs):
    place = Place(tmp_path / "place")
    process = place.start(jobs, TOY_LASTING="1")
    wait_for(place, f"lasting {jobs - 1} began")
    before, computed = place.rows(), place.computed()
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(GUARD_S) == 130  # far sooner than a lasting cell ends
    process.stdout.close()
    assert gone(process.pid, GUARD_S)
    assert len(before) == len(CELLS)
    assert not {"lasting 0", "lasting 1"} & place.computed().keys()
    check(place, before, computed, undisturbed[0])


def wait_for(place, line):
    """Wait until every cell of the plan is finished and ``line`` stands in the log."""
    deadline = time.monotonic() + GUARD_S
    while not place.computed()[line] or len(place.rows()) < len(CELLS):
        assert time.monotonic() < deadline
        time.sleep(0.05)
