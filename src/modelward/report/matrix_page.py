"""The matrix as a page, a table and a document; all three are made from rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelward.core.canonical import canonical_json
from modelward.io.atomic import write_bytes
from modelward.report.matrix import COLUMNS, STATES, csv_rows, leaders, passes, shown
from modelward.report.page import environment, ready

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
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(csv_rows(matrix))
    return out.getvalue()


def write_matrix(document: Mapping[str, Any], folder: Path, stem: str = "matrix") -> list[Path]:
    """Write ``STEM.html``, ``STEM.csv`` and ``STEM.json`` into ``folder`` and return their paths.

    Raises
    ------
    StoreError
        when the folder cannot be written.
    """
    ready(folder)
    contents = {"html": render_matrix(document).encode(), "csv": matrix_csv(document["matrix"]).encode(), "json": canonical_json(document)}
    paths = []
    for ending, data in contents.items():
        write_bytes(folder / f"{stem}.{ending}", data)
        paths.append(folder / f"{stem}.{ending}")
    return paths
