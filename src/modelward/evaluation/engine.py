"""The process engine: runs the cells that the store does not have yet, in dependency order, and survives being killed."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from modelward.core import progress
from modelward.core.errors import ModelwardError
from modelward.evaluation.cell import Cell, Finished, Job, Outcome
from modelward.evaluation.store import Store


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


def _start_worker(parent: int, threads: int) -> None:
    """Prepare a worker: leave Ctrl-C to the parent, die with it, use the planned number of threads."""
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
        meter.done(cell)

    def _parallel(self, todo: list[Cell], run: Run, meter: _Meter) -> None:
        """Keep every worker busy; a cell starts as soon as what it needs is finished."""
        pool = ProcessPoolExecutor(
            min(self.jobs, len(todo)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(os.getpid(), max(cell.threads for cell in todo)),
        )
        waiting, running = list(todo), dict[Future[Any], Cell]()
        try:
            while waiting or running:
                for cell in [c for c in waiting if all(n.key in run.finished or n.key in run.failed for n in c.needs)]:
                    waiting.remove(cell)
                    if any(need.key in run.failed for need in cell.needs):
                        self._settle(cell, run, meter, _never)
                    else:
                        running[pool.submit(execute, cell.work, self._job(cell, run))] = cell
                done, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in done:
                    cell = running.pop(future)
                    self._settle(cell, run, meter, future.result)
                meter.show()
        except BrokenProcessPool as error:
            names = ", ".join(cell.label for cell in running.values()) or "a cell"
            message = f"a worker died while running {names} (out of memory?); finished cells are kept, run the same command again"
            raise ModelwardError(message) from error
        finally:
            _stop(pool)


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
