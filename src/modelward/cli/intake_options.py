"""The options that say what a net expects of its images, for every command that takes a model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from modelward.core.errors import UsageError

if TYPE_CHECKING:
    from modelward.models.intake import Convention

_PANEL = "What the net expects of its images, where that is not inside it"


def _option(flag: str, metavar: str, text: str) -> Any:
    return typer.Option(flag, metavar=metavar, help=text, rich_help_panel=_PANEL)


NUMBERS = ("range", "mean", "std")
_OPTIONS: dict[str, Any] = {
    "range": Annotated[str | None, _option("--range", "BLACK,WHITE", "What black and white are, as in 0,255 or -1,1.")],
    "channels": Annotated[Literal["rgb", "bgr"] | None, typer.Option("--channels", help="Order of colours.", rich_help_panel=_PANEL)],
    "mean": Annotated[str | None, _option("--mean", "M,M,M", "Subtracted, in the units of --range and the order of --channels.")],
    "std": Annotated[str | None, _option("--std", "S,S,S", "Divided by, after --mean.")],
}
PARAMETERS = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation) for name, annotation in _OPTIONS.items()
]


def parse_convention(given: Mapping[str, str | None]) -> Convention | None:
    """Return what the options say together, or ``None`` when none was given.

    Raises
    ------
    UsageError
        for text that is no list of numbers, and what `Convention` refuses.

    Examples
    --------
    >>> parse_convention({"range": "0,255", "channels": "bgr", "mean": "104,117,123"})
    Convention(range=(0.0, 255.0), mean=(104.0, 117.0, 123.0), std=(1.0,), channels='bgr')
    >>> parse_convention({"range": None}) is None
    True
    """
    chosen: dict[str, Any] = {name: text for name, text in given.items() if text is not None}
    if not chosen:
        return None
    from modelward.models.intake import Convention

    values: dict[str, Any] = {name: _numbers(name, text) if name in NUMBERS else text for name, text in chosen.items()}
    return Convention(**values)


def _numbers(name: str, text: str) -> tuple[float, ...]:
    """Return the numbers in ``text``: decimals or fractions with commas between."""
    from modelward.cli.values import parse_value

    values = [parse_value(part.strip()) for part in text.split(",")]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        message = f"--{name} takes numbers with commas between, as in --{name} 0.5,0.5,0.5, not {text!r}"
        raise UsageError(message)
    return tuple(float(value) for value in values)
