"""Section: what a thief would get, next to what he could have trained honestly."""

from __future__ import annotations

from typing import Any

from modelward.audit.plan import Plan, budget_of, theft_epochs
from modelward.audit.question import Ground
from modelward.audit.section import percent, rows_of, section
from modelward.evaluation.engine import Run
from modelward.evaluation.work_theft import MAX_DROP

USEFUL_GAIN = 0.02


def theft_section(ground: Ground, plan: Plan, run: Run) -> dict[str, Any]:
    """Say how much a theft saves the thief."""
    rows = _rows(ground, plan, run)
    if not rows:
        return section("theft", "Theft", "not tested", "No theft was run.", flags=sorted(set(run.failed.values())))
    owner = rows_of(run, plan.single["clean"])
    useful = [row for row in rows if row["extra"]["useful"]]
    gains = [row for row in useful if row["extra"]["from_scratch"] is None or row["value"] > row["extra"]["from_scratch"] + USEFUL_GAIN]
    kinds = list(dict.fromkeys(row["extra"]["group"] for row in gains))
    lead = (
        f"{len(useful)} of {len(rows)} thefts lose at most {MAX_DROP * 100:.0f} points against your model"
        f"{f' ({percent(owner[0])})' if owner else ''}; {len(gains)} of them beat honest training at the same budget ({', '.join(kinds) or 'none'})."
    )
    checks = [
        {"name": row["attack"], "status": "flagged", "text": f"{row['budget'] or 'default'}: lost {row['extra']['drop'] * 100:.1f} points",
         "fix": "such a thief is useless and is not counted as a success of the fingerprint"}
        for row in rows if not row["extra"]["useful"]
    ]  # fmt: skip
    return section(
        "theft", "Theft: what a copy is worth", "flagged" if gains else "passed", lead, rows=rows, checks=checks, plots=[_bars(rows)],
        not_tested=["Thieves with more images, more time or another kind of data than the attacker's part.",
                    "Fine-pruning, distillation with a temperature, adversarial extraction, ensembles and combined attacks."],
    )  # fmt: skip


def _rows(ground: Ground, plan: Plan, run: Run) -> list[dict[str, Any]]:
    """Return one row per theft, with the accuracy of training from scratch at its budget."""
    found = []
    for spec, cell in plan.thieves:
        for row in rows_of(run, cell):
            scratch = plan.scratch.get(budget_of(ground, spec))
            reference = rows_of(run, scratch) if scratch else []
            row["extra"]["from_scratch"] = reference[0]["value"] if reference else None
            row["extra"]["from_scratch_epochs"] = theft_epochs(spec)
            found.append(row)
    return found


def _bars(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the thieves' accuracy as bars, with the honest reference as a tick."""
    items = []
    for row in rows:
        bar = {
            "name": f"{row['extra']['group']} {row['budget']}".strip(),
            "value": row["value"],
            "low": row["ci_low"],
            "high": row["ci_high"],
        }
        if row["extra"]["from_scratch"] is not None:
            bar["reference"] = row["extra"]["from_scratch"]
        items.append(bar)
    return {
        "kind": "bars",
        "title": "Accuracy of each thief; the tick is training from scratch at its budget",
        "x_label": "accuracy",
        "items": items,
    }
