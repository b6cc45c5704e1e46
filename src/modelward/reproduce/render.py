"""Make the tables of results anew from their rows: what a table shows can change without measuring again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelward.core.canonical import plain
from modelward.core.errors import FormatError
from modelward.core.nearest import nearest
from modelward.io.atomic import write_text
from modelward.reproduce import (
    activeguard_tables,
    additional_class_tables,
    advparams_tables,
    dataset_lock_tables,
    gan_removal_tables,
    sample_lock_tables,
    trigger_baselines,
    weight_baselines,
)
from modelward.reproduce.fingerprint_tables import Rows
from modelward.reproduce.tables import Table, markdown, pretty_json

TABLES: dict[str, Callable[[Rows], list[Table]]] = {
    "activeguard": activeguard_tables.tables,
    "additional-class": additional_class_tables.tables,
    "advparams": advparams_tables.tables,
    "dataset-lock": dataset_lock_tables.tables,
    "gan-removal": gan_removal_tables.tables,
    "sample-lock": sample_lock_tables.tables,
    "trigger-baselines": trigger_baselines.tables,
    "weight-baselines": weight_baselines.tables,
}


def rendered(document: dict[str, Any]) -> dict[str, Any]:
    """Return a results document whose tables are made from its rows; paragraphs, rows and environment stay.

    Raises
    ------
    FormatError
        for a document without rows, or of a recipe whose tables need more than rows.
    """
    name, rows = str(document.get("name")), document.get("rows")
    if name not in TABLES:
        message = f"the tables of {name!r} cannot be made from rows{nearest(name, TABLES)}; known: {', '.join(TABLES)}"
        raise FormatError(message)
    if not isinstance(rows, list) or not rows:
        message = f"these results of {name} hold no rows"
        raise FormatError(message)
    return {**document, "tables": TABLES[name](rows)}


def render(path: Path) -> Path:
    """Write the tables of ``NAME.json`` anew, into it and into ``NAME.md`` beside it; return the page.

    Raises
    ------
    FormatError
        for a file that holds no results, and as `rendered`.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        message = f"{path} holds no results: {error}"
        raise FormatError(message) from error
    if not isinstance(document, dict):
        message = f"{path} holds no results document"
        raise FormatError(message)
    made = rendered(document)
    page = path.with_suffix(".md")
    write_text(page, markdown(made))
    write_text(path, pretty_json(plain(made)))
    return page
