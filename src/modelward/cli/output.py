"""What goes to the screen: results on stdout, everything else on stderr, text from files without terminal codes."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from modelward.core.canonical import plain

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 120
MARKS = {"ok": "✓", "passed": "✓", "warn": "!", "flagged": "!", "fail": "✗", "failed": "✗", "info": "·", "not tested": "○"}
STYLES = {"ok": "green", "passed": "green", "warn": "yellow", "flagged": "yellow", "fail": "bold red", "failed": "bold red"}


def clean(text: object) -> str:
    r"""Return ``text`` with control and direction characters spelt out: a file's words must not drive the terminal.

    >>> clean("a\x1b[2Jb\n")
    'a\\x1b[2Jb\n'
    """
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in str(text))


def human_seconds(seconds: float) -> str:
    """Return a duration in words, two units at most.

    >>> human_seconds(0.31), human_seconds(80), human_seconds(7_500), human_seconds(200_000)
    ('0.3 s', '1 min 20 s', '2 h 5 min', '2 d 7 h')
    """
    if not math.isfinite(seconds) or seconds < 0:
        return "unknown"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    left = round(seconds)
    for size, name, smaller, small in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if left >= size:
            rest = left % size // smaller
            return f"{left // size} {name} {rest} {small}" if rest else f"{left // size} {name}"
    return f"{left} s"


def human_bytes(count: float) -> str:
    """Return a size in binary units.

    >>> human_bytes(512), human_bytes(1_500_000)
    ('512 B', '1.4 MiB')
    """
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def console(*, stderr: bool = False) -> Console:
    """Return a console that takes text literally: no markup, no emoji, no guessed highlights."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else PIPE_WIDTH
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, width=width)


def say(text: str = "", *, style: str | None = None, stderr: bool = False, wrap: bool = True) -> None:
    """Print one paragraph; ``wrap=False`` keeps a path or a command in one piece."""
    console(stderr=stderr).print(clean(text), style=style, soft_wrap=not wrap)


def note(text: str, *, quiet: bool = False) -> None:
    """Print a remark to stderr, unless ``quiet``."""
    if not quiet:
        say(text, style="dim", stderr=True)


def warn(text: str) -> None:
    """Print a warning to stderr."""
    from rich.text import Text

    console(stderr=True).print(Text.assemble(("warning: ", "bold yellow"), clean(text)), soft_wrap=True)


def status(word: str) -> Any:
    """Return a status as its sign and its word: colour never stands alone."""
    from rich.text import Text

    word = clean(word)
    return Text(f"{MARKS.get(word, '·')} {word}", style=STYLES.get(word, ""), no_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = (), keep: Sequence[str] = ()) -> None:
    """Print rows under ``columns``; long cells fold instead of being cut. ``right`` are aligned right, ``keep`` are never folded."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=name in {*right, *keep})
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(clean(cell)) for cell in row))
    console().print(made)


def facts(pairs: Iterable[tuple[str, object]], *, indent: int = 2) -> None:
    """Print names and values in two columns."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True, style="dim")
    made.add_column(overflow="fold")
    for name, value in pairs:
        made.add_row(clean(name), value if isinstance(value, Text) else Text(clean(value)))
    console().print(Padding(made, (0, 0, 0, indent), expand=False))


def emit(schema: str, content: dict[str, Any], *, version: int = 1) -> None:
    """Write the one JSON object of ``--json``: ``schema`` and ``version`` first, then ``content`` (which may bring its own)."""
    document = {"schema": f"modelward/{schema}", "version": version} | plain(content)
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=ascii_only, allow_nan=False) + "\n")
