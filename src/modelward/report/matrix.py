"""From rows to the matrix: what each protection shows before and after each attack. Nothing but rows is read, so the page can be made again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelward.core.claims import Claim
from modelward.report.pooling import pooled_cell, pooled_measure

Row = Mapping[str, Any]
MAX_DROP = 0.05
# metric of a row, what the column is called, the largest value that passes, in words how it is shown
COLUMNS: tuple[tuple[str, str, float | None], ...] = (
    ("fidelity_drop", "accuracy lost", 0.02),
    ("verification", "verifies", None),
    ("false_claims", "false claims, bound", None),
    ("strangers_accused", "strangers accused", 0.0),
    ("key_specificity", "other keys fit", 0.01),
    ("forged_key_fits", "forged key fits", None),
    ("stealth", "stands out", None),
    ("capacity_bits", "bits", None),
    ("queries", "queries", None),
    ("protect_seconds", "seconds to protect", None),
)
SAME = {"stealth": ("stealth", "key_image_auc")}  # what stands in one column: a mark is in key images or in weights
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
    measures = {metric: pooled_measure(metric, [part["measures"][metric] for part in parts]) for metric, _, _ in COLUMNS}
    cells = {attack: pooled_cell([part["cells"][attack] for part in parts]) for attack in attacks}
    verdicts = [held(claim, cells, measures) for claim in said]
    return {"name": name, "measures": measures, "cells": cells, "said": [vars(claim) for claim in said], "claims": verdicts}


def _of_seed(own: Sequence[Row], attacks: Sequence[str], lost: Mapping[str, str]) -> dict[str, Any]:
    """Return the measurements and the cells of one protection with one seed."""
    measures = {metric: next((row for row in own if row["metric"] in SAME.get(metric, (metric,))), None) for metric, _, _ in COLUMNS}
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
    return {"state": state, "why": "", "points": len(points), "worst": worst, "break_cost": cost}


def held(claim: Claim, cells: Mapping[str, Mapping[str, Any]], measures: Mapping[str, Any]) -> dict[str, Any]:
    """Return what became of a claim: ``holds``, ``violated`` or ``not tested``; without rows it is never more than not tested.

    Examples
    --------
    >>> claim = Claim("survives pruning", attack="prune")
    >>> [held(claim, cells, {})["verdict"] for cells in ({}, {"prune": {"state": "robust"}}, {"prune": {"state": "broken"}})]
    ['not tested', 'holds', 'violated']
    """
    verdict = "not tested"
    if claim.attack:
        state = cells.get(claim.attack, {}).get("state", "not tested")
        verdict = {"robust": "holds", "broken": "violated", "fragile": "violated"}.get(state, "not tested")
    elif claim.metric:
        row = measures.get(claim.metric)
        if row is not None and row["value"] is not None:
            verdict = "holds" if row["value"] <= claim.most else "violated"
    return {"text": str(claim), "source": claim.source, "verdict": verdict, "attack": claim.attack, "metric": claim.metric}


def shown(metric: str, row: Row | None) -> str:
    """Return a measurement as it stands in the table; empty when it was not made.

    Examples
    --------
    >>> shown("fidelity_drop", {"value": 0.012, "n": 1000, "extra": {}}), shown("queries", None)
    ('1.2', '')
    """
    if row is None or row["value"] is None:
        return ""
    extra = row["extra"]
    if metric == "verification":
        p = extra.get("p")
        return ("yes" if extra.get("matches") else "no") + (f", p {p:.2g}" if p is not None else "")
    if metric == "false_claims":
        return f"{extra['bound']:.0%}" if extra.get("bound") is not None else ""
    if metric in {"strangers_accused", "key_specificity"}:
        return f"{round(row['value'] * row['n'])} of {row['n']}"
    if metric == "forged_key_fits":
        return "yes" if row["value"] else "no"
    if metric == "fidelity_drop":
        return f"{100 * row['value']:.1f}"
    return _stands_out(row) if metric == "stealth" else f"{row['value']:,.0f}"


def _stands_out(row: Row) -> str:
    """Return how a mark gives itself away: key images by an AUC, weights by the p of their histogram, with the smallest of layers that carry none."""
    if row["metric"] == "key_image_auc":
        return f"AUC {row['value']:.2f}"
    other = row["extra"].get("least_unmarked_p")
    return f"{row['unit']} {row['value']:.2g}" + (f", other layers {other:.2g}" if other is not None else "")


def passes(metric: str, row: Row | None) -> bool | None:
    """Return whether a measurement passes its gate; ``None`` where there is no gate, or nothing was measured."""
    gate = next(most for name, _, most in COLUMNS if name == metric)
    if row is None or row["value"] is None:
        return None
    if metric == "verification":
        return bool(row["extra"].get("matches"))
    return None if gate is None else bool(row["value"] <= gate)


def csv_rows(matrix: Mapping[str, Any]) -> Iterable[list[str]]:
    """Yield the matrix as lines of a table: a header, then one line a protection."""
    yield ["protection", *(title for _, title, _ in COLUMNS), *matrix["attacks"]]
    for row in matrix["rows"]:
        measured = [shown(metric, row["measures"][metric]) for metric, _, _ in COLUMNS]
        yield [
            row["name"],
            *measured,
            *(("" if cell["state"] == "not tested" else cell["state"]) for cell in (row["cells"][a] for a in matrix["attacks"])),
        ]


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
