"""From a report document to one HTML file; the document itself is written beside it."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from modelward.core.canonical import canonical_json
from modelward.core.errors import StoreError
from modelward.io.atomic import write_bytes
from modelward.report.figures import draw, legend
from modelward.report.words import interval, number, seconds, told

CAP = 5_000_000
STATUS = {"passed": "✔", "failed": "✘", "flagged": "⚑", "info": "ℹ", "not tested": "○"}  # noqa: RUF001  # signs, not letters
GALLERY = 24


@functools.cache
def environment() -> Environment:
    """Return the template environment: everything is escaped, nothing undefined goes unnoticed."""
    made = Environment(
        loader=PackageLoader("modelward.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"seconds": seconds, "interval": interval, "told": told}
    made.globals |= {"number": number, "draw": draw, "legend": legend, "sign": STATUS, "groups": row_groups}
    return made


def render(document: Mapping[str, Any]) -> str:
    """Return the report as one HTML page of at most 5 MB that loads nothing.

    Parameters
    ----------
    document
        schema ``modelward/report``, version 1.

    Galleries are dropped first when the page would be larger, and the page says so.
    """
    page = _page(document, GALLERY)
    if len(page.encode()) > CAP:
        page = _page(document, 0)
    return page


def _page(document: Mapping[str, Any], gallery: int) -> str:
    sections = document["sections"]
    overview = {
        "tested": sum(len(s["rows"]) + len(s["checks"]) for s in sections),
        "passed": sum(c["status"] == "passed" for s in sections for c in s["checks"]),
        "failed": sum(c["status"] == "failed" for s in sections for c in s["checks"]),
        "flagged": sum(c["status"] == "flagged" for s in sections for c in s["checks"]) + sum(len(s["flags"]) for s in sections),
        "not tested": sum(len(s["not_tested"]) for s in sections) + sum(c["status"] == "not tested" for s in sections for c in s["checks"]),
    }
    return environment().get_template("page.html.j2").render(d=document, overview=overview, gallery=gallery)


def row_groups(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Return rows by metric, in order of appearance; the metric in words."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(str(row["metric"]).replace("_", " "), []).append(row)
    return list(found.items())


def ready(folder: Path) -> Path:
    """Make ``folder`` and return it; raises `StoreError` when no report could be written there, before any work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{folder} cannot be made: {error.strerror}; choose another folder with --out"
        raise StoreError(message) from error
    if not os.access(folder, os.W_OK):
        message = f"{folder} cannot be written; choose another folder with --out"
        raise StoreError(message)
    return folder


@contextlib.contextmanager
def prepared(folder: Path | None) -> Iterator[Path | None]:
    """Make ``folder`` before any work is done, as `ready` does; when the work fails, take away what was made and is still empty.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with contextlib.suppress(StoreError), prepared(Path(place, "a", "b")) as folder:
    ...         raise StoreError("no")
    ...     Path(place, "a").exists()
    False
    """
    if folder is None:
        yield None
        return
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    ready(folder)
    try:
        yield folder
    except BaseException:
        for place in new:  # the innermost first; what holds anything stays, and what holds it
            with contextlib.suppress(OSError):
                place.rmdir()
        raise


def write(document: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.json`` into ``folder`` and return their paths.

    Raises
    ------
    StoreError
        when the folder cannot be written.
    """
    page, data = render(document).encode(), canonical_json(document)
    ready(folder)
    html, json = folder / "report.html", folder / "report.json"
    write_bytes(json, data)
    write_bytes(html, page)
    return html, json
