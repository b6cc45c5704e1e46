"""A cell: one piece of work of an evaluation, keyed by its content."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelward.core.canonical import digest_of
from modelward.evaluation.code import code_digest
from modelward.evaluation.place import here


@dataclass(frozen=True, eq=False)
class Cell:
    """One piece of work.

    Parameters
    ----------
    work
        ``"package.module:function"`` taking a `Job` and returning an `Outcome`.
    settings
        JSON values: method name and fields, budget, part names.
    inputs
        by name: the digest of a stored artefact, or another cell, whose artefact it reads.
    seed
        of this cell; a hash of its coordinates.
    label
        what progress displays and failure messages call it.
    seconds
        estimated time on one core, for the plan and the time left.
    uses
        further modules whose code the result depends on, such as the method's.
    threads, precision, device
        what the result depends on besides; the device is the one that the doors said, and changes the key only when it is not the CPU.
    """

    work: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str | Cell] = field(default_factory=dict)
    seed: int = 0
    label: str = ""
    seconds: float = 1.0
    uses: tuple[str, ...] = ()
    threads: int = 1
    precision: str = "fp32"
    device: str = field(default_factory=lambda: here().device)

    @cached_property
    def key(self) -> str:
        """SHA-256 over everything that the result depends on."""
        inputs = {name: value.key if isinstance(value, Cell) else value for name, value in self.inputs.items()}
        kind = self.device.partition(":")[0]  # one accelerator of a machine is as good as the next
        where = [] if kind == "cpu" else [kind]
        return digest_of([self.work, dict(self.settings), inputs, self.seed, self.threads, self.precision, self.code, *where])

    @cached_property
    def code(self) -> str:
        """Digest of the code that the result depends on."""
        return code_digest(self.work.partition(":")[0], *self.uses)

    @property
    def needs(self) -> Iterable[Cell]:
        """Cells that must be finished first."""
        return (value for value in self.inputs.values() if isinstance(value, Cell))


@dataclass(frozen=True)
class Job:
    """What a work function is given: the cell's settings and the digests of its inputs, all plain data."""

    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    seed: int
    store: str
    threads: int
    precision: str
    device: str = "cpu"


@dataclass(frozen=True)
class Outcome:
    """What a work function returns: rows, and arrays to keep with facts about them."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    arrays: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """A finished cell as the store holds it."""

    key: str
    rows: list[dict[str, Any]]
    artifact: str | None
    seconds: float
    cached: bool = True
