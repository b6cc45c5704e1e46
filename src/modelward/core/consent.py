"""Code that the user asked for by name: `package.module:function` runs only when a person typed it, never because a file says so."""

from __future__ import annotations

from collections.abc import Iterable

_given: set[str] = set()


def give(names: Iterable[str]) -> None:
    """Remember that the user named these functions, for the rest of this process.

    >>> give(["nets:small"])
    >>> is_given("nets:small"), is_given("nets:large")
    (True, False)
    """
    _given.update(names)


def is_given(name: str) -> bool:
    """Return whether the user named this function."""
    return name in _given


def given() -> tuple[str, ...]:
    """Return all functions that the user named, sorted: what a worker process is told when it starts."""
    return tuple(sorted(_given))
