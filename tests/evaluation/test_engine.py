"""The engine: order, failures, cached runs, progress, and the same rows from one process as from many."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_work import cell, layered

from modelward.core import progress
from modelward.core.canonical import canonical_json
from modelward.core.errors import ModelwardError
from modelward.evaluation import crew as crew_module
from modelward.evaluation import engine
from modelward.evaluation.engine import Engine, closure
from modelward.evaluation.store import Store

HERE = Path(__file__).parent


class Listener:
    """Keeps what it hears."""

    def __init__(self):
        self.heard = []

    def advance(self, task, done, total, note=""):
        self.heard.append((task, done, total, note))


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def table(run, cells):
    return canonical_json([(c.label, run.of(c).rows, run.of(c).artifact) for c in cells])


@st.composite
def graphs(draw):
    """Return cells of a random acyclic graph, in random order."""
    made = []
    for index in range(draw(st.integers(1, 12))):
        needs = draw(st.lists(st.sampled_from(made), max_size=4)) if made else []
        made.append(cell("figure", f"c{index}", needs=needs))
    return draw(st.permutations(made))


@settings(deadline=None)
@given(graphs())
def test_closure_names_each_cell_once_and_after_its_needs(cells):
    ordered = closure(cells)
    position = {c.key: index for index, c in enumerate(ordered)}
    assert len(position) == len(ordered)
    assert position.keys() >= {c.key for c in cells}
    assert all(position[need.key] < position[c.key] for c in ordered for need in c.needs)


def test_closure_brings_in_what_is_only_named_as_an_input():
    first = cell("add", "first")
    second = cell("add", "second", needs=[first, cell("add", "first")])
    assert [c.label for c in closure([second])] == ["first", "second"]


def test_one_process_and_two_make_identical_rows(tmp_path, toy_log):
    cells = layered(3, 3, ms=0)
    runs = [Engine(Store(tmp_path / f"store{jobs}"), jobs=jobs).run(cells) for jobs in (1, 2)]
    assert table(runs[0], cells) == table(runs[1], cells)
    assert sorted(toy_log.lines()) == sorted([c.label for c in cells] * 2)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_cell_is_computed_after_what_it_needs(store, toy_log, jobs):
    a = cell("add", "a", seed=1, ms=60)
    b, c = cell("add", "b", seed=2, needs=[a]), cell("add", "c", seed=3)
    d = cell("add", "d", seed=4, needs=[b, c])
    run = Engine(store, jobs=jobs).run([d])
    order = toy_log.lines()
    assert sorted(order) == ["a", "b", "c", "d"]
    assert order.index("a") < order.index("b") < order.index("d") == 3
    inputs = sum(store.get(run.of(x).artifact)[0]["total"] for x in (b, c))
    own = np.random.default_rng(4).normal(size=8)
    assert np.allclose(store.get(run.of(d).artifact)[0]["total"], own + inputs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize(("kind", "why"), [("refuse", "bad was refused"), ("crash", "toy_work:crash raised ZeroDivisionError: ")])
def test_a_failure_stops_what_needs_it_and_nothing_else(store, toy_log, jobs, kind, why):
    bad = cell(kind, "bad", zero=0)
    after = cell("add", "after", needs=[bad])
    last = cell("add", "last", needs=[after])
    others = [cell("add", f"other {index}", seed=index) for index in range(4)]
    run = Engine(store, jobs=jobs).run([last, *others])
    assert run.failed.keys() == {bad.key, after.key, last.key}
    assert run.failed[bad.key].startswith(why)
    assert run.failed[after.key] == "bad failed before it"
    assert run.failed[last.key] == "after failed before it"
    assert [run.of(c) for c in (bad, after, last)] == [None] * 3
    assert all(run.of(c).rows[0]["metric"] == c.label for c in others)
    assert sorted(toy_log.lines()) == ["bad", *(c.label for c in others)]
    again = Engine(store, jobs=jobs).run([last, *others])  # a failure is not kept: the next run tries again
    assert toy_log.lines().count("bad") == 2
    assert again.failed == run.failed
    assert all(again.of(c).cached for c in others)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_second_run_computes_nothing(store, toy_log, jobs, monkeypatch):
    cells = layered(2, 2, ms=0)
    first = Engine(store, jobs=jobs).run(cells)
    before = toy_log.lines()
    for name in ("ProcessCrew", "execute"):
        monkeypatch.setattr(engine, name, lambda *_: pytest.fail("a worker was started"))
    second = Engine(store, jobs=jobs).run(layered(2, 2, ms=0))
    assert toy_log.lines() == before
    assert table(first, cells) == table(second, cells)
    assert not any(first.of(c).cached for c in cells)
    assert all(second.of(c).cached for c in cells)
    assert second.store == str(store.folder)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_longer_plan_computes_only_what_is_new(store, toy_log, jobs):
    Engine(store, jobs=1).run(layered(2, 1, ms=0))
    before = len(toy_log.lines())
    run = Engine(store, jobs=jobs).run(layered(2, 2, ms=0))
    assert sorted(toy_log.lines()[before:]) == ["add 1.0", "add 1.1", "figure 1"]
    assert len(run.finished) == 6


def test_an_empty_plan_is_a_finished_plan(store):
    run = Engine(store, jobs=2).run([])
    assert (run.finished, run.failed) == ({}, {})


@pytest.mark.parametrize("jobs", [1, 2])
def test_progress_rises_to_the_whole(store, jobs):
    bad = cell("refuse", "bad", seconds=0.75)
    cells = [cell("add", f"c{index}", seed=index, seconds=0.25 * (index + 1)) for index in range(4)]
    cells.append(cell("add", "blocked", needs=[bad], seconds=0.5))
    Engine(store, jobs=1).run(cells[:2])
    listener = Listener()
    with progress.listening(listener):
        Engine(store, jobs=jobs).run(cells, task="toys")
    tasks, done, totals, notes = zip(*listener.heard, strict=True)
    assert set(tasks) == {"toys"}
    assert set(totals) == {3.75}
    assert (done[0], notes[0]) == (0.75, "2/6 cells")
    assert list(done) == sorted(done)
    assert done[-1] == totals[-1]
    assert notes[-1].startswith("6/6 cells")


@pytest.mark.parametrize("kill", [False, True])
def test_a_dead_worker_fails_its_cell_and_the_run_goes_on(store, toy_log, kill):
    bad = cell("die", "bad", kill=kill)
    after = cell("add", "after", needs=[bad])
    others = [cell("add", f"other {index}", seed=index, ms=50) for index in range(5)]
    run = Engine(store, jobs=2).run([after, *others[:2], bad, *others[2:]])
    assert run.failed == {bad.key: "the process that ran it died (out of memory?)", after.key: "bad failed before it"}
    assert run.finished.keys() == {c.key for c in others}
    assert store.count() == 5
    assert toy_log.lines().count("bad") <= 2


def test_workers_that_die_again_and_again_end_the_run_but_not_what_is_finished(store, monkeypatch):
    monkeypatch.setattr(crew_module, "DEATHS", 2)
    good = cell("add", "good")
    bad = [cell("die", f"bad {index}", needs=[good]) for index in range(8)]
    with pytest.raises(ModelwardError, match="fewer jobs"):
        Engine(store, jobs=2).run(bad)
    assert store.find(good.key) is not None


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("kind", ["unpicklable", "no_json"])
def test_an_outcome_that_cannot_be_kept_fails_its_cell_alone(store, jobs, kind):
    bad, good = cell(kind, "bad"), cell("add", "good")
    run = Engine(store, jobs=jobs).run([bad, good])
    assert run.finished.keys() == {good.key}
    assert run.failed.keys() == {bad.key}
    assert len(run.failed[bad.key].splitlines()) == 1
    assert store.find(bad.key) is None


def test_work_that_does_not_exist_fails_its_cell_alone(store):
    bad, good = cell("absent", "bad"), cell("add", "good")
    run = Engine(store, jobs=2).run([bad, good])
    assert run.finished.keys() == {good.key}
    assert "absent" in run.failed[bad.key]


def test_a_script_without_a_guard_may_use_workers(tmp_path):
    command = [sys.executable, str(HERE / "toy_script.py"), str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_starting_workers_leaves_the_script_as_it_was(store):
    before = dict(vars(sys.modules["__main__"]))
    Engine(store, jobs=2).run([cell("add", "a"), cell("add", "b")])
    assert vars(sys.modules["__main__"]) == before


def test_importing_the_engine_imports_no_torch():
    code = "import sys, modelward.evaluation.engine; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
