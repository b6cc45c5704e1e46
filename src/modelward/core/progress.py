"""Where long work says how far it is. The doors put a display here; by default nobody listens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Protocol


class Progress(Protocol):
    """A listener: called often, must be cheap and must never raise."""

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        """Report that ``done`` of ``total`` units of ``task`` are finished."""


class Silent:
    """The default listener."""

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        """Do nothing."""


_SILENT = Silent()
_listener: ContextVar[Progress] = ContextVar("modelward_progress", default=_SILENT)


def advance(task: str, done: float, total: float, note: str = "") -> None:
    """Tell the current listener how far ``task`` is."""
    _listener.get().advance(task, done, total, note)


@contextlib.contextmanager
def listening(listener: Progress) -> Iterator[None]:
    """Send progress made inside the block to ``listener``."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)
