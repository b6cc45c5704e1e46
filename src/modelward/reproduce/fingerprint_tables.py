"""What the tables of all fingerprint recipes share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelward.audit.section import percent
from modelward.core.deciding import DRAWS
from modelward.core.errors import ModelwardError
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Run
from modelward.reproduce.tables import figure

GROUPS = ("FTAL", "FTLL", "RTAL", "prune", "quantise", "extract-P", "extract-L")
SMOKE = "**Smoke run: not evidence.**"
Rows = list[dict[str, Any]]


def yes(met: bool) -> str:
    """Return whether a gate is met, so that a gate that is not meets the eye."""
    return "yes" if met else "**no**"


def rows_by_name(run: Run, names: Sequence[str], cells: Sequence[Cell]) -> dict[str, Rows]:
    """Return the rows of each configuration by its name; raises `ModelwardError` when the first one could not be measured."""
    if cells[0].key in run.failed:
        message = f"{names[0]} could not be measured: {run.failed[cells[0].key]}"
        raise ModelwardError(message)
    found = {name: run.of(cell) for name, cell in zip(names, cells, strict=True)}
    return {name: finished.rows if finished else [] for name, finished in found.items()}


def find_row(rows: Rows, metric: str, attack: str) -> dict[str, Any] | None:
    """Return the row of one metric and attack."""
    return next((row for row in rows if row["metric"] == metric and row["attack"] == attack), None)


def auc_line(name: str, rows: Rows) -> list[object]:
    """Return a configuration's AUC by group of thieves, and over all."""
    return [name, *(figure(find_row(rows, "auc", group)) for group in (*GROUPS, "all thieves"))]


def accused_lines(rows: Rows) -> list[list[object]]:
    """Return how many independent models that calibrate nothing were accused, by kind."""
    return [
        [row["attack"], f"{round(row['value'] * row['n'])} of {row['n']}", f"{row['ci_high']:.2f}"]
        for row in rows
        if row["metric"] == "accused"
    ]


def calibration_words(rows: Rows) -> str:
    """Return the draws, false claims and recognised thieves of one configuration in words."""
    false, recognised = next(row for row in rows if row["metric"] == "false_claims"), find_row(rows, "recognised", "all thieves")
    caught = f"{percent(recognised)} of {recognised['n']} useful thieves" if recognised else "nothing"
    drawn, accused = false["extra"]["draws"], round((false["value"] or 0) * false["n"])
    if drawn < DRAWS[0]:
        return f"{drawn} {false['extra']['draws_of']} are too few: every verdict is undecided."
    return (
        f"The p-value is the rank among {drawn} {false['extra']['draws_of']}, 5 % at most for any model made without the source's private draws; of "
        f"{false['n']} independent models {accused} were accused. Recognised: {caught}."
    )


def matched_lines(rows: Rows) -> list[list[object]]:
    """Return the accuracy-matched comparison."""
    return [[row["attack"], figure(row), row["extra"]["independents"]] for row in rows if row["metric"] == "auc_accuracy_matched"]


def labelled(rows: Mapping[str, Rows], profile: str, command: str) -> Rows:
    """Return all rows with the configuration, profile and command that they come from."""
    return [{**row, "profile": profile, "command": command, "configuration": name} for name, found in rows.items() for row in found]
