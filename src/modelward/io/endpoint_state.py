"""What a service has answered so far, written in one step after every batch, with a digest that is checked when it is read again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelward.core.canonical import digest_bytes
from modelward.core.errors import FormatError, UnsafeFileError, UsageError
from modelward.io.answers import Answers
from modelward.io.atomic import write_bytes
from modelward.io.files import read_bytes
from modelward.io.safetensors import dump_arrays, parse_arrays

CAP = 2**30
SCHEMA = "modelward/asked"
TOLERANCE = 1e-3
_COUNT = re.compile("[0-9]{1,15}")


@dataclass(eq=False)
class State:
    """Answers for ``count`` images, in their order.

    Parameters
    ----------
    about
        digest of the images and the address; answers to other questions are never mixed in.
    done
        bool (count,): which images were answered.
    table
        float32 (count, K) or int64 (count,), once there is an answer.
    again
        indices of images that were asked twice, and their second answers.
    sent
        images in all requests, failed ones too.
    """

    path: Path | None
    about: str
    count: int
    done: NDArray[np.bool_]
    table: NDArray[Any] | None = None
    again: tuple[NDArray[np.int64], NDArray[Any]] | None = None
    sent: int = 0

    @classmethod
    def load(cls, path: Path | None, pixels: NDArray[np.uint8], about: str) -> State:
        """Return the state in ``path``, or an empty one where there is no such file.

        Raises
        ------
        UsageError
            when the answers are to other questions, or of another service.
        FormatError, UnsafeFileError
            when the file is damaged or altered.
        """
        digest = digest_bytes(f"{about} {pixels.shape} {digest_bytes(np.ascontiguousarray(pixels).tobytes())}".encode())
        state = cls(path, digest, len(pixels), np.zeros(len(pixels), dtype=np.bool_))
        if path is None or not path.exists():
            return state
        data = read_bytes(path, cap=CAP)
        arrays, facts = parse_arrays(data, path.name)
        if facts.get("schema") != SCHEMA or facts.get("version") != "1" or not _COUNT.fullmatch(facts.get("sent", "")):
            message = f"{path.name} holds no answers of a service; pass another --resume"
            raise FormatError(message)
        if facts.get("digest") != _digest(arrays, facts) or data != dump_arrays(arrays, facts):  # no byte may differ, not even a blank
            message = f"{path.name} was altered or is damaged: its digest differs; delete it to ask again"
            raise UnsafeFileError(message)
        if facts.get("about") != digest:
            message = f"{path.name} holds answers of another service, or to other images; pass another --resume"
            raise UsageError(message)
        if "done" not in arrays or ("again" in arrays) != ("second" in arrays):
            message = f"{path.name} is incomplete; delete it to ask again"
            raise FormatError(message)
        state.done, state.table, state.sent = arrays["done"].astype(np.bool_), arrays.get("answers"), int(facts["sent"])
        if "again" in arrays:
            state.again = arrays["again"].astype(np.int64), arrays["second"]
        if state.done.shape != (state.count,) or (state.table is None) == bool(state.done.any()):
            message = f"{path.name} is incomplete; delete it to ask again"
            raise FormatError(message)
        return state

    @classmethod
    def empty(cls, count: int) -> State:
        """Return a state without answers that is written nowhere."""
        return cls(None, "", count, np.zeros(count, dtype=np.bool_))

    def missing(self) -> NDArray[np.int64]:
        """Return the indices of images without an answer."""
        return np.flatnonzero(~self.done).astype(np.int64)

    def put(self, where: NDArray[np.int64], answers: Answers) -> None:
        """Take the answers for the images ``where``, and write all down."""
        rows = _rows(answers)
        if self.table is None:
            self.table = np.zeros((self.count, *rows.shape[1:]), dtype=rows.dtype)
        self._require_same(rows)
        self.table[where], self.done[where] = rows, True
        self.save()

    def put_again(self, where: NDArray[np.int64], answers: Answers) -> None:
        """Take second answers for the images ``where``, and write all down."""
        rows = _rows(answers)
        self._require_same(rows)
        self.again = where, rows
        self.save()

    def _require_same(self, rows: NDArray[Any]) -> None:
        """Refuse labels after probabilities, and the other way round."""
        if self.table is None or self.table.dtype != rows.dtype or self.table.shape[1:] != rows.shape[1:]:
            raise FormatError("the service answers now with labels, now with probabilities")

    def spread(self, count: int) -> NDArray[np.int64]:
        """Return at most ``count`` indices, spread over all images."""
        return np.unique(np.linspace(0, self.count - 1, min(count, self.count)).astype(np.int64))

    def notes(self, name: str) -> tuple[str, ...]:
        """Return what asking twice has shown."""
        if self.again is None:
            return (f"No image was asked twice: whether {name} answers the same question alike is unknown.",)
        differing, most = self.differing(TOLERANCE)
        if not differing:
            return ()
        share = f"{differing} of {len(self.again[0])} images that were asked twice were answered differently (by up to {most:.2g})"
        return (f"{share}: {name} draws random numbers or changed meanwhile, and other answers could lead to another verdict.",)

    def differing(self, tolerance: float) -> tuple[int, float]:
        """Return how many second answers differ from the first by more than ``tolerance`` of their size, and the largest difference."""
        if self.again is None or self.table is None:
            return 0, 0.0
        where, second = self.again
        first = self.table[where]
        gaps = np.abs(first.astype(np.float64) - second).reshape(len(where), -1)
        allowed = tolerance * (1 + np.abs(first.astype(np.float64))).reshape(len(where), -1) if first.dtype == np.float32 else 0
        return int((gaps > allowed).any(1).sum()), float(gaps.max(initial=0))

    def answers(self) -> Answers:
        """Return what was answered."""
        if self.table is None or not self.done.all():
            raise FormatError("not every image was answered")
        return Answers(labels=self.table) if self.table.dtype == np.int64 else Answers(probabilities=self.table)

    def save(self) -> None:
        """Write all down in one step, for the owner's eyes only."""
        if self.path is None:
            return
        arrays: dict[str, NDArray[Any]] = {"done": self.done.astype(np.uint8)}
        if self.table is not None:
            arrays["answers"] = self.table
        if self.again is not None:
            arrays |= {"again": self.again[0], "second": self.again[1]}
        facts = {"schema": SCHEMA, "version": "1", "about": self.about, "sent": str(self.sent)}
        write_bytes(self.path, dump_arrays(arrays, facts | {"digest": _digest(arrays, facts)}), mode=0o600)


def _rows(answers: Answers) -> NDArray[Any]:
    """Return the raw answers."""
    rows: Any = answers.probabilities if answers.labels is None else answers.labels
    found: NDArray[Any] = rows
    return found


def _digest(arrays: dict[str, NDArray[Any]], facts: dict[str, str]) -> str:
    """Return the digest of arrays and facts, itself left out."""
    return digest_bytes(dump_arrays(arrays, {name: value for name, value in facts.items() if name != "digest"}))
