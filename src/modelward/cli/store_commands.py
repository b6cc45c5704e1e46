"""``modelward store`` and ``modelward convert``: files that are kept, and files that are made safe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from modelward.cli.options import FLAG, Options
from modelward.cli.output import emit, human_bytes, human_seconds, say, table
from modelward.core.errors import Undecided, UsageError


def store_list(options: Options) -> int:
    """List finished cells, oldest first."""
    from modelward.evaluation.store import Store

    store = Store()
    cells = list(store.listing())
    if options.as_json:
        emit("store", {"folder": store.folder, "cells": cells})
        return 0
    if cells:
        rows = [
            (cell["label"], str(cell["finished"])[:16].replace("T", " "), human_seconds(cell["seconds"]), human_bytes(cell["bytes"]))
            for cell in cells
        ]
        table(("cell", "finished (UTC)", "took", "size"), rows, right=("took", "size"), keep=("finished (UTC)",))
        say()
    total = sum(cell["bytes"] for cell in cells)
    say(f"{len(cells)} finished cells, {human_bytes(total)}, in {store.folder}", wrap=False)
    return 0


def store_clear(options: Options, *, yes: Annotated[bool, typer.Option("--yes", "-y", metavar=FLAG, help="Do not ask.")] = False) -> int:
    """Forget all finished cells; they are computed again when they are needed."""
    from modelward.evaluation.store import Store

    store = Store()
    count = store.count()
    if count and not yes:
        if not _can_ask():
            message = f"{count} finished cells would be forgotten and nobody can be asked; pass --yes"
            raise UsageError(message)
        if not typer.confirm(f"Forget {count} finished cells in {store.folder}?", err=True):
            raise Undecided("nothing was forgotten")
    store.clear()
    if options.as_json:
        emit("store-clear", {"folder": store.folder, "forgotten": count})
    else:
        say(f"{count} finished cells forgotten", wrap=False)
    return 0


def _can_ask() -> bool:
    """Return whether somebody sits at the terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def convert(
    options: Options,
    source: Annotated[Path, typer.Argument(metavar="SRC.pt", help="Legacy torch file with a state dictionary.", show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="DST.safetensors", help="Safetensors file to write.", show_default=False)],
) -> int:
    """Turn a legacy .pt file into safetensors.

    The file is opened in a child process with limits, and refused (exit code 5) when it could run code.
    """
    from modelward.io.legacy import convert_pt

    convert_pt(source, target)
    if options.as_json:
        emit("convert", {"source": source, "target": target, "bytes": target.stat().st_size})
    else:
        say(f"{target}, {human_bytes(target.stat().st_size)}", wrap=False)
    return 0
