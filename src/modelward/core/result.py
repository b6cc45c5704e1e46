"""What `run` of any method returns, and the trace a method writes while it works."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Result(Generic[T]):
    """A method's value with what it took to get it.

    Parameters
    ----------
    value
        what the verb alone returns.
    flags
        reasons not to trust the value, empty when there are none.
    steps, queries
        optimisation steps, and model evaluations counted per image.
    seconds
        wall time.
    """

    value: T
    flags: tuple[str, ...] = ()
    steps: int = 0
    queries: int = 0
    seconds: float = 0.0


@dataclass
class Trace:
    """A method's log while it works: counted by the method, turned into a `Result` by the family's base."""

    steps: int = 0
    queries: int = 0
    flags: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def flag(self, text: str) -> None:
        """Record a reason not to trust the value, once."""
        if text not in self.flags:
            self.flags.append(text)
