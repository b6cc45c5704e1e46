"""Answer tables from people who can only call a remote service, and CSV files that no spreadsheet executes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from modelward.core.errors import FormatError
from modelward.io.answers import Answers, decimals_of, settle, slack
from modelward.io.atomic import write_text
from modelward.io.files import read_bytes, require_text

CAP = 256 * 2**20
CLASS_CAP = 100_000


def read_answers_csv(path: Path | str, expected: Sequence[str], classes: int | None = None) -> Answers:
    r"""Read ``file,label``, ``file,p0,...,pK-1`` or ``file,label1,p1,label2,p2,...``, one line for each of ``expected``, in any order.

    Answers rounded to d decimals may miss 1 by K / 2 * 10**-d. Where only the best classes were answered, with zeros or empty cells
    elsewhere, what is left of 1 is spread evenly over the others.

    Parameters
    ----------
    classes
        K, where it is known: ``label1,p1,...`` is filled up to it.

    Raises
    ------
    FormatError
        naming the row: a missing, extra or repeated file; a label that is no class number; probabilities that are not in [0, 1] or sum to
        more than 1, or to less although every class was answered.

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
        message = f"{name}: the first line must be 'file,label', 'file,p0,p1,...' or 'file,label1,p1,label2,p2,...'"
        raise FormatError(message)
    header = [cell.strip() for cell in numbered[0][1]]
    best = len(header) // 2
    wanted = {
        "label": ["label"], "all": [f"p{k}" for k in range(len(header) - 1)],
        "best": [cell for k in range(1, best + 1) for cell in (f"label{k}", f"p{k}")],
    }  # fmt: skip
    form = next((form for form, columns in wanted.items() if header[1:] == columns and (form != "all" or len(header) > 2)), None)
    if form is None:
        message = f"{name}: the first line must be 'file,label', 'file,p0,p1,...' or 'file,label1,p1,label2,p2,...', it is {','.join(header)[:60]!r}"
        raise FormatError(message)
    found = _by_file(numbered[1:], len(header), name)
    _require_files(found, expected, name)
    ordered = [(file, found[file]) for file in expected]
    if form == "label":
        return Answers(labels=np.array([_label(file, cells[0], name, classes) for file, cells in ordered], dtype=np.int64))
    if form == "best":
        return _best(ordered, classes, name)
    decimals = decimals_of(cell for _, cells in ordered for cell in cells)
    spare = slack(len(header) - 1, decimals)
    return settle(np.array([_probabilities(file, cells, name, spare) for file, cells in ordered], dtype=np.float64), decimals)


def _best(ordered: Sequence[tuple[str, list[str]]], classes: int | None, name: str) -> Answers:
    """Return probabilities from the best classes of each image, each with its probability; empty cells at the end say nothing."""
    decimals = decimals_of(cell for _, cells in ordered for cell in cells[1::2])
    chosen: list[list[int]] = []
    values: list[list[float]] = []
    for file, cells in ordered:
        pairs = [(label, p) for label, p in zip(cells[::2], cells[1::2], strict=True) if label.strip() or p.strip()]
        labels = [_label(file, label, name, classes) for label, _ in pairs]
        if len(set(labels)) != len(labels) or not labels:
            message = f"{name}: the answer for {file!r} {'names a class twice' if labels else 'is empty'}"
            raise FormatError(message)
        chosen.append(labels)
        values.append(_probabilities(file, [p for _, p in pairs], name, slack(len(labels), decimals), whole=False))
    width = classes or 1 + max(max(labels) for labels in chosen)
    table, known = np.zeros((len(chosen), width)), np.zeros((len(chosen), width), dtype=np.bool_)
    for row, (labels, answered) in enumerate(zip(chosen, values, strict=True)):
        table[row, labels], known[row, labels] = answered, True
    return settle(table, decimals, known=known)


def _by_file(numbered: list[tuple[int, list[str]]], width: int, name: str) -> dict[str, list[str]]:
    """Return the cells by file name."""
    found: dict[str, list[str]] = {}
    for number, row in numbered:
        if len(row) != width:
            message = f"{name}, line {number}: {len(row)} cells where the first line has {width}"
            raise FormatError(message)
        file = row[0].strip()
        if file in found:
            message = f"{name}, line {number}: {file!r:.80} was answered twice"
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
        message = f"{name}: {extra[0]!r:.80} is not one of the {len(expected)} probes"
        raise FormatError(message)


def _label(file: str, cell: str, name: str, classes: int | None = None) -> int:
    """Return a class number, below ``classes`` where that is known."""
    text = cell.strip()
    if not text.isdigit() or not text.isascii() or len(text) > 6:
        message = f"{name}: the label of {file!r} is {cell[:20]!r}, not a class number from 0"
        raise FormatError(message)
    if classes is not None and int(text) >= classes:
        hint = "; do they count from 1?" if int(text) == classes else ""
        message = f"{name}: the label of {file!r} is {int(text)}, the key's model has classes 0 to {classes - 1}{hint}"
        raise FormatError(message)
    return int(text)


def _probabilities(file: str, cells: list[str], name: str, spare: float, *, whole: bool = True) -> list[float]:
    """Return one row of probabilities, of all classes when ``whole``; ``spare`` is what rounding may add to, or take from, a sum of 1."""
    try:
        values = [float(cell) if cell.strip() else 0.0 for cell in cells]
    except ValueError as error:
        message = f"{name}: an answer for {file!r} is no number"
        raise FormatError(message) from error
    total = math.fsum(values) if all(math.isfinite(value) for value in values) else math.nan
    if not all(0 <= value <= 1 + 1e-6 for value in values) or not 0 < total <= 1 + spare:
        message = f"{name}: the answer for {file!r} is no probability distribution (sum {total:.4g})"
        raise FormatError(message)
    if whole and total < 1 - spare and all(values):
        message = f"{name}: the probabilities for {file!r} sum to {total:.4g}, not 1"
        raise FormatError(message)
    return values


def write_csv(path: Path | str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV table in one step; text that a spreadsheet would take for a formula gets a leading apostrophe."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([f"'{cell}" if isinstance(cell, str) and cell[:1] in {"=", "+", "-", "@", "\t", "\r"} else cell for cell in row])
    write_text(path, stream.getvalue())
