"""SAC-JC: what the papers claim of sample correlation, against a farm of thieves and independent models."""

from __future__ import annotations

from typing import Any

import torch

from modelward.evaluation.engine import Engine
from modelward.evaluation.store import Store
from modelward.ownership.correlation import correlation, distance
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
from modelward.reproduce.theft_farm import Configuration, Farm, accusers, assessments, make_farm, source_accuracy

TARGETS = {"FTAL": 0.95, "FTLL": 0.95, "prune": 0.95, "extract-P": 0.90, "extract-L": 0.95}
LABEL_TARGET = 0.90


PAPER = {"variant": "paper", "count": 800}
NAMED: dict[str, Configuration] = {
    "hardened": ("sac-jc", {}, "weights"),
    "hardened, labels only": ("sac-jc", {}, "label"),
    "paper (SAC-JC, logits)": ("sac-jc", PAPER, "weights"),
    "paper, softmax": ("sac-jc", {**PAPER, "view": "softmax"}, "weights"),
    "paper, labels": ("sac-jc", {**PAPER, "view": "label"}, "weights"),
    "paper (SAC-w, logits)": ("sac", {"variant": "paper"}, "weights"),
    "paper (SAC-m, logits)": ("sac", {"variant": "paper", "probes_from": "cutmix"}, "weights"),
    "paper (SAC-normal, logits)": ("sac", {"variant": "paper", "probes_from": "normal"}, "weights"),
    "hardened, view temp_c": ("sac-jc", {"view": "temp_c"}, "weights"),
    "hardened, view softmax": ("sac-jc", {"view": "softmax"}, "weights"),
    "hardened, view logits": ("sac-jc", {"view": "logits"}, "weights"),
    "hardened, wrong images only": ("sac-jc", {"probes_from": "wrong"}, "weights"),
    "hardened, JPEG only (severities 1 and 4)": ("sac-jc", {"probes_from": "disputed"}, "weights"),
    "hardened, JPEG only, labels only": ("sac-jc", {"probes_from": "disputed"}, "label"),
    "hardened, images that nobody chose": ("sac-jc", {"probes_from": "normal"}, "weights"),
    "hardened, uncompressed": ("sac-jc", {"probes_from": "disputed", "severities": [0]}, "weights"),
    "hardened, JPEG severity 1 only": ("sac-jc", {"probes_from": "disputed", "severities": [1]}, "weights"),
    "hardened, blur only": ("sac-jc", {"probes_from": "disputed", "corruption": "gaussian_blur"}, "weights"),
    "hardened, noise only": ("sac-jc", {"probes_from": "disputed", "corruption": "gaussian_noise"}, "weights"),
    "hardened, contrast only": ("sac-jc", {"probes_from": "disputed", "corruption": "contrast"}, "weights"),
    "control: noise images as probes": ("sac-jc", {"probes_from": "noise", "count": 1000}, "weights"),
}


def sac_jc(*, profile: str, seed: int, store: Store, jobs: int | None, command: str) -> dict[str, Any]:
    """Measure every view and variant of SAC and SAC-JC on one farm; return the results document."""
    engine = Engine(store, jobs=jobs)
    farm = make_farm(profile, seed, engine)
    names = tuple(NAMED) if profile != "smoke" else tuple(NAMED)[:3]
    cells, accusing = assessments(farm, [NAMED[name] for name in names]), accusers(farm, NAMED["hardened"])
    run = engine.run([*cells, accusing], task="fingerprints")
    rows, accused = rows_by_name(run, names, cells), run.of(accusing)
    return _document(farm, rows, accused.rows if accused else [], 1 - source_accuracy(farm, engine), profile, command)


def anchors() -> dict[str, float]:
    """Return the distance of two fixed sets of logits: 0.076824, halved 0.038412."""
    first, second = (torch.sin(scale * torch.arange(40, dtype=torch.float64)).view(8, 5) for scale in (1.0, 1.01))
    value = distance(correlation(first), correlation(second))
    return {"distance": round(value, 6), "halved": round(value / 2, 6)}


def _document(farm: Farm, rows: dict[str, Rows], accused: Rows, error: float, profile: str, command: str) -> dict[str, Any]:
    """Return the results document: paragraphs, tables and all rows."""
    main = rows["hardened"]
    paragraphs = [
        (
            "Guan et al., SAC (NeurIPS 2022, arXiv 2210.15427) and SAC-JC (IJCV, arXiv 2412.20768). The papers report near-perfect AUC; their tables "
            "could not be read in full, so the gates below are this project's own."
        ),
        f"{farm.words(error)} Anchors {anchors()['distance']} and {anchors()['halved']}.",
        calibration_words(main),
    ]
    if profile == "full":
        paragraphs.append(
            "Gates are read on the lower end of the interval. Where every thief stands before every independent model that end is .025^(1/n) for n "
            "thieves: .54 for 6, .95 from 72 on. The point estimates are in the same column."
        )
    if profile == "smoke":
        paragraphs.insert(0, SMOKE)
    views = [auc_line(name, found) for name, found in rows.items() if found]
    gates = _gates(main, rows["hardened, labels only"], error, profile, accused)
    tables = [
        ("Gates", ["figure", "target", "measured", "thieves", "met"], gates),
        ("AUC of each group of thieves against independent models, every view", ["configuration", *GROUPS, "all"], views),
        (
            "The same, against independent models within 2 points of the thieves' accuracy",
            ["group", "AUC", "independents"],
            matched_lines(main),
        ),
        ("Independent models", ["kind", "accused", "upper bound"], accused_lines(main)),
    ]
    title = f"sac-jc, profile {profile}"
    return {
        "title": title,
        "paragraphs": paragraphs,
        "tables": tables,
        "anchors": anchors(),
        "rows": labelled(rows, profile, command) + accused,
    }


def _gates(main: Rows, labels: Rows, error: float, profile: str, accusations: Rows) -> list[list[object]]:
    """Return the gates: in full they are read on the lower bound of the interval."""
    bound = "ci_low" if profile == "full" else "value"
    found = []
    for source, group, target in [(main, g, t) for g, t in TARGETS.items()] + [
        (labels, "extract-L", LABEL_TARGET),
        (labels, "extract-P", LABEL_TARGET),
    ]:
        row = find_row(source, "auc", group)
        name = f"{group}, labels only" if source is labels else group
        met = row is not None and row[bound] is not None and row[bound] >= target
        found.append([f"AUC {name}", f">= {target}", figure(row), row["extra"]["thieves"] if row else 0, yes(met)])
    found.append(["error of the source", ">= 8 %", f"{error:.1%}", "", yes(error >= 0.08)])
    accused = [row for row in main if row["metric"] == "accused"]
    wrong = sum(round(row["value"] * row["n"]) for row in accused)
    found.append(["reseeds and accuracy-matched models accused", "0", str(wrong), sum(row["n"] for row in accused), yes(not wrong)])
    for row in accusations:
        won = round(row["value"] * row["n"])
        found.append(["unrelated accusers who win", "0", str(won), row["n"], yes(not won)])
    return found
