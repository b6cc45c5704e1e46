"""What an architecture says of itself: how it is built, what it takes, and how all of that is read back from weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

Shapes = Callable[[str], tuple[int, ...]]  # shape of a weight by its key; raises InputError where there is none of two dimensions or more


@dataclass(frozen=True)
class Argument:
    """An argument of an architecture: an integer with a default and bounds, both included."""

    default: int
    low: int = 1
    high: int = 1024


def _no_arguments(_shapes: Shapes, _names: Mapping[str, object]) -> dict[str, int]:
    return {}


@dataclass(frozen=True)
class Architecture:
    """A builder with its arguments, and how arguments, channels, classes and side are read back from weights.

    Parameters
    ----------
    make
        ``make(channels, size, classes, **arguments)`` -> body.
    arguments
        by name.
    first, last
        keys of the weights (O, I, ...) that take the image and give the logits.
    read
        ``read(shapes, state)`` -> the arguments that weights tell.
    side
        ``side(shapes, channels, arguments)`` -> square side; ``None``: the body takes any size.
    usual
        (side, channels) assumed where weights tell none.
    """

    make: Callable[..., nn.Module]
    first: str
    last: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    read: Callable[[Shapes, Mapping[str, object]], dict[str, int]] = _no_arguments
    side: Callable[[Shapes, int, Mapping[str, int]], int] | None = None
    usual: int = 32

    @property
    def defaults(self) -> dict[str, int]:
        """The arguments where none are given."""
        return {name: argument.default for name, argument in self.arguments.items()}


def by_first(key: str) -> Callable[[Shapes, Mapping[str, object]], dict[str, int]]:
    """Return the reader of a width that is the number of outputs of the weight ``key``."""
    return lambda shapes, _names: {"width": shapes(key)[0]}
