"""Progress on stderr: a bar with the time left on a terminal, a line now and then elsewhere. A display never stops the work."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self

from modelward.cli.output import clean, human_seconds
from modelward.core.progress import Progress, listening

EVERY_SECONDS = 10.0
NARROW = 72
Clock = Callable[[], float]


class Pace:
    """How fast one task goes: what was done before it was first seen does not count.

    Examples
    --------
    >>> now = [0.0]
    >>> pace = Pace(lambda: now[0])
    >>> pace.update(20, 100); now[0] = 10.0; pace.update(40, 100)
    >>> pace.percent, pace.left(), pace.words()
    (40, 30.0, 'about 30 s left, 10 s so far')
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._started = self._seen = clock()
        self._first: float | None = None
        self._done = self._total = 0.0

    def update(self, done: float, total: float) -> None:
        """Take in that ``done`` of ``total`` units are finished; only a change of ``done`` counts as news."""
        if self._first is None:
            self._first = done
        if done != self._done:
            self._seen = self._clock()
        self._done, self._total = done, total

    @property
    def percent(self) -> int:
        """What is finished, 0..100; 100 only when all of it is."""
        share = self._done / self._total if self._total > 0 else 0.0
        return int(100 * min(1.0, max(0.0, share)))

    @property
    def finished(self) -> bool:
        """True when all of the task is done."""
        return self._total > 0 and self._done >= self._total

    @property
    def elapsed(self) -> float:
        """Seconds since the task was first seen."""
        return self._clock() - self._started

    def left(self) -> float | None:
        """Return the seconds left at the pace so far, 0 when they are used up; ``None`` while there is no pace yet."""
        gained, spent = self._done - (self._first or 0.0), self._seen - self._started
        if not (gained > 0 and spent > 0):
            return None
        return max(0.0, (self._total - self._done) * spent / gained - (self._clock() - self._seen))

    def words(self) -> str:
        """Return time left and time spent in words."""
        left = self.left()
        if left is None:
            ahead = "time left not known yet"
        elif left == 0 and not self.finished:
            ahead = "longer than expected"
        else:
            ahead = f"about {_round(left)} left"
        return f"{ahead}, {_round(self.elapsed)} so far"


def _round(seconds: float) -> str:
    """Return whole seconds in words: tenths flicker."""
    return human_seconds(seconds) if seconds >= 9.95 else f"{max(0.0, seconds):.0f} s"


class Heartbeat:
    """A line at most every ten seconds, also while one long cell runs."""

    def __init__(self, write: Callable[[str], object], *, every: float = EVERY_SECONDS, clock: Clock = time.monotonic) -> None:
        self._write, self._every, self._clock = write, every, clock
        self._paces: dict[str, Pace] = {}
        self._current: tuple[str, str] | None = None
        self._last: float | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.thread = threading.Thread(target=self._keep_beating, daemon=True)

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        """Take the news in, and print it when the last line is old enough."""
        with contextlib.suppress(Exception), self._lock:
            self._paces.setdefault(task, Pace(self._clock)).update(done, total)
            self._current = (task, note)
            self._beat()

    def _beat(self) -> None:
        """Print the current task unless a line was printed less than ``every`` seconds ago."""
        now = self._clock()
        if self._current is None or (self._last is not None and now - self._last < self._every):
            return
        self._last = now
        task, note = self._current
        pace = self._paces[task]
        head = " ".join(part for part in (task, f"{pace.percent} %", note) if part)
        self._write(clean(f"{head}, {pace.words()}").replace("\n", " ") + "\n")

    def _keep_beating(self) -> None:
        """Look once a second, or more often where lines are due more often."""
        while not self._stop.wait(min(1.0, self._every)):
            with contextlib.suppress(Exception), self._lock:
                self._beat()

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()


class Bar:
    """One rich bar a task; a finished task gives its line free."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, ProgressColumn, TextColumn
        from rich.progress import Progress as Bars
        from rich.table import Column
        from rich.text import Text

        class Times(ProgressColumn):
            """Time left and time spent, also between two pieces of news."""

            def render(self, task: Any) -> Text:
                """Return the words of the task's pace."""
                return Text(task.fields["pace"].words(), no_wrap=True)

        screen = Console(stderr=True, markup=False, emoji=False, highlight=False)
        columns: list[Any] = [
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.percentage:>3.0f} %", markup=False),
            Times(),
        ]
        if screen.width >= NARROW:
            columns.insert(1, BarColumn(bar_width=max(10, min(30, screen.width // 5))))
            note = Column(no_wrap=True, overflow="ellipsis", ratio=1)
            columns.append(TextColumn("{task.fields[note]}", markup=False, style="dim", table_column=note))
        self._bars = Bars(*columns, console=screen, transient=True, expand=screen.width >= NARROW)
        self._tasks: dict[str, tuple[Any, Pace]] = {}

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        """Move the task's bar."""
        with contextlib.suppress(Exception):
            if task not in self._tasks:
                pace = Pace()
                self._tasks[task] = (self._bars.add_task(clean(task), total=100, pace=pace, note=""), pace)
            known, pace = self._tasks[task]
            pace.update(done, total)
            self._bars.update(known, completed=pace.percent, note=clean(note).replace("\n", " "))
            if pace.finished:
                self._bars.remove_task(known)
                del self._tasks[task]

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self._bars.stop()


def _write_line(line: str) -> None:
    """Write a heartbeat to stderr at once."""
    sys.stderr.write(line)
    sys.stderr.flush()


@contextlib.contextmanager
def progress_shown(*, quiet: bool = False) -> Iterator[Progress | None]:
    """Show progress made inside the block on stderr; not at all when ``quiet``."""
    if quiet:
        yield None
        return
    on_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    with Bar() if on_terminal else Heartbeat(_write_line) as display, listening(display):
        yield display
