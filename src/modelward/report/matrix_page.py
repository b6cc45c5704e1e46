"""The matrix as a page, a table and a document; all three are made from rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from modelward.core.canonical import canonical_json
from modelward.report.files import csv_text, write_files
from modelward.report.key_words import key_words
from modelward.report.matrix import STATES, break_cost, csv_rows, leaders, name_of
from modelward.report.measures import COLUMNS, beneath, interval, passes, shown
from modelward.report.page import environment

SIGNS = {"robust": "✔", "broken": "✘", "useless": "–", "fragile": "!", "failed": "?", "not tested": ""}  # noqa: RUF001  # signs, not letters


def render_matrix(document: Mapping[str, Any]) -> str:
    """Return the matrix as one HTML page that loads nothing.

    Parameters
    ----------
    document
        schema ``modelward/matrix``, version 1.
    """
    matrix = document["matrix"]
    template = environment().get_template("matrix.html.j2")
    return template.render(
        d=document, m=matrix, states=STATES, signs=SIGNS, columns=COLUMNS, shown=shown, passes=passes, board=leaders(matrix), interval=interval,
        beneath=beneath, settings=settings_tried(document.get("rows", ())), break_cost=break_cost, key_words=key_words,
    )  # fmt: skip


def settings_tried(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[Mapping[str, Any]]]:
    """Return the rows of every attack on every protection, in the order they were tried, seed by seed.

    Examples
    --------
    >>> row = {"metric": "after_attack", "method": "zhang", "variant": "paper", "attack": "prune", "budget": "sparsity 0.5"}
    >>> list(settings_tried([row, {**row, "metric": "queries"}]))
    [('zhang, paper', 'prune')]
    """
    tried: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["metric"] == "after_attack":
            tried.setdefault((name_of(row), row["attack"]), []).append(row)
    return tried


def matrix_csv(matrix: Mapping[str, Any]) -> str:
    """Return the matrix as CSV."""
    return csv_text(csv_rows(matrix))


def write_matrix(document: Mapping[str, Any], folder: Path, stem: str = "matrix") -> list[Path]:
    """Write ``STEM.html``, ``STEM.csv`` and ``STEM.json`` into ``folder`` and return their paths.

    Raises
    ------
    StoreError
        when the folder cannot be written.
    """
    table = matrix_csv(document["matrix"])
    return write_files(folder, stem, {"html": render_matrix(document), "csv": table, "json": canonical_json(document)})
