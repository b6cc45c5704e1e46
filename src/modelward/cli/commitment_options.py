"""The options that bring a commitment: what dates a key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelward.core.errors import UsageError

if TYPE_CHECKING:
    from modelward.audit.committing import Committed
    from modelward.core.key import Key

CommitmentFile = Annotated[
    Path | None, typer.Option("--commitment", metavar="FILE", help="What `modelward commit` wrote when the key was new.")
]
OpeningFile = Annotated[
    Path | None,
    typer.Option("--opening", metavar="FILE", help="Private half of the commitment; by default beside it, as NAME.opening.json."),
]
TsaRoot = Annotated[
    Path | None, typer.Option("--tsa-root", metavar="PEM", help="Root certificate of the time-stamping authority that you trust.")
]
Released = Annotated[
    str | None,
    typer.Option(
        "--released", metavar="DATE", help="Day on which you first saw the suspect; only an older commitment makes a verdict 'stolen'."
    ),
]


def committed_of(key: Key, commitment: Path | None, opening: Path | None, root: Path | None, released: str | None) -> Committed | None:
    """Return the commitment to a key that the options name, or ``None``; raises `UsageError` for options that miss one."""
    if commitment is None:
        if opening or root or released:
            raise UsageError("--opening, --tsa-root and --released go with --commitment FILE")
        return None
    from modelward.audit.committing import read_committed

    return read_committed(commitment, key, opening=opening, roots=root, released=released)
