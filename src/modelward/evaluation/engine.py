"""The process engine: runs the cells that the store does not have yet, in dependency order, and survives being killed."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from modelward.core import consent, progress
from modelward.core.errors import ModelwardError
from modelward.evaluation.cell import Cell, Finished, Job, Outcome
from modelward.evaluation.store import Store

DEATHS = 5  # so many dead workers are no accident of one cell


@dataclass
class Run:
    """What became of a plan: finished cells and failures by key, and the store folder that holds their arrays."""

    finished: dict[str, Finished] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    store: str = ""

    def of(self, cell: Cell) -> Finished | None:
        """Return the finished cell, or ``None`` when it failed."""
        return self.finished.get(cell.key)


def closure(cells: Iterable[Cell]) -> list[Cell]:
    """Return ``cells`` and everything they need, each key once, needed ones first."""
    ordered: dict[str, Cell] = {}

    def visit(cell: Cell) -> None:
        if cell.key not in ordered:
            for need in cell.needs:
                visit(need)
            ordered[cell.key] = cell

    for cell in cells:
        visit(cell)
    return list(ordered.values())


def execute(work: str, job: Job) -> tuple[Outcome, str | None, float]:
    """Run one work function and write its arrays; return (outcome without arrays, artefact digest, seconds)."""
    started = time.perf_counter()
    module, _, name = work.partition(":")
    function: Callable[[Job], Outcome] = getattr(importlib.import_module(module), name)
    outcome = function(job)
    digest = Store(job.store).put(outcome.arrays, outcome.facts) if outcome.arrays else None
    return Outcome(outcome.rows), digest, time.perf_counter() - started


def _start_worker(parent: int, threads: int, named: tuple[str, ...]) -> None:
    """Prepare a worker: leave Ctrl-C to the parent, die with it, use the planned number of threads, know which functions the user named."""
    consent.give(named)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = str(threads)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Engine:
    """Runs plans against a store.

    Parameters
    ----------
    store
        where finished cells are looked up and kept.
    jobs
        worker processes; 1 runs in this process.
    """

    def __init__(self, store: Store, *, jobs: int | None = None) -> None:
        self.store = store
        self.jobs = jobs or max(1, min(os.cpu_count() or 1, 16))

    def run(self, cells: Sequence[Cell], *, task: str = "cells") -> Run:
        """Finish ``cells`` and what they need. A failed cell fails those that need it; the others go on."""
        ordered = closure(cells)
        run = Run(self.store.find_many(cell.key for cell in ordered), store=str(self.store.folder))
        todo = [cell for cell in ordered if cell.key not in run.finished]
        meter = _Meter(task, ordered, todo)
        if not todo:
            return run
        if self.jobs == 1 or len(todo) == 1:
            for cell in todo:
                meter.show(cell.label)
                self._settle(cell, run, meter, lambda c=cell: execute(c.work, self._job(c, run)))  # type: ignore[misc]
        else:
            self._parallel(todo, run, meter)
        return run

    def _job(self, cell: Cell, run: Run) -> Job:
        """Return the plain-data job of ``cell``; its needs are finished."""
        inputs = {name: (run.finished[v.key].artifact or "") if isinstance(v, Cell) else v for name, v in cell.inputs.items()}
        return Job(dict(cell.settings), inputs, cell.seed, str(self.store.folder), cell.threads, cell.precision)

    def _settle(self, cell: Cell, run: Run, meter: _Meter, result: Callable[[], tuple[Outcome, str | None, float]]) -> None:
        """Record the result of ``cell``, or why there is none."""
        broken = [need.label for need in cell.needs if need.key in run.failed]
        try:
            if broken:
                run.failed[cell.key] = f"{broken[0]} failed before it"
            else:
                outcome, artifact, seconds = result()
                run.finished[cell.key] = self.store.finish(cell, outcome, artifact, seconds)
        except ModelwardError as error:
            run.failed[cell.key] = str(error)
        except Exception as error:  # noqa: BLE001  # a fault in one method must not cost the other cells
            run.failed[cell.key] = f"{cell.work} raised {type(error).__name__}: {error}"
        meter.done(cell)

    def _parallel(self, todo: list[Cell], run: Run, meter: _Meter) -> None:
        """Finish ``todo`` in worker processes. When one dies, what was at work gets a second chance alone; what dies alone has failed."""
        waiting, deaths = todo, 0
        while waiting:
            lost = self._pooled(waiting, run, meter, min(self.jobs, len(waiting)))
            if lost is None:
                return
            for cell in lost:
                if len(lost) == 1 or self._pooled([cell], run, meter, 1) is not None:
                    self._settle(cell, run, meter, _died)
            deaths += 1
            if deaths == DEATHS:
                message = "worker processes die again and again (out of memory?); finished cells are kept, run it again with fewer jobs"
                raise ModelwardError(message)
            waiting = [cell for cell in waiting if cell.key not in run.finished and cell.key not in run.failed]

    def _pooled(self, cells: list[Cell], run: Run, meter: _Meter, workers: int) -> list[Cell] | None:
        """Keep every worker busy; a cell starts as soon as what it needs is finished. Return what was at work when a worker died."""
        pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(os.getpid(), max(cell.threads for cell in cells), consent.given()),
        )
        waiting, running = list(cells), dict[Future[Any], Cell]()
        try:
            while waiting or running:
                for cell in [c for c in waiting if all(n.key in run.finished or n.key in run.failed for n in c.needs)]:
                    if any(need.key in run.failed for need in cell.needs):
                        waiting.remove(cell)
                        self._settle(cell, run, meter, _never)
                    elif len(running) < workers:  # nothing is queued, so that a death has few suspects
                        with _without_script():
                            running[pool.submit(execute, cell.work, self._job(cell, run))] = cell
                        waiting.remove(cell)
                done, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                broken = {future for future in done if isinstance(future.exception(), BrokenProcessPool)}
                for future in done - broken:
                    self._settle(running.pop(future), run, meter, future.result)
                if broken:
                    return list(running.values())
                meter.show()
        except BrokenProcessPool:  # of submit: a worker died between two cells
            return list(running.values())
        finally:
            _stop(pool)
        return None


@contextlib.contextmanager
def _without_script() -> Iterator[None]:
    """Start workers that do not run the caller's script again, so that one without an ``if __name__`` guard works.

    Cells name their code by module; nothing of the script is needed in a worker.
    """
    main: dict[str, Any] = vars(sys.modules["__main__"])
    kept: dict[str, Any] = {name: main.pop(name) for name in ("__file__", "__spec__") if name in main}
    main["__spec__"] = None
    try:
        yield
    finally:
        del main["__spec__"]
        main.update(kept)


def _died() -> tuple[Outcome, str | None, float]:
    """Stand in for the result of a cell whose process died."""
    raise ModelwardError("the process that ran it died (out of memory?)")


def _never() -> tuple[Outcome, str | None, float]:
    """Stand in for the result of a cell that cannot run."""
    raise ModelwardError("not run")


def _stop(pool: ProcessPoolExecutor) -> None:
    """End a pool at once: finished cells are in the store, unfinished ones are worthless."""
    workers: Mapping[int, Any] = getattr(pool, "_processes", None) or {}
    processes = list(workers.values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(timeout=5)


class _Meter:
    """Progress in estimated seconds, corrected by how fast this machine turned out to be."""

    def __init__(self, task: str, ordered: list[Cell], todo: list[Cell]) -> None:
        self.task = task
        self.total = sum(cell.seconds for cell in ordered)
        self.ready = self.total - sum(cell.seconds for cell in todo)
        self.count, self.all = len(ordered) - len(todo), len(ordered)
        self.show()

    def done(self, cell: Cell) -> None:
        """Count ``cell`` as finished."""
        self.ready += cell.seconds
        self.count += 1
        self.show(cell.label)

    def show(self, label: str = "") -> None:
        """Tell the listener."""
        progress.advance(self.task, self.ready, self.total, f"{self.count}/{self.all} cells {label}".strip())
