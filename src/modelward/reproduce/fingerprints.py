"""IPGuard and CAE beside SAC and SAC-JC: every fingerprint on the same farm, in the same table."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelward.core.deciding import DRAWS
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine, Run
from modelward.evaluation.rows import from_interval
from modelward.evaluation.store import Store
from modelward.ownership.matching import robustness_uniqueness
from modelward.reproduce.fingerprint_tables import (
    GROUPS,
    SMOKE,
    Rows,
    accused_lines,
    auc_line,
    calibration_words,
    find_row,
    labelled,
    matched_lines,
    rows_by_name,
    yes,
)
from modelward.reproduce.tables import figure
from modelward.reproduce.theft_farm import Configuration, Farm, assessments, make_farm, source_accuracy
from modelward.statistics import Interval, bootstrap_two_sample

DISTANCES = (0.0, 1.0, 3.0, 10.0, 30.0)
CURVE = "ipguard, paper, k = {:g}"
# 60 steps of .01 reach as far as the paper's 300 of .005: both may cross the whole radius
CRAFT = {"steps": 60, "lr": 0.01}
NAMED: dict[str, Configuration] = {
    "sac-jc": ("sac-jc", {}, "weights"),
    "sac-jc, labels only": ("sac-jc", {}, "label"),
    "sac": ("sac", {}, "weights"),
    "sac, labels only": ("sac", {}, "label"),
    "ipguard": ("ipguard", {}, "label"),
    "cae": ("cae", CRAFT, "label"),
    "cae, paper": ("cae", {**CRAFT, "variant": "paper"}, "label"),
    **{CURVE.format(k): ("ipguard", {"variant": "paper", "k": k}, "label") for k in DISTANCES},
    "ipguard, paper, starts from noise": ("ipguard", {"variant": "paper", "start": "noise"}, "label"),
    "control: images that nothing was done to": ("ipguard", {"variant": "paper", "steps": 0}, "label"),
    "control: noise images": ("ipguard", {"variant": "paper", "steps": 0, "start": "noise"}, "label"),
}
SMALL: dict[str, dict[str, Any]] = {
    "ipguard": {"steps": 100, "lr": 0.02, "pool": 2},
    "cae": {"steps": 15, "lr": 0.02, "surrogates": 2, "epochs": 3, "mixes": 0, "pool": 1},
}
SMOKED = ("sac-jc, labels only", "ipguard", "cae", CURVE.format(1), CURVE.format(10), "control: noise images")
MATCHING = ("ipguard", "cae", "cae, paper", CURVE.format(10))
EXTRACTIONS = ("extract-P", "extract-L")


def fingerprints(*, profile: str, seed: int, store: Store, jobs: int | None, command: str) -> dict[str, Any]:
    """Measure SAC, SAC-JC, IPGuard and CAE on one farm; return the results document."""
    engine = Engine(store, jobs=jobs)
    farm = make_farm(profile, seed, engine)
    chosen = NAMED if profile != "smoke" else {name: _small(NAMED[name]) for name in SMOKED}
    cells = dict(zip(chosen, assessments(farm, list(chosen.values())), strict=True))
    run = engine.run(list(cells.values()), task="fingerprints")
    rows = {name: found for name, found in rows_by_name(run, list(cells), list(cells.values())).items() if found}
    return _document(farm, rows, cells, run, 1 - source_accuracy(farm, engine), profile, command)


def _small(configuration: Configuration) -> Configuration:
    """Return a configuration that takes seconds."""
    method, fields, access = configuration
    return method, {**SMALL.get(method, {}), **fields, **({"steps": 15} if method == "cae" else {})}, access


def rates(rows: Rows, *groups: str, side: str = "thief") -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the matching rates in [0, 1] of the suspects on one side: useful thieves of ``groups`` (all, when none is named), or independents.

    >>> thief = {"metric": "statistic", "value": 0.25, "extra": {"side": "thief", "group": "FTAL", "useful": True}}
    >>> rates([thief], "FTAL").tolist(), rates([thief], "prune").tolist()
    ([0.75], [])
    """
    found = [
        1 - row["value"]
        for row in rows
        if row["metric"] == "statistic" and row["extra"]["side"] == side and row["extra"]["useful"]
        and (not groups or row["extra"]["group"] in groups)
    ]  # fmt: skip
    return np.clip(np.array(found, dtype=np.float64), 0, 1)


def gap(rows: Rows) -> Interval | None:
    """Return how much more of the probes extracted models match than independent ones, with a bootstrap over models."""
    copies, others = rates(rows, *EXTRACTIONS), rates(rows, side="independent")
    if not len(copies) or not len(others):
        return None
    return bootstrap_two_sample(copies, others, lambda a, b: float(a.mean() - b.mean()), rng=np.random.default_rng(0))


def trade_off(rows: Rows) -> Interval | None:
    """Return the area under the robustness-uniqueness curve over all useful thieves, with a bootstrap over models."""
    copies, others = rates(rows), rates(rows, side="independent")
    if not len(copies) or not len(others):
        return None
    return bootstrap_two_sample(copies, others, lambda a, b: robustness_uniqueness(a, b)[1], rng=np.random.default_rng(0), resamples=500)


def _document(
    farm: Farm, rows: dict[str, Rows], cells: dict[str, Cell], run: Run, error: float, profile: str, command: str
) -> dict[str, Any]:
    """Return the results document: paragraphs, tables and all rows."""
    paragraphs = [
        (
            "Cao, Jia, Gong: IPGuard (AsiaCCS 2021, arXiv 1910.12903); Lukas, Zhang, Kerschbaum: conferrable adversarial examples (ICLR 2021, arXiv "
            "1912.00888); beside SAC (arXiv 2210.15427) and SAC-JC (arXiv 2412.20768). One source, one farm, the same suspects for all."
        ),
        farm.words(error),
        (
            f"CAE crafts with {CRAFT['steps']} steps of {CRAFT['lr']} where the paper takes 300 of .005, and trains its surrogates on the images that it "
            "enrols with. Its gap is measured on the farm's extractions, which learnt from other and more images than those surrogates."
        ),
        *(f"{name}: {calibration_words(found)}" for name, found in rows.items() if name in {*MATCHING, "sac-jc", "sac-jc, labels only"}),
    ]
    extra = _extra_rows(rows)
    matched = [[name, *line] for name, found in rows.items() if name in MATCHING for line in matched_lines(found)]
    accused = [[name, *line] for name, found in rows.items() if name in MATCHING for line in accused_lines(found)]
    tables = [
        ("Gates", ["figure", "target", "measured", "n", "met"], _gates(rows, extra)),
        ("AUC of each group of thieves against independent models", ["fingerprint", *GROUPS, "all"], [auc_line(n, f) for n, f in rows.items()]),
        ("What each costs and claims", ["fingerprint", "access", "queries", "recognised", "false claims", "bound", "seconds"],
         [_cost(name, found, cells[name], run) for name, found in rows.items()]),
        ("Mean matching rate, and the trade-off over k", ["fingerprint", *GROUPS, "independent", "area under the curve (ARUC)"],
         [_mean_rates(name, found, extra) for name, found in rows.items() if found[0]["method"] in SMALL]),
        ("AUC against independent models within 2 points of the thieves' accuracy", ["fingerprint", "group", "AUC", "independents"], matched),
        ("Independent models", ["fingerprint", "kind", "accused", "upper bound"], accused),
    ]  # fmt: skip
    every = {name: [*found, *(row for row in extra if row["configuration"] == name)] for name, found in rows.items()}
    return {"title": f"fingerprints, profile {profile}", "paragraphs": [SMOKE, *paragraphs] if profile == "smoke" else paragraphs, "tables": tables,
            "rows": labelled(every, profile, command)}  # fmt: skip


def _extra_rows(rows: dict[str, Rows]) -> Rows:
    """Return the rows that compare suspects of a configuration: its gap and its area under the robustness-uniqueness curve."""
    made: Rows = []
    for name, found in rows.items():
        if found[0]["method"] not in SMALL:
            continue
        for metric, interval in (("matching_gap", gap(found)), ("aruc", trade_off(found))):
            if interval is not None:
                common = {key: found[0][key] for key in ("method", "variant", "budget", "seed")}
                attack = "extractions" if metric == "matching_gap" else "all thieves"
                made.append({**from_interval(metric, interval, attack=attack, **common).as_json(), "configuration": name})
    return made


def _cost(name: str, rows: Rows, cell: Cell, run: Run) -> list[object]:
    """Return access, queries, decisions and seconds of one configuration."""
    false, caught = next(row for row in rows if row["metric"] == "false_claims"), find_row(rows, "recognised", "all thieves")
    finished = run.of(cell)
    decided = false["extra"]["draws"] >= DRAWS[0]
    return [
        name, cell.settings["access"], rows[0]["n"],
        figure(caught) if decided else "undecided", f"{round((false['value'] or 0) * false['n'])} of {false['n']}" if false["n"] else "-",
        f"{false['ci_high']:.1%}" if false["n"] else "-", f"{finished.seconds:.0f}" if finished else "-",
    ]  # fmt: skip


def _mean_rates(name: str, rows: Rows, extra: Rows) -> list[object]:
    """Return the mean matching rate of each group, and the area under the curve."""
    groups = [rates(rows, group) for group in GROUPS] + [rates(rows, side="independent")]
    area = next((row for row in extra if row["configuration"] == name and row["metric"] == "aruc"), None)
    return [name, *(f"{group.mean():.2f}" if len(group) else "-" for group in groups), figure(area)]


def _gates(rows: dict[str, Rows], extra: Rows) -> list[list[object]]:
    """Return what the papers' claims come to here: the targets are this project's own."""
    made: list[list[object]] = []
    for name in ("ipguard", "cae"):
        for group in ("FTAL", "FTLL", "prune"):
            row = find_row(rows[name], "auc", group)
            held = row is not None and row["value"] is not None and row["value"] >= 0.95
            made.append([f"{name}: AUC {group}", ">= 0.95", figure(row), row["extra"]["thieves"] if row else 0, yes(held)])
    free = rates(rows[CURVE.format(10)], side="independent")
    made.append(
        ["ipguard, paper, k = 10: mean matching rate of independents", "<= 0.3", f"{free.mean():.2f}", len(free), yes(free.mean() <= 0.3)]
    )
    found = next((row for row in extra if row["configuration"] == "cae" and row["metric"] == "matching_gap"), None)
    wide = found is not None and found["value"] >= 0.4
    made.append(["cae: matching rate of extractions minus independents", ">= 0.4", figure(found), found["n"] if found else 0, yes(wide)])
    return made
