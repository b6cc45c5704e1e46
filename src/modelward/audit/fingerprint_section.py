"""Section: how well this model's thieves would be recognised, and how often an independent model would be accused."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelward.audit.plan import Plan
from modelward.audit.question import Ground
from modelward.audit.section import rows_of, section
from modelward.core.deciding import DRAWS
from modelward.core.verdict import ALPHA
from modelward.evaluation.engine import Run
from modelward.statistics import binomial_p, roc

GOOD_AUC = 0.95


def fingerprint_section(ground: Ground, plan: Plan, run: Run) -> dict[str, Any]:
    """Say whether a thief can be told from a stranger."""
    del ground
    parts = [rows_of(run, cell) for cell in plan.fingerprints]
    rows = [row for part in parts for row in part]
    main = parts[0] if parts else []
    if not parts:
        return section("fingerprint", "Recognising thieves", "not tested", "Thieves were not fingerprinted.")
    if not main:
        why = next((run.failed[cell.key] for cell in plan.fingerprints if cell.key in run.failed), "a model of the farm failed")
        return section("fingerprint", "Recognising thieves", "not tested", f"Thieves could not be fingerprinted: {why}.")
    total = next((row for row in main if row["metric"] == "auc" and row["attack"] == "all thieves"), None)
    caught = next((row for row in main if row["metric"] == "recognised"), None)
    false = next(row for row in main if row["metric"] == "false_claims")
    if total is None or caught is None:
        return section(
            "fingerprint", "Recognising thieves", "not tested", "No theft kept enough accuracy to be worth recognising.", rows=rows
        )
    drawn = false["extra"]["draws"]
    if drawn < DRAWS[0]:
        lead = f"Thieves and strangers are told apart with AUC {total['value']:.3f}, but {drawn} siblings are too few for a verdict."
    else:
        approximate = plan.family is not None and plan.family.about.origin == "matched"
        lead = (
            f"{main[0]['method'].upper()} recognises {round(caught['value'] * caught['n'])} of {caught['n']} thieves (AUC {total['value']:.3f} "
            f"[{total['ci_low']:.3f}, {total['ci_high']:.3f}]) by the rank of this model among {drawn} siblings, and {_count(false)}."
            f"{_APPROXIMATE if approximate else ''}"
        )
    weak = [row["attack"] for row in main if row["metric"] == "auc" and row["value"] < GOOD_AUC]
    checks = [
        {"name": row["attack"], "status": "passed" if row["value"] >= GOOD_AUC else "flagged",
         "text": f"AUC {row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}] over {row['extra']['thieves']} thieves", "fix": ""}
        for row in main if row["metric"] == "auc"
    ]  # fmt: skip
    checks += [_beside(rows, cell.settings["access"]) for rows, cell in zip(parts[1:], plan.fingerprints[1:], strict=True) if rows]
    often = round((false["value"] or 0) * false["n"]) > _most(false["n"])
    status = "flagged" if weak or often else "passed"
    return section(
        "fingerprint", f"Recognising thieves: {main[0]['method'].upper()}", status, lead, rows=rows, checks=checks,
        plots=[_strip(main), _strip(main, kind="histogram"), _roc(main, total)],
        not_tested=["Thieves who change answers on purpose: rounding, noise, detectors, ensembles.", "Transfer to other classes, adversarial extraction.",
                    "An owner who chooses probes after seeing the suspect: commit to the key first."],
    )  # fmt: skip


_APPROXIMATE = (
    " The file does not say how the model was trained: the siblings are by another recipe that reaches its accuracy, an approximation."
)


def _beside(rows: list[dict[str, Any]], access: str) -> dict[str, str]:
    """Return how many thieves another fingerprint recognises, of those that it can be read from."""
    caught = next((row for row in rows if row["metric"] == "recognised"), None)
    false = next(row for row in rows if row["metric"] == "false_claims")
    found = "no thief can be read" if caught is None else f"{round(caught['value'] * caught['n'])} of {caught['n']} thieves recognised"
    text = f"{found}, {round((false['value'] or 0) * false['n'])} of {false['n']} independent models accused"
    unread = next((row for row in rows if row["metric"] == "unreadable"), None)
    if unread is not None:
        text += f"; {round(unread['value'] * unread['n'])} of {unread['n']} suspects cannot be read by it"
    return {"name": f"{rows[0]['method']}, by {access}", "status": "passed", "text": text, "fix": ""}


def _most(n: int) -> int:
    """Return how many of n independent models a test at 5 % accuses at most, in 95 of 100 runs."""
    return next(k for k in range(n + 1) if binomial_p(k + 1, n, ALPHA) <= ALPHA)


def _count(false: dict[str, Any]) -> str:
    """Return the false claims in words."""
    accused = round((false["value"] or 0) * false["n"])
    if not false["n"]:
        return "no independent models were there to count false claims on"
    return f"accuses {accused} of {false['n']} independent models (95 % upper bound {false['extra']['bound']:.0%}; one in twenty is to be expected)"


def _strip(rows: list[dict[str, Any]], kind: str = "strip") -> dict[str, Any]:
    """Return the distances by group, thieves against independents."""
    groups: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row["metric"] == "statistic":
            side = "independent" if row["extra"]["side"] == "independent" else "stolen" if row["extra"]["useful"] else "gated"
            groups.setdefault((row["extra"]["group"], side), []).append(row["value"])
    return {
        "kind": kind, "title": "Distance to the source: thieves and independent models", "x_label": rows[0]["budget"],
        "groups": [{"name": f"{name} (useless)" if side == "gated" else name, "side": side, "values": values} for (name, side), values in groups.items()],
        "threshold": None, "note": "What decides is not the distance but the rank of this model's among those of its siblings. Useless thieves lost more "
        "than 5 points.",
    }  # fmt: skip


def _roc(rows: list[dict[str, Any]], total: dict[str, Any]) -> dict[str, Any]:
    """Return the ROC of useful thieves against independent models."""
    statistics = [row for row in rows if row["metric"] == "statistic"]
    thieves = np.array([-r["value"] for r in statistics if r["extra"]["side"] == "thief" and r["extra"]["useful"]])
    strangers = np.array([-r["value"] for r in statistics if r["extra"]["side"] == "independent"])
    fpr, tpr, _ = roc(thieves, strangers)
    return {
        "kind": "roc", "title": "Thieves against independent models", "fpr": [float(v) for v in fpr], "tpr": [float(v) for v in tpr], "auc": total["value"],
        "low": total["ci_low"], "high": total["ci_high"], "n_pos": len(thieves), "n_neg": len(strangers),
    }  # fmt: skip
