"""How ``verify`` asks a suspect that is no file: a service behind an address, or a Python function."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from modelward.core.errors import UsageError

if TYPE_CHECKING:
    from modelward.io.endpoint import Asking

_PANEL = "Suspects behind an address"
Function = Annotated[
    str | None,
    typer.Option("--suspect", metavar="MODULE:FUNCTION", help="Python function that answers, instead of SUSPECT; its code runs here."),
]
Send = Annotated[Literal["json", "png"] | None, typer.Option("--send", help="Images as numbers (json) or as PNG.", rich_help_panel=_PANEL)]
Batch = Annotated[int | None, typer.Option("--batch", min=1, metavar="N", help="Images in one request.", rich_help_panel=_PANEL)]
Rate = Annotated[str | None, typer.Option("--rate", metavar="N/s", help="Requests at most, as in 2/s or 30/min.", rich_help_panel=_PANEL)]
Budget = Annotated[
    int | None, typer.Option("--budget", min=1, metavar="N", help="Images sent at most, retries included.", rich_help_panel=_PANEL)
]
Retries = Annotated[
    int | None, typer.Option("--retries", min=0, metavar="N", help="Further tries after a failure.", rich_help_panel=_PANEL)
]
Timeout = Annotated[float | None, typer.Option("--timeout", metavar="S", help="Seconds for one request.", rich_help_panel=_PANEL)]
HeaderFile = Annotated[
    Path | None,
    typer.Option(
        "--header-file",
        metavar="FILE",
        help="Headers such as a token, one 'Name: value' a line; or $MODELWARD_HEADERS.",
        rich_help_panel=_PANEL,
    ),
]
Resume = Annotated[
    Path | None, typer.Option("--resume", metavar="FILE", help="Keep answers here and never ask for them again.", rich_help_panel=_PANEL)
]


def parse_rate(text: str) -> float:
    """Return requests a second from ``N``, ``N/s`` or ``N/min``.

    >>> parse_rate("2/s"), parse_rate("30/min"), parse_rate("0.5")
    (2.0, 0.5, 0.5)
    """
    number, _, unit = text.strip().partition("/")
    try:
        rate = float(number) / {"": 1, "s": 1, "min": 60}[unit.strip()]
    except (ValueError, KeyError):
        rate = 0.0
    if not 0 < rate < math.inf:
        message = f"--rate takes requests a second or a minute, as in 2/s or 30/min, not {text[:20]!r}"
        raise UsageError(message)
    return rate


def asking_of(suspect: str | Path, header_file: Path | None, rate: str | None, **given: Any) -> Asking | None:
    """Return how a service is asked; ``None`` for other suspects, which take no such options.

    Raises
    ------
    UsageError
        when an option for services is passed with a suspect that is none.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    if not (isinstance(suspect, str) and "://" in suspect):
        if chosen or header_file or rate:
            raise UsageError(
                "--send, --batch, --rate, --budget, --retries, --timeout, --header-file and --resume go with the address of a service"
            )
        return None
    from modelward.io.endpoint import Asking
    from modelward.io.endpoint_headers import read_headers

    return Asking(**chosen, headers=read_headers(header_file), rate=None if rate is None else parse_rate(rate))


def suspect_of(given: str | None, function: str | None) -> str | Path:
    """Return the suspect that was named: a file as a path; an address, or ``package.module:function``, as text.

    Raises
    ------
    UsageError
        when none or two are named, or there is no such file.

    Examples
    --------
    >>> suspect_of("https://models.example/v1", None), suspect_of(None, "nets:thief")
    ('https://models.example/v1', 'nets:thief')
    """
    from modelward.core.nearest import nearest

    if (given is None) == (function is None):
        raise UsageError("name one suspect: a file or an address, or a function with --suspect package.module:function")
    if function is not None:
        return function
    if "://" in str(given):
        return str(given)
    path = Path(str(given))
    if not path.exists():
        siblings = [child.name for child in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = "; a function is named with --suspect" if ":" in path.name else nearest(path.name, siblings)
        message = f"there is no file {path}{hint}"
        raise UsageError(message)
    return path


def told(suspect: str | Path) -> str:
    """Return a suspect's name for reports: a file by its name, an address by host and path.

    >>> told("https://models.example/v1?version=3"), told(Path("/tmp/thief.onnx"))
    ('models.example/v1', 'thief.onnx')
    """
    if isinstance(suspect, Path):
        return suspect.name
    if "://" not in suspect:
        return suspect
    from modelward.io.endpoint_http import address_of, shown

    return shown(address_of(suspect))
