"""Worker processes of this machine, which write their arrays into the store themselves."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from modelward.core import consent
from modelward.evaluation.cell import Cell, Job
from modelward.evaluation.crew import CrewLost, Result, die_with, execute


def _start_worker(parent: int, threads: int, named: tuple[str, ...]) -> None:
    """Prepare a worker: leave Ctrl-C to the parent, die with it, use the planned number of threads, know which functions the user named."""
    consent.give(named)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    die_with(parent)


class ProcessCrew:
    """A pool of spawned processes. When one dies, the pool is lost and says which cells were at work.

    Parameters
    ----------
    workers
        how many.
    threads
        of each.
    """

    def __init__(self, workers: int, threads: int) -> None:
        self.workers, self.running = workers, dict[Future[Any], Cell]()
        self.pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(os.getpid(), threads, consent.given()),
        )

    @property
    def busy(self) -> int:
        """How many cells are being computed."""
        return len(self.running)

    @property
    def free(self) -> int:
        """How many more can be started; nothing is queued, so that a death has few suspects."""
        return self.workers - len(self.running)

    def start(self, cell: Cell, job: Job) -> None:
        """Begin a cell on a free worker."""
        try:
            with _without_script():
                self.running[self.pool.submit(execute, cell.work, job)] = cell
        except BrokenProcessPool:  # a worker died between two cells
            raise CrewLost([*self.running.values()]) from None

    def finished(self, timeout: float) -> list[tuple[Cell, Result]]:
        """Return the cells that ended; with a dead worker those that ended before are returned first."""
        done, _ = wait(self.running, timeout=timeout, return_when=FIRST_COMPLETED)
        broken = {future for future in done if isinstance(future.exception(), BrokenProcessPool)}
        if broken and done == broken:
            raise CrewLost([*self.running.values()])
        return [(self.running.pop(future), future.result) for future in done - broken]

    def close(self) -> None:
        """End the pool at once: finished cells are in the store, unfinished ones are worthless."""
        workers: Mapping[int, Any] = getattr(self.pool, "_processes", None) or {}
        processes = list(workers.values())
        self.pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(timeout=5)


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
