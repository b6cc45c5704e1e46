"""The engine: runs the cells that the store does not have yet, in dependency order, and survives being killed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from modelward.core.errors import ModelwardError
from modelward.evaluation import crew as crews
from modelward.evaluation.cell import Cell, Finished, Job
from modelward.evaluation.crew import Crew, CrewLost, Result, died, execute, explained
from modelward.evaluation.meter import Meter
from modelward.evaluation.place import Place, here
from modelward.evaluation.process_crew import ProcessCrew
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


class Engine:
    """Runs plans against a store; what is finished under one engine is finished for the other.

    Parameters
    ----------
    store
        where finished cells are looked up and kept. Only this process writes its rows.
    jobs
        workers; by default one a core, and on a cluster as many as it has cores for. With 1 the process engine runs cells in this very process:
        least memory, and a debugger sees them, but a method that crashes the interpreter ends the run. Finished cells are kept all the same,
        and with 2 jobs the crash is that cell's failure alone.
    place
        process or Ray, and where; by default what the doors said.
    """

    def __init__(self, store: Store, *, jobs: int | None = None, place: Place | None = None) -> None:
        self.store, self.asked, self.place = store, jobs, place or here()
        self.jobs = jobs or max(1, min(os.cpu_count() or 1, 16))

    def run(self, cells: Sequence[Cell], *, task: str = "cells") -> Run:
        """Finish ``cells`` and what they need. A failed cell fails those that need it; the others go on."""
        ordered = closure(cells)
        run = Run(self.store.find_many(cell.key for cell in ordered), store=str(self.store.folder))
        todo = [cell for cell in ordered if cell.key not in run.finished]
        meter = Meter(task, ordered, todo)
        if not todo:
            return run
        if self.place.engine == "ray":
            self._cluster(todo, run, meter)
        elif self.jobs == 1 or len(todo) == 1:
            for cell in todo:
                meter.show(cell.label)
                self._settle(cell, run, meter, lambda c=cell: execute(c.work, self._job(c, run)))  # type: ignore[misc]
        else:
            self._parallel(todo, run, meter)
        return run

    def _job(self, cell: Cell, run: Run) -> Job:
        """Return the plain-data job of ``cell``; its needs are finished."""
        inputs = {name: (run.finished[v.key].artifact or "") if isinstance(v, Cell) else v for name, v in cell.inputs.items()}
        return Job(dict(cell.settings), inputs, cell.seed, str(self.store.folder), cell.threads, cell.precision, cell.device)

    def _settle(self, cell: Cell, run: Run, meter: Meter, result: Result) -> None:
        """Record the result of ``cell``, or why there is none."""
        broken = [need.label for need in cell.needs if need.key in run.failed]
        try:
            if broken:
                run.failed[cell.key] = f"{broken[0]} failed before it"
            else:
                outcome, artifact, seconds = result()
                run.finished[cell.key] = self.store.finish(cell, outcome, artifact, seconds)
        except Exception as error:  # noqa: BLE001  # a fault in one method must not cost the other cells
            run.failed[cell.key] = explained(cell.work, error)
        meter.done(cell)

    def _settle_all(self, ended: list[tuple[Cell, Result]], run: Run, meter: Meter) -> None:
        """Record cells that ended together in one transaction; when one of them spoils it, each by itself."""
        with contextlib.suppress(Exception):
            if len(ended) > 1:
                done = self.store.finish_many([(cell, *result()) for cell, result in ended])
                for (cell, _), finished in zip(ended, done, strict=True):
                    run.finished[cell.key] = finished
                    meter.done(cell)
                return
        for cell, result in ended:
            self._settle(cell, run, meter, result)

    def _parallel(self, todo: list[Cell], run: Run, meter: Meter) -> None:
        """Finish ``todo`` in worker processes. When one dies, what was at work gets a second chance alone; what dies alone has failed."""
        waiting, deaths = todo, 0
        while waiting:
            lost = self._pooled(waiting, run, meter, min(self.jobs, len(waiting)))
            if lost is None:
                return
            for cell in lost:
                if len(lost) == 1 or self._pooled([cell], run, meter, 1) is not None:
                    self._settle(cell, run, meter, died)
            deaths += 1
            if deaths == crews.DEATHS:
                raise crews.give_up()
            waiting = [cell for cell in waiting if cell.key not in run.finished and cell.key not in run.failed]

    def _pooled(self, cells: list[Cell], run: Run, meter: Meter, workers: int) -> list[Cell] | None:
        """Finish ``cells`` with one pool of processes. Return what was at work when a worker died."""
        try:
            self._crewed(cells, run, meter, ProcessCrew(workers, max(cell.threads for cell in cells)))
        except CrewLost as lost:
            return lost.cells
        return None

    def _cluster(self, todo: list[Cell], run: Run, meter: Meter) -> None:
        """Finish ``todo`` with workers of a Ray cluster."""
        from modelward.evaluation.ray_cluster import joined
        from modelward.evaluation.ray_crew import RayCrew

        local = self.jobs if self.place.address is None else None
        with joined(self.place.address, local) as folder:
            self._crewed(todo, run, meter, RayCrew(self.store, todo, self.asked or local, self.place, folder))

    def _crewed(self, cells: list[Cell], run: Run, meter: Meter, crew: Crew) -> None:
        """Keep every worker of ``crew`` busy; a cell starts as soon as what it needs is finished. Closes the crew."""
        waiting = {cell.key: cell for cell in cells}
        try:
            while waiting or crew.busy:
                for key, cell in list(waiting.items()):
                    if not crew.free:
                        break
                    if any(need.key in run.failed for need in cell.needs):
                        self._settle(waiting.pop(key), run, meter, _never)
                    elif all(need.key in run.finished for need in cell.needs):
                        crew.start(cell, self._job(cell, run))
                        del waiting[key]
                self._settle_all(crew.finished(1.0), run, meter)
                meter.show()
        finally:
            crew.close()


def _never() -> crews.Done:
    """Stand in for the result of a cell that cannot run."""
    raise ModelwardError("not run")
