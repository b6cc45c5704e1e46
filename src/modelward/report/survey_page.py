"""The matrix as the survey of protections has it (Xue et al., arXiv 2011.13564): attributes from cards, all figures from rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from modelward.core.card import Function, Mechanism
from modelward.core.catalogue import catalogue
from modelward.report.files import csv_text, write_files
from modelward.report.measures import UNTESTED, shown
from modelward.report.page import environment

ATTRIBUTES = ("scenario", "mechanism", "capacity", "type", "function", "target")
BASIC = {
    "fidelity_drop": "points of accuracy lost", "verification": "verifies", "false_claims": "false claims, bound", "strangers_accused": "strangers accused",
    "key_specificity": "other keys fit", "capacity_bits": "bits", "stealth": "stands out", "protect_seconds": "seconds to protect",
}  # fmt: skip
FAMILIES = ("modification", "evasion", "active")
RESISTANCE = (*(f"withstands {family} attacks" for family in FAMILIES), "cheapest break", "forged key fits", "colluders traced")
CUSTOMISED = ("service: asked for", "court: needs", "licensing: users", "edge: seconds to verify", "data owner: unauthorised training")
ACTIVE = frozenset({"overwrite", "gan-removal", "neural-cleanse", "laundering", "push-maps"})
EVASION = frozenset({Mechanism.INPUT_PREPROCESS, Mechanism.OUTPUT_CONTROL})
UNKNOWN = "not known here"
NOBODY, UNTOLD = "none: it names nobody", "named, without a limit by its card"


def family(attack: str) -> str:
    """Return the survey's family of an attack: what changes a stolen model, what slips past the question, or what goes for the mark itself.

    Examples
    --------
    >>> [family(name) for name in ("ftal", "extract-l", "wrap-jpeg", "ensemble", "overwrite")]
    ['modification', 'modification', 'evasion', 'evasion', 'active']
    """
    if attack in ACTIVE:
        return "active"
    kind = catalogue().get(attack)
    behind = kind is not None and kind.card.taxonomy.mechanism in EVASION
    return "evasion" if behind or attack == "ensemble" else "modification"


def attributes(method: str) -> dict[str, str]:
    """Return the six attributes of a method, from its card.

    Examples
    --------
    >>> attributes("zhang")["mechanism"], attributes("zhang")["scenario"], attributes("nobody's")["target"]
    ('backdoor trigger', 'black box label', 'not known here')
    """
    kind = catalogue().get(method)
    if kind is None:
        return dict.fromkeys(ATTRIBUTES, UNKNOWN)
    taxonomy = kind.card.taxonomy
    functions = ", ".join(taxonomy.functions)
    values = (taxonomy.scenario, taxonomy.mechanism, taxonomy.capacity, taxonomy.protection, functions, taxonomy.target)
    return {name: str(value).replace("_", " ") for name, value in zip(ATTRIBUTES, values, strict=True)}


def survey(matrix: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one entry a protection: ``name``, its attributes, the metrics of the three families, each in words, and its claims with their verdicts.

    Parameters
    ----------
    matrix
        as `modelward.report.matrix.summary` gives it. What it has no row for is "not tested".
    """
    return [
        {
            "name": row["name"], "why": row["why"], "attributes": attributes(row["name"].partition(",")[0]),
            "basic": {title: shown(metric, row["measures"].get(metric)) or UNTESTED for metric, title in BASIC.items()},
            "resistance": dict(zip(RESISTANCE, _resistance(row), strict=True)),
            "customised": dict(zip(CUSTOMISED, _customised(row["name"].partition(",")[0], row["measures"]), strict=True)),
            "claims": row["claims"],
        }
        for row in matrix["rows"]
    ]  # fmt: skip


def _resistance(row: Mapping[str, Any]) -> list[str]:
    """Return what became of the attacks of each family, what breaking costs at least, and what forging and colluding reach."""
    states = {name: [cell["state"] for attack, cell in row["cells"].items() if family(attack) == name] for name in FAMILIES}
    told = []
    for found in states.values():
        decided = [state for state in found if state in {"robust", "broken", "fragile"}]
        told.append(f"{decided.count('robust')} of {len(decided)}" if decided else UNTESTED)
    costs = [(cell["break_cost"]["seconds"], attack) for attack, cell in row["cells"].items() if cell["break_cost"]]
    tried = any(cell["state"] in {"robust", "broken", "fragile"} for cell in row["cells"].values())
    broken = f"{min(costs)[0]:.1f} s, {min(costs)[1]}" if costs else "none found" if tried else UNTESTED
    return [*told, broken, shown("forged_key_fits", row["measures"].get("forged_key_fits")) or UNTESTED, _named(row)]


def _named(row: Mapping[str, Any]) -> str:
    """Return whether colluders can be named at all, by the card; how many are is in no row of the matrix."""
    return NOBODY if users_of(row["name"].partition(",")[0]) == NOBODY else UNTESTED


def users_of(method: str) -> str:
    """Return how many users a method tells apart, by its card and its usual settings.

    Examples
    --------
    >>> [users_of(name) for name in ("deepmarks", "additional-class", "zhang", "nobody's")]
    ['31 by its usual settings', 'named, without a limit by its card', 'none: it names nobody', 'not known here']
    """
    kind = catalogue().get(method)
    if kind is None:
        return UNKNOWN
    if Function.IDENTITY not in kind.card.taxonomy.functions:
        return NOBODY
    users = next((entry.default for entry in fields(kind) if entry.name == "users"), None)
    return f"{users} by its usual settings" if isinstance(users, int) else UNTOLD


def _customised(method: str, measures: Mapping[str, Any]) -> list[str]:
    """Return what each application asks of a protection, as far as rows tell."""
    verified, queries = measures.get("verification"), measures.get("queries")
    extra = verified["extra"] if verified else {}
    asked, forgeable = extra.get("needs"), extra.get("forgeable")
    count = "" if queries is None or queries["value"] is None else f", {queries['value']:,.0f} queries"
    seconds = verified["seconds"] if verified else None
    return [
        f"{asked}{count}" if asked else UNTESTED, UNTESTED if forgeable is None else "a dated commitment" if forgeable else "no commitment", users_of(method),
        UNTESTED if seconds is None else f"{seconds:.2g}", UNTESTED,
    ]  # fmt: skip


def tally(claims: list[Mapping[str, Any]]) -> str:
    """Return how many claims hold, are violated, and were not tested.

    Examples
    --------
    >>> tally([{"verdict": "holds"}, {"verdict": "not tested"}]), tally([])
    ('1 holds, 0 violated, 1 not tested', 'none')
    """
    verdicts = [claim["verdict"] for claim in claims]
    return ", ".join(f"{verdicts.count(word)} {word}" for word in ("holds", "violated", UNTESTED)) if verdicts else "none"


def survey_csv(lines: list[dict[str, Any]]) -> str:
    """Return the survey as CSV."""
    table: list[list[object]] = [["protection", *ATTRIBUTES, *BASIC.values(), *RESISTANCE, *CUSTOMISED, "claims"]]
    for line in lines:
        groups = [value for group in ("attributes", "basic", "resistance", "customised") for value in line[group].values()]
        table.append([line["name"], *groups, tally(line["claims"])])
    return csv_text(table)


def render_survey(document: Mapping[str, Any]) -> str:
    """Return the survey of a matrix document as one HTML page that loads nothing."""
    groups = {"basic": "Basic functions", "resistance": "Attack resistance", "customised": "For an application"}
    return environment().get_template("survey.html.j2").render(
        d=document, lines=survey(document["matrix"]), groups=groups, attributes=ATTRIBUTES, tally=tally
    )  # fmt: skip


def write_survey(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``ip-survey.html`` and ``ip-survey.csv`` into ``folder`` and return their paths; raises `StoreError` when it cannot be written."""
    return write_files(folder, "ip-survey", {"html": render_survey(document), "csv": survey_csv(survey(document["matrix"]))})
