"""Answer tables from people who can only call a remote service, and CSV files that no spreadsheet executes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modelward.core.errors import FormatError
from modelward.io.atomic import write_text
from modelward.io.files import read_bytes, require_text

CAP = 256 * 2**20
CLASS_CAP = 100_000
SUM_TOLERANCE = 0.02


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers in the order that was asked for.

    Parameters
    ----------
    labels
        int64 (n,), or ``None``.
    probabilities
        float32 (n, K), or ``None``.
    decimals
        digits after the point, where every probability is rounded to at most five of them.
    """

    labels: NDArray[np.int64] | None = None
    probabilities: NDArray[np.float32] | None = None
    decimals: int | None = None


def read_answers_csv(path: Path | str, expected: Sequence[str]) -> Answers:
    r"""Read ``file,label`` or ``file,p0,...,pK-1``, one line for each of ``expected``, in any order.

    Raises
    ------
    FormatError
        naming the row: a missing, extra or repeated file; a label that is no whole number; probabilities that are not in [0, 1] or do not sum
        to 1. Top-k answers with zeros elsewhere may sum to less; answers rounded to d decimals may miss 1 by K / 2 * 10**-d.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "answers.csv"
    >>> _ = path.write_text("file,label\nb.png,3\na.png,1\n")
    >>> read_answers_csv(path, ["a.png", "b.png"]).labels.tolist()
    [1, 3]
    """
    name = Path(path).name
    text = require_text(read_bytes(path, cap=CAP), name)
    width = text.partition("\n")[0].count(",") + 1
    if width > CLASS_CAP or text.count(",") > 2 * width * (len(expected) + 2):
        message = f"{name} has {text.count(',') + 1:,} cells, far more than {len(expected)} answers need"
        raise FormatError(message)
    try:
        reader = csv.reader(io.StringIO(text), strict=True)
        numbered = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        message = f"{name} is no CSV table: {error}"
        raise FormatError(message) from error
    if not numbered or numbered[0][1][0].strip() != "file":
        message = f"{name}: the first line must be 'file,label' or 'file,p0,p1,...'"
        raise FormatError(message)
    header = [cell.strip() for cell in numbered[0][1]]
    soft = header[1:] == [f"p{k}" for k in range(len(header) - 1)] and len(header) > 2
    if not (soft or header == ["file", "label"]):
        message = f"{name}: the first line must be 'file,label' or 'file,p0,p1,...', it is {','.join(header)[:60]!r}"
        raise FormatError(message)
    found = _by_file(numbered[1:], len(header), name)
    _require_files(found, expected, name)
    ordered = [(file, found[file]) for file in expected]
    if not soft:
        return Answers(labels=np.array([_label(file, cells[0], name) for file, cells in ordered], dtype=np.int64))
    decimals = _decimals(cell for _, cells in ordered for cell in cells)
    slack = max(SUM_TOLERANCE, 0.0 if decimals is None else 0.5 * 10**-decimals * (len(header) - 1))
    table = np.array([_probabilities(file, cells, name, slack) for file, cells in ordered], dtype=np.float64)
    return Answers(probabilities=table.astype(np.float32), decimals=decimals)


def _by_file(numbered: list[tuple[int, list[str]]], width: int, name: str) -> dict[str, list[str]]:
    """Return the cells by file name."""
    found: dict[str, list[str]] = {}
    for number, row in numbered:
        if len(row) != width:
            message = f"{name}, line {number}: {len(row)} cells where the first line has {width}"
            raise FormatError(message)
        file = row[0].strip()
        if file in found:
            message = f"{name}, line {number}: {file!r} was answered twice"
            raise FormatError(message)
        found[file] = row[1:]
    return found


def _require_files(found: dict[str, list[str]], expected: Sequence[str], name: str) -> None:
    """Refuse missing and extra rows."""
    missing = [file for file in expected if file not in found]
    extra = sorted(set(found) - set(expected))
    if missing:
        message = (
            f"{name}: no answer for {missing[0]!r}{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}; {len(expected)} are needed"
        )
        raise FormatError(message)
    if extra:
        message = f"{name}: {extra[0]!r} is not one of the {len(expected)} probes"
        raise FormatError(message)


def _label(file: str, cell: str, name: str) -> int:
    """Return a whole-number label."""
    text = cell.strip()
    if not text.isdigit() or not text.isascii() or len(text) > 6:
        message = f"{name}: the label of {file!r} is {cell[:20]!r}, not a class number from 0"
        raise FormatError(message)
    return int(text)


def _probabilities(file: str, cells: list[str], name: str, slack: float) -> list[float]:
    """Return one row of probabilities; ``slack`` is what rounding may add to, or take from, a sum of 1."""
    try:
        values = [float(cell) if cell.strip() else 0.0 for cell in cells]
    except ValueError as error:
        message = f"{name}: an answer for {file!r} is no number"
        raise FormatError(message) from error
    total = math.fsum(values) if all(math.isfinite(value) for value in values) else math.nan
    if not all(0 <= value <= 1 + 1e-6 for value in values) or not 0 < total <= 1 + slack:
        message = f"{name}: the answer for {file!r} is no probability distribution (sum {total:.4g})"
        raise FormatError(message)
    if total < 1 - slack and all(values):
        message = f"{name}: the probabilities for {file!r} sum to {total:.4g}, not 1"
        raise FormatError(message)
    return values


def _decimals(cells: Iterable[str]) -> int | None:
    """Return the number of decimals when all cells are rounded to at most five."""
    most = 0
    for cell in cells:
        text = cell.strip().lower()
        if "e" in text:
            return None
        most = max(most, len(text.partition(".")[2]))
        if most > 5:
            return None
    return most


def write_csv(path: Path | str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV table in one step; text that a spreadsheet would take for a formula gets a leading apostrophe."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([f"'{cell}" if isinstance(cell, str) and cell[:1] in {"=", "+", "-", "@", "\t", "\r"} else cell for cell in row])
    write_text(path, stream.getvalue())
