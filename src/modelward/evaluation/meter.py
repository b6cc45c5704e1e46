"""How far a plan is: progress in estimated seconds."""

from __future__ import annotations

from modelward.core import progress
from modelward.evaluation.cell import Cell


class Meter:
    """Tells the listener how much of a plan is finished; cached cells count as finished from the start.

    Parameters
    ----------
    task
        what progress calls the plan.
    ordered, todo
        all its cells, and those that are not finished yet.
    """

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
