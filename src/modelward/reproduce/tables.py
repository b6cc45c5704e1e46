"""Results as Markdown tables and as JSON that diffs well."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Table = tuple[str, list[str], list[list[object]]]


def pretty_json(value: Any) -> str:
    """Return JSON with one row of results a line, so that a change shows as a line."""
    rows = value.pop("rows", [])
    head = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    body = ",\n  ".join(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows)
    return f'{head[:-2]},\n "rows": [\n  {body}\n ]\n}}\n'


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table.

    >>> print(table(["a", "b"], [[1, 2]]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)])


def figure(row: Mapping[str, Any] | None) -> str:
    """Return a figure with its interval: ``"0.95 [0.81, 1.00]"``."""
    if row is None or row["value"] is None:
        return "-"
    low, high = row.get("ci_low"), row.get("ci_high")
    return f"{row['value']:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low is not None and high is not None else "")


def markdown(document: Mapping[str, Any]) -> str:
    """Return the Markdown page of a results document: its summary, its tables, its command and environment."""
    parts = [f"# {document['title']}", *document["paragraphs"]]
    for caption, header, rows in document["tables"]:
        parts += [f"## {caption}", table(header, rows)]
    environment = ", ".join(f"{name} {value}" for name, value in document["environment"].items())
    parts += [
        "## How to get this again",
        f"```sh\n{document['command']}\n```",
        f"{document['seconds']:.0f} s of wall time; {environment}; {document['created']}.",
    ]
    return "\n\n".join(parts) + "\n"
