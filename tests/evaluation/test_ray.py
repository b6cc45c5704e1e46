"""The Ray engine: the rows of the process engine, from workers that share nothing with the store; what one began the other ends."""

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from toy_work import cell, layered

from modelward.core.canonical import canonical_json
from modelward.core.errors import ModelwardError, UnavailableError, UsageError
from modelward.evaluation import ray_cluster, ray_crew
from modelward.evaluation.cell import Job
from modelward.evaluation.code import code_digest
from modelward.evaluation.engine import Engine
from modelward.evaluation.place import Place, placed
from modelward.evaluation.store import Store

HERE = Path(__file__).parent
RAY = Place("ray")
absent = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed; it comes with the extra 'cluster'")


def needs_ray(test):
    """Skip a test where Ray is not installed; a cluster takes long to start."""
    return pytest.mark.slow(absent(test))


def table(run, cells):
    return canonical_json([(c.label, run.of(c).rows, run.of(c).artifact) for c in cells])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Start two local workers' worth of Ray once: every engine of this module joins it."""
    log = tmp_path_factory.mktemp("ray") / "toy.log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOY_LOG", str(log))
        with ray_cluster.joined(None, 2):
            yield log


@needs_ray
@pytest.mark.usefixtures("cluster")
def test_ray_makes_the_rows_of_the_process_engine(tmp_path):
    cells = layered(3, 3, ms=0)
    stores = [Store(tmp_path / name) for name in ("process", "ray")]
    runs = [Engine(stores[0], jobs=1).run(cells), Engine(stores[1], jobs=2, place=RAY).run(cells)]
    assert table(runs[0], cells) == table(runs[1], cells)
    assert [stores[1].get(runs[1].of(c).artifact)[0].keys() for c in cells if runs[1].of(c).artifact]  # the driver has every array
    assert not list((tmp_path / "ray").rglob("*.tmp"))


@needs_ray
@pytest.mark.parametrize("first", ["process", "ray"])
def test_what_one_engine_began_the_other_ends(tmp_path, cluster, first):
    second = "ray" if first == "process" else "process"
    store, before = Store(tmp_path / "store"), len(cluster.read_text().splitlines()) if cluster.exists() else 0
    with placed(Place(first)):
        Engine(store, jobs=1).run(layered(2, 1, ms=0))
    with placed(Place(second)):
        run = Engine(store, jobs=1).run(layered(2, 2, ms=0))
    assert len(run.finished) == 6
    assert sum(done.cached for done in run.finished.values()) == 3
    computed = cluster.read_text().splitlines()[before:]
    assert len(computed) == 6
    assert len(set(computed)) == 6


@needs_ray
def test_failures_are_the_cells_own(tmp_path, cluster):
    bad = [
        cell("refuse", "bad"),
        cell("crash", "crash", zero=0),
        cell("unpicklable", "lambda"),
        cell("no_json", "object"),
        cell("die", "dead"),
    ]
    after, good = cell("add", "after", needs=[bad[0]]), [cell("add", f"good {index}", seed=index) for index in range(3)]
    run = Engine(Store(tmp_path / "store"), jobs=2, place=RAY).run([after, *bad, *good])
    assert run.finished.keys() == {c.key for c in good}
    assert [run.failed[c.key].partition(":")[0] for c in bad[:2]] == ["bad was refused", "toy_work"]
    assert "ZeroDivisionError" in run.failed[bad[1].key]
    assert run.failed[bad[4].key] == "the process that ran it died (out of memory?)"
    assert run.failed[after.key] == "bad failed before it"
    assert all(len(text.splitlines()) == 1 for text in run.failed.values())
    assert cluster.read_text().splitlines().count("dead") == 2  # a death is tried once more


def test_a_worker_with_other_code_computes_nothing():
    worker = ray_crew.Worker((), None, watched=False)
    job = Job({"name": "x"}, {}, 0, "", 1, "fp32")
    right = worker.compute("toy_work:add", (("toy_work",), code_digest("toy_work")), job, {})
    wrong = worker.compute("toy_work:add", (("toy_work",), "0" * 64), job, {})
    worker.leave()
    assert right.failure is None
    assert right.data
    assert (
        wrong.failure == "a worker of the cluster has another version of toy_work than this machine; install the same modelward everywhere"
    )
    assert not Path(worker.folder).exists()


def test_without_ray_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        UnavailableError, match=r"^the Ray engine needs one more package; install it with: pip install 'modelward\[cluster\]'$"
    ):
        ray_cluster.ray()


@pytest.mark.parametrize(
    ("place", "text"),
    [
        (("slurm",), "--engine is process or ray, not 'slurm'"),
        (("process", "h:1"), "--ray-address goes with"),
        *((("ray", wrong), "--ray-address takes HOST:PORT") for wrong in ("head", ":6379", "h:", "h:0", "h:70000", "ray://x")),
    ],
)
def test_places_are_checked(place, text):
    with pytest.raises(UsageError, match=text):
        Place(*place)


@needs_ray
@pytest.mark.parametrize("listens", [False, True])
def test_an_address_that_does_not_answer_is_said_after_20_seconds_at_most(tmp_path, monkeypatch, listens):
    assert ray_cluster.CONNECT_SECONDS + ray_cluster.HEALTH_SECONDS < 20
    monkeypatch.setattr(ray_cluster.ray(), "is_initialized", lambda: False)
    monkeypatch.setattr(ray_cluster.ray(), "init", lambda **_: pytest.fail("Ray's own attempts take minutes"))
    spent, connect, run = [], socket.create_connection, subprocess.run
    monkeypatch.setattr(socket, "create_connection", lambda place, *, timeout: spent.append(timeout) or connect(place, timeout=timeout))
    monkeypatch.setattr(subprocess, "run", lambda words, *, timeout, **how: spent.append(timeout) or run(words, timeout=timeout, **how))
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listens:  # takes connections, and is no Ray
            server.listen()
            monkeypatch.setattr(ray_cluster, "HEALTH_SECONDS", 2.0)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ModelwardError, match=rf"^no Ray cluster answers at {address}; start one with"):
            Engine(Store(tmp_path), place=Place("ray", address)).run([cell("add", "a")])
    assert spent == [ray_cluster.CONNECT_SECONDS, 2.0][: 1 + listens]  # all that was waited for


@needs_ray
def test_a_run_killed_on_ray_leaves_no_process_and_goes_on_in_processes(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(HERE), "TOY_LOG": str(tmp_path / "log"), "TOY_LASTING": "1", "TOY_ENGINE": "ray"}
    environment |= {"HOME": str(tmp_path / "home"), "TMPDIR": tempfile.mkdtemp(prefix="t")}
    command = [sys.executable, str(HERE / "toy_driver.py"), str(tmp_path / "store"), "2"]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    log, deadline = tmp_path / "log", time.monotonic() + 60
    while "lasting 0 began" not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    children = descendants(process.pid)
    agents = {pid for pid in children if b"Agent" in Path(f"/proc/{pid}/cmdline").read_bytes()}  # Ray's own, idle; they end within a minute
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    store = Store(tmp_path / "store")
    done = store.count()
    working = [pid for pid in children if pid not in agents]
    assert len(working) > 3
    deadline = time.monotonic() + 60
    while alive := [pid for pid in working if running(pid)]:
        assert time.monotonic() < deadline, [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in alive]
        time.sleep(0.1)
    cells = layered(4, 3, ms=12)
    run = Engine(store, jobs=2).run(cells)
    assert sum(f.cached for f in run.finished.values()) == done == len(cells) == 15
    assert not (tmp_path / "home").exists()  # no token, no usage file


def descendants(pid):
    direct = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return direct + [below for child in direct for below in descendants(child)]


def running(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False
