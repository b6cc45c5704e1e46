"""A crew: workers that compute cells. What a worker does with one, and what the engine may ask of a crew."""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from modelward.core.errors import ModelwardError
from modelward.evaluation.cell import Cell, Job, Outcome
from modelward.evaluation.store import Store

Done = tuple[Outcome, str | None, float]
Result = Callable[[], Done]

DEATHS = 5  # so many dead workers are no accident of one cell


class CrewLost(Exception):  # noqa: N818  # no error of the user's: the engine starts another crew
    """A worker died and took its crew along; ``cells`` were at work."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        super().__init__()
        self.cells = list(cells)


class Crew(Protocol):
    """Workers that compute one cell each at a time."""

    @property
    def busy(self) -> int:
        """How many cells are being computed."""

    @property
    def free(self) -> int:
        """How many more can be started now."""

    def start(self, cell: Cell, job: Job) -> None:
        """Begin a cell on a free worker; raises `CrewLost`."""

    def finished(self, timeout: float) -> list[tuple[Cell, Result]]:
        """Return the cells that ended, waiting up to ``timeout`` seconds for the first; raises `CrewLost`."""

    def close(self) -> None:
        """End all workers at once."""


def execute(work: str, job: Job) -> Done:
    """Run one work function and write its arrays; return (outcome without arrays, artefact digest, seconds)."""
    started = time.perf_counter()
    module, _, name = work.partition(":")
    function: Callable[[Job], Outcome] = getattr(importlib.import_module(module), name)
    if job.device == "cpu":  # toys and measurements of files need no torch
        outcome = function(job)
    else:
        from modelward.core.devices import computing

        with computing(job.device):
            outcome = function(job)
    digest = Store(job.store).put(outcome.arrays, outcome.facts) if outcome.arrays else None
    return Outcome(outcome.rows), digest, time.perf_counter() - started


def die_with(parent: int) -> None:
    """End this process at once when the process ``parent``, which started it, is no more: nobody waits for its results."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def explained(work: str, error: Exception) -> str:
    """Return in words why a cell failed."""
    return str(error) if isinstance(error, ModelwardError) else f"{work} raised {type(error).__name__}: {error}"


def died() -> Done:
    """Stand in for the result of a cell whose process died."""
    raise ModelwardError("the process that ran it died (out of memory?)")


def give_up() -> ModelwardError:
    """Return what is said when workers die again and again."""
    return ModelwardError("worker processes die again and again (out of memory?); finished cells are kept, run it again with fewer jobs")
