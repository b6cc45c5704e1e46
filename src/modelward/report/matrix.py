"""From rows to the matrix: what each protection shows before and after each attack. Nothing but rows is read, so the page can be made again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelward.core.claims import Claim
from modelward.report.measures import COLUMNS, METRICS, shown, taken
from modelward.report.pooling import pooled_cell, pooled_measure

Row = Mapping[str, Any]
MAX_DROP = 0.05
STATES = {
    "robust": "the key fits after every setting that leaves the thief a useful model",
    "broken": "the thief keeps a useful model and the key no longer fits",
    "useless": "the attack costs more than 5 points of accuracy at every setting",
    "fragile": "the key does not even fit the model that was protected",
    "failed": "the attack could not be run here",
    "not tested": "no rule asks for this attack against this mechanism",
}


def name_of(row: Row) -> str:
    """Return which protection a row is about: method, variant, and the architecture where there are several."""
    return str(row.get("protection") or f"{row['method']}, {row['variant']}")


Failed = Mapping[str, Mapping[str, str]]


def summary(
    rows: Sequence[Row], failed: Failed | None = None, claims: Mapping[str, Sequence[Claim]] | None = None,
    unmade: Mapping[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the matrix: one entry a protection, with its measurements and one cell an attack.

    Parameters
    ----------
    rows
        of the cells that protect, steal and verify.
    failed
        by protection and attack: why a theft could not be run.
    claims
        by method: what its card says.
    unmade
        protections that could not be made, and why; they keep their row, empty.

    Returns
    -------
    dict
        ``attacks`` (columns in order of appearance), ``rows`` (``name``, ``measures``, ``cells``, ``claims``).
    """
    names = [*dict.fromkeys(name_of(row) for row in rows if row["metric"] == "verification"), *sorted(unmade or {})]
    attacks = list(dict.fromkeys(row["attack"] for row in rows if row["metric"] == "after_attack"))
    attacks += [attack for lost in (failed or {}).values() for attack in lost if attack not in attacks]
    said = {name: (claims or {}).get(name.partition(",")[0], ()) for name in names}
    made = [_line(name, [row for row in rows if name_of(row) == name], attacks, (failed or {}).get(name, {}), said[name]) for name in names]
    return {"attacks": attacks, "rows": [{**line, "why": (unmade or {}).get(line["name"], "")} for line in made]}


def _line(name: str, own: Sequence[Row], attacks: Sequence[str], lost: Mapping[str, str], said: Sequence[Claim]) -> dict[str, Any]:
    """Return the entry of one protection, from its own rows: those of each seed by themselves, then pooled."""
    seeds = dict.fromkeys(row.get("repeat") for row in own) or {None: None}
    parts = [_of_seed([row for row in own if row.get("repeat") == seed], attacks, lost) for seed in seeds]
    measures = {metric: pooled_measure(metric, [part["measures"][metric] for part in parts]) for metric in METRICS}
    cells = {attack: pooled_cell([part["cells"][attack] for part in parts]) for attack in attacks}
    verdicts = [held(claim, cells, measures) for claim in said]
    return {"name": name, "measures": measures, "cells": cells, "said": [vars(claim) for claim in said], "claims": verdicts}


def _of_seed(own: Sequence[Row], attacks: Sequence[str], lost: Mapping[str, str]) -> dict[str, Any]:
    """Return the measurements and the cells of one protection with one seed."""
    measures = {metric: taken(metric, own) for metric in METRICS}
    fits = bool((measures["verification"] or {}).get("extra", {}).get("matches"))
    after = [row for row in own if row["metric"] == "after_attack"]
    cells = {attack: cell_of([row for row in after if row["attack"] == attack], lost.get(attack), fits=fits) for attack in attacks}
    return {"measures": measures, "cells": cells}


def cell_of(points: Sequence[Row], failure: str | None = None, *, fits: bool = True) -> dict[str, Any]:
    """Return one cell: its state, its worst point that leaves the thief a useful model, and what breaking costs at least.

    Examples
    --------
    >>> point = {"value": 0.9, "seconds": 3.0, "budget": "lr 0.1", "extra": {"useful": True, "matches": False, "drop": 0.01, "accuracy": 0.8}}
    >>> cell = cell_of([point])
    >>> cell["state"], cell["break_cost"]["budget"], cell_of([])["state"], cell_of([], "no such layer")["state"]
    ('broken', 'lr 0.1', 'not tested', 'failed')
    """
    if not points:
        return {"state": "failed" if failure else "not tested", "why": failure or "", "points": 0, "worst": None, "break_cost": None}
    useful = [row for row in points if row["extra"].get("useful")]
    broken = [row for row in useful if not row["extra"].get("matches")]
    state = "fragile" if not fits else "useless" if not useful else "broken" if broken else "robust"
    worst = max(useful or points, key=lambda row: (not row["extra"].get("matches"), -1.0 if row["value"] is None else row["value"]))
    cheapest = min(broken, key=lambda row: row["seconds"], default=None)
    cost = None
    if cheapest is not None:
        told = {name: cheapest["extra"].get(name) for name in ("images", "queries", "drop", "accuracy")}
        cost = {"seconds": cheapest["seconds"], "budget": cheapest["budget"], **told}
    doubted = sum(row["extra"].get("decision") == "undecided" for row in useful)
    return {"state": state, "why": "", "points": len(points), "worst": worst, "break_cost": cost, "undecided": doubted}


def held(claim: Claim, cells: Mapping[str, Mapping[str, Any]], measures: Mapping[str, Any]) -> dict[str, Any]:
    """Return what became of a claim: ``holds``, ``violated`` or ``not tested``; without rows it is never more than not tested.

    ``by`` names the rows that decide: the attack or metric, how many they are, and what was found.

    Examples
    --------
    >>> claim = Claim("survives pruning", attack="prune")
    >>> [held(claim, cells, {})["verdict"] for cells in ({}, {"prune": {"state": "robust"}}, {"prune": {"state": "broken"}})]
    ['not tested', 'holds', 'violated']
    >>> held(Claim("costs nothing", metric="fidelity_drop"), {}, {"fidelity_drop": {"value": 0.01, "n": 500, "extra": {}}})["by"]
    'fidelity_drop, 1 row: 1.0, n 500'
    """
    verdict, rows, found = "not tested", 0, ""
    if claim.attack:
        cell = cells.get(claim.attack, {})
        verdict = {"robust": "holds", "broken": "violated", "fragile": "violated"}.get(cell.get("state", ""), verdict)
        rows, found = cell.get("points", 0), _found(cell)
    elif claim.metric:
        row = measures.get(claim.metric)
        if row is not None and row["value"] is not None:
            verdict = "holds" if row["value"] <= claim.most else "violated"
            rows, found = row.get("rows", 1), f"{shown(claim.metric, row)}, n {row.get('n', 1)}"
    by = f"{claim.attack or claim.metric}, {rows} row{'s' * (rows != 1)}{': ' * bool(found)}{found}" if rows else ""
    return {"text": str(claim), "source": claim.source, "figure": claim.figure, "verdict": verdict, "attack": claim.attack, "metric": claim.metric,
            "by": by}  # fmt: skip


def _found(cell: Mapping[str, Any]) -> str:
    """Return in words what the worst setting of an attack left."""
    worst = cell.get("worst")
    if not worst:
        return ""
    if cell["state"] == "fragile":
        return "the key does not fit what was protected"
    if cell["state"] == "useless":
        return "no setting left a useful model"
    limit, lost = worst["extra"].get("threshold"), worst["extra"].get("drop")
    told = "nothing to read" if worst["value"] is None else f"statistic {worst['value']:.3f}"
    told += "" if limit is None else f", fits to {limit:.3f}"
    told += "" if lost is None else f", {100 * lost:.1f} points lost"
    return f"at worst ({worst['budget']}) {told}" if worst.get("budget") else f"at worst {told}"


def csv_rows(matrix: Mapping[str, Any]) -> Iterable[list[str]]:
    """Yield the matrix as lines of a table: a header, then one line a protection.

    What breaking leaves and costs stands behind all states, so that programs that read those columns by their place still find them.
    """
    attacks = matrix["attacks"]
    costs = [f"{attack}: {what}" for attack in attacks for what in ("points lost at worst", "break cost")]
    yield ["protection", *(title for _, title, _ in COLUMNS), *attacks, *costs]
    for row in matrix["rows"]:
        measured = [shown(metric, row["measures"][metric]) for metric, _, _ in COLUMNS]
        cells = [row["cells"][attack] for attack in attacks]
        states = ["" if cell["state"] == "not tested" else cell["state"] for cell in cells]
        yield [row["name"], *measured, *states, *(text for cell in cells for text in (_lost_at_worst(cell), break_cost(cell)))]


def _lost_at_worst(cell: Mapping[str, Any]) -> str:
    """Return the points of accuracy that the worst setting costs the thief."""
    lost = cell["worst"]["extra"].get("drop") if cell["worst"] else None
    return "" if lost is None else f"{100 * lost:.1f}"


def break_cost(cell: Mapping[str, Any]) -> str:
    """Return in words what the cheapest break takes; empty where nothing broke.

    Examples
    --------
    >>> break_cost({"break_cost": {"seconds": 9.04, "images": 100, "queries": 20}}), break_cost({"break_cost": None})
    ('9.0 s, 100 images, 20 queries', '')
    """
    cost = cell["break_cost"]
    if not cost:
        return ""
    asked = f", {cost['queries']} queries" if cost.get("queries") else ""
    return f"{cost['seconds']:.1f} s, {cost['images']} images{asked}"


def leaders(matrix: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the protections from the one that withstands the largest share of what was tried against it, each with its counts.

    Attacks that ruin the thief's own model count for neither side.
    """
    board = []
    for row in matrix["rows"]:
        states = [cell["state"] for cell in row["cells"].values()]
        decided = sum(states.count(state) for state in ("robust", "broken", "fragile"))
        lost = row["measures"].get("fidelity_drop")
        board.append({
            "name": row["name"], "robust": states.count("robust"), "broken": states.count("broken") + states.count("fragile"), "decided": decided,
            "useless": states.count("useless"), "drop": None if lost is None else lost["value"],
            "share": states.count("robust") / decided if decided else None,
        })  # fmt: skip
    return sorted(board, key=lambda entry: (-(entry["share"] if entry["share"] is not None else -1.0), entry["name"]))
