"""Answers of a suspect in the order of the probes, whatever shape they came in: labels, probabilities, rounded ones, the best few."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelward.core.errors import FormatError

SUM_TOLERANCE = 0.02
F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers in the order that was asked for.

    Parameters
    ----------
    labels
        int64 (n,), or ``None``.
    probabilities
        float32 (n, K), or ``None``; logits where a suspect answers with those.
    decimals
        digits after the point, where every probability is rounded to at most five of them.
    top
        how many classes were answered at most, where the rest was filled in.
    """

    labels: NDArray[np.int64] | None = None
    probabilities: NDArray[np.float32] | None = None
    decimals: int | None = None
    top: int | None = None

    @property
    def table(self) -> NDArray[np.int64] | NDArray[np.float32]:
        """Labels (n,), or probabilities (n, K) with what rounding did to their sums made up for."""
        if self.labels is not None:
            return self.labels
        if self.probabilities is None:
            raise FormatError("no answers were given")
        sums = self.probabilities.sum(1, keepdims=True)
        off = (np.abs(sums - 1) > SUM_TOLERANCE) & (self.decimals is not None)
        return np.where(off, self.probabilities / np.where(off, sums, 1), self.probabilities)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a verdict has to say of such answers.

        >>> Answers(probabilities=np.ones((1, 2), dtype=np.float32) / 2, decimals=1).notes
        ('The answers were rounded to 1 decimal: what lies below that is lost, and a thief shows less of what he took.',)
        """
        said = []
        table = self.table
        if len(table) > 1 and bool((table == table[:1]).all()):
            said.append("Every image got the same answer: this is no classifier, or it does not look at its images.")
        if self.decimals is not None:
            places = f"{self.decimals} decimal{'' if self.decimals == 1 else 's'}"
            said.append(f"The answers were rounded to {places}: what lies below that is lost, and a thief shows less of what he took.")
        if self.top is not None:
            said.append(
                f"At most {self.top} classes an image were answered with their probabilities; what was left of 1 was spread evenly over the "
                "others, which the null models behind the threshold did not need."
            )
        return tuple(said)


def settle(table: F64, decimals: int | None = None, *, known: NDArray[np.bool_] | None = None) -> Answers:
    """Return probabilities (n, K): what the best few classes leave of 1 is spread evenly over the others.

    On Fashion-MNIST (28 independent models, 12 thieves, sac-jc) that ranks every thief before every independent model from the best class
    alone (AUC 1.000 for 1, 2, 3 and 5 classes), where the labels reach .994; independent models move by .011 at most.

    Parameters
    ----------
    known
        which entries were answered; ``None`` takes zeros in rows that sum to less than 1, beyond rounding, for classes that were not.

    Examples
    --------
    >>> settle(np.array([[0.7, 0.1, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])).probabilities.round(3).tolist()
    [[0.699999988079071, 0.10000000149011612, 0.10000000149011612, 0.10000000149011612], [1.0, 0.0, 0.0, 0.0]]
    """
    sums = table.sum(1, keepdims=True)
    short = sums < 1 - slack(table.shape[1], decimals)
    unknown = (table == 0) & short if known is None else ~known
    if unknown.any():
        missing = np.maximum(1 - sums, 0) / np.maximum(unknown.sum(1, keepdims=True), 1)
        table = np.where(unknown, missing, table)
        top = int((~unknown[unknown.any(1)]).sum(1).max())
    else:
        top = None
    return Answers(probabilities=table.astype(np.float32), decimals=decimals, top=top)


def described(table: NDArray[np.float32]) -> Answers:
    """Return the answers (n, K) of a live suspect with what can be seen of them: rounding, and rows of the best few; logits stay as they are.

    >>> described(np.array([[0.25, 0.75]], dtype=np.float32)).decimals, described(np.array([[-3, 9]], dtype=np.float32)).decimals
    (2, None)
    """
    if not table.size or table.min() < 0 or table.max() > 1:
        return Answers(probabilities=table)
    return settle(table.astype(np.float64), decimals_of(str(cell) for cell in table.flat))


def slack(classes: int, decimals: int | None) -> float:
    """Return what rounding to ``decimals`` may add to, or take from, the sum of a row of ``classes`` probabilities."""
    return max(SUM_TOLERANCE, 0.0 if decimals is None else 0.5 * 10**-decimals * classes)


def decimals_of(cells: Iterable[str]) -> int | None:
    """Return the number of decimals when all cells are rounded to at most five.

    >>> decimals_of(["0.25", "1"]), decimals_of(["0.123456"])
    (2, None)
    """
    most = 0
    for cell in cells:
        text = cell.strip().lower()
        if "e" in text:
            return None
        most = max(most, len(text.partition(".")[2]))
        if most > 5:
            return None
    return most


def of_rows(rows: Any, count: int, classes: Sequence[str], name: str) -> Answers:
    """Return answers from JSON: a list with a class number, a class name, or a list of K numbers for each image.

    Raises
    ------
    FormatError
        when there are more or fewer than ``count``, when they are mixed, of another number of classes, or no numbers.

    Examples
    --------
    >>> of_rows([1, 0], 2, ("cat", "dog"), "the service").labels.tolist()
    [1, 0]
    >>> of_rows([[0.9, 0.1], [2, -1]], 2, ("cat", "dog"), "the service").probabilities.shape
    (2, 2)
    """
    if not isinstance(rows, list) or len(rows) != count:
        got = f"{len(rows)} answers" if isinstance(rows, list) else "no list of answers"
        message = f"{name} gave {got} for {count} images"
        raise FormatError(message)
    if all(isinstance(row, int | str) and not isinstance(row, bool) for row in rows):
        return Answers(labels=np.array([_class(row, classes, name) for row in rows], dtype=np.int64))
    widths = {len(row) if isinstance(row, list) else 0 for row in rows}
    if widths != {len(classes)}:
        got = " or ".join(str(width) for width in sorted(widths)[:3])
        message = f"{name} answered with {got if 0 not in widths else 'no list of'} numbers for an image, the key's model has {len(classes)} classes"
        raise FormatError(message)
    return Answers(probabilities=np.array([[_number(cell, name) for cell in row] for row in rows], dtype=np.float64).astype(np.float32))


def _class(row: int | str, classes: Sequence[str], name: str) -> int:
    """Return a class number from a number or a name."""
    if isinstance(row, str):
        if row not in classes:
            message = f"{name} answered with a class name that is none of the {len(classes)} of the key"
            raise FormatError(message)
        return classes.index(row)
    if not 0 <= row < len(classes):
        shown = row if abs(row) < 10**9 else "beyond all bounds"  # a number from JSON may be longer than a float can be
        message = f"{name} answered with class {shown}, the key's model has classes 0 to {len(classes) - 1}"
        raise FormatError(message)
    return row


def _number(cell: Any, name: str) -> float:
    """Return a finite number that a 32-bit float can hold."""
    if isinstance(cell, int | float) and not isinstance(cell, bool) and abs(cell) < 1e30 and math.isfinite(cell):
        return float(cell)
    message = f"{name} answered with {'NaN, infinite or huge' if isinstance(cell, int | float) else 'entries that are no'} numbers"
    raise FormatError(message)
