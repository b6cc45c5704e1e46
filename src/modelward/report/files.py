"""The files of a report: a page, a table and a document beside each other."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from modelward.io.atomic import write_bytes
from modelward.report.page import ready


def csv_text(lines: Iterable[Iterable[object]]) -> str:
    r"""Return lines as CSV.

    Examples
    --------
    >>> csv_text([["lock", "said"], ["a", "yes, really"]])
    'lock,said\na,"yes, really"\n'
    """
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def write_files(folder: Path, stem: str, contents: Mapping[str, str | bytes]) -> list[Path]:
    """Write ``STEM.ENDING`` for each of ``contents`` (ending -> text) into ``folder`` and return the paths.

    Raises
    ------
    StoreError
        when the folder cannot be written.
    """
    ready(folder)
    paths = []
    for ending, text in contents.items():
        paths.append(folder / f"{stem}.{ending}")
        write_bytes(paths[-1], text.encode() if isinstance(text, str) else text)
    return paths
