"""The matrix as a page, a table and a document; all three are made from rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelward.core.canonical import canonical_json
from modelward.report.files import csv_text, write_files
from modelward.report.matrix import COLUMNS, STATES, csv_rows, leaders, passes, shown
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
        d=document, m=matrix, states=STATES, signs=SIGNS, columns=COLUMNS, shown=shown, passes=passes, board=leaders(matrix)
    )


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
