"""InFIP: relevance maps as a fingerprint, the paper's and the repaired ones, against mild, strong and knowing thieves."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelward.core.catalogue import catalogue
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine, Run
from modelward.evaluation.family import family_inputs
from modelward.evaluation.farm import TheftSpec
from modelward.evaluation.rows import from_interval
from modelward.evaluation.store import Store
from modelward.reproduce.fingerprint_tables import SMOKE, Rows, accused_lines, calibration_words, find_row, labelled, rows_by_name, yes
from modelward.reproduce.tables import figure
from modelward.reproduce.theft_farm import Configuration, Farm, Scale, assessments, make_farm, source_accuracy
from modelward.statistics import auc_delong

SCALES = {
    "smoke": Scale("fashion-mini", 300, "lenet5", "mlp", 1),
    "quick": Scale("fashion-mini", None, "lenet5", "cnn", 3),
    "full": Scale("cifar10-jpeg", 10_000, "cnn", "resnet8", 6),
}
MILD = ("FTAL", "FTLL", "prune <= .5", "quantise", "overwritten: uchida", "overwritten: adi")
STRONG, DISTILLED = ("fine-tune, 20 epochs at .05", "RTAL", "prune .7"), ("distil", "extract-P", "extract-L")
ADAPTIVE = ("push-maps, dtd", "push-maps, epsilon", "dummy-channels", "shift-logits", "rescale", "permute")
NAMED: dict[str, Configuration] = {
    "hardened": ("infip", {}, "weights"),
    "paper": ("infip", {"variant": "paper"}, "weights"),
    "hardened, dtd": ("infip", {"rules": ["dtd"]}, "weights"),
    "hardened, dtd, chosen probes": ("infip", {"rules": ["dtd"], "pool": 8}, "weights"),
    "hardened, chosen probes": ("infip", {"pool": 8}, "weights"),
    "hardened, w2": ("infip", {"rules": ["w2"]}, "weights"),
    "hardened, alpha2-beta1": ("infip", {"rules": ["alpha2-beta1"]}, "weights"),
    "hardened, dtd and epsilon": ("infip", {"rules": ["dtd", "epsilon"]}, "weights"),
}
SMOKED = ("hardened", "paper")


def infip(*, profile: str, seed: int, store: Store, jobs: int | None, command: str) -> dict[str, Any]:
    """Measure InFIP on a farm of its own; return the results document."""
    engine = Engine(store, jobs=jobs)
    farm = make_farm(profile, seed, engine, scales=SCALES, chosen=chosen)
    names = SMOKED if profile == "smoke" else tuple(NAMED)
    cells = assessments(farm, [NAMED[name] for name in names])
    curves = {name: _cascade(farm, cell) for name, cell in zip(names, cells, strict=True) if name in {*SMOKED, "hardened, dtd"}}
    run = engine.run([*cells, *curves.values()], task="relevance maps")
    rows = rows_by_name(run, names, cells)
    for name, cell in curves.items():
        finished = run.of(cell)
        rows[name] = [*rows[name], *(finished.rows if finished else [])]
    return _document(farm, {name: found for name, found in rows.items() if found}, run, 1 - source_accuracy(farm, engine), profile, command)


def chosen(scale: Scale, copies: int) -> list[TheftSpec]:
    """Return the thefts of the card: mild, strong, distilled, and those of somebody who knows the method.

    >>> groups = {spec.group for spec in chosen(SCALES["quick"], 1)}
    >>> groups <= {*MILD, *STRONG, *DISTILLED, *ADAPTIVE}
    True
    """
    trained: list[tuple[str, str, dict[str, Any], str, str | None]] = [
        ("ftal", "FTAL", {}, "true", None), ("ftll", "FTLL", {}, "true", None),
        ("ftal", STRONG[0], {"lr": 0.05, "epochs": 20}, "true", None), ("rtal", "RTAL", {}, "true", None),
        ("distil", "distil", {}, "stolen", scale.arch), ("extract-p", "extract-P", {}, "stolen", scale.arch),
        ("extract-l", "extract-L", {}, "stolen", scale.other),
        *(("push-maps", f"push-maps, {rule}", {"rule": rule}, "true", None) for rule in ("dtd", "epsilon")),
    ]  # fmt: skip
    if scale == SCALES["smoke"]:
        trained = [(method, group, {**fields, "epochs": 1}, labels, arch) for method, group, fields, labels, arch in trained]
    marks = () if scale == SCALES["smoke"] else [mark for mark in ("uchida", "adi") if mark in catalogue()]
    trained += [("overwrite", f"overwritten: {mark}", {"method": mark}, "stolen", None) for mark in marks]
    made = [TheftSpec(method, group, fields, labels, arch, i) for method, group, fields, labels, arch in trained for i in range(copies)]
    made += [TheftSpec("prune", "prune <= .5", {"sparsity": sparsity}, "none") for sparsity in (0.1, 0.3, 0.5)]
    made += [TheftSpec("quantise", "quantise", {"bits": bits}, "none") for bits in (8, 4)] + [
        TheftSpec("prune", "prune .7", {"sparsity": 0.7}, "none")
    ]
    return made + [TheftSpec(name, name, {}, "none") for name in ADAPTIVE[2:]]


def _cascade(farm: Farm, cell: Cell) -> Cell:
    """Return the cell that randomises the source layer by layer under one configuration."""
    members, told = family_inputs(farm.family, farm.ground.parts["owner"])
    return Cell(
        work="modelward.evaluation.work_cascade:cascade", settings={**{key: cell.settings[key] for key in ("method", "fields")}, **told}, seed=cell.seed,
        inputs={"victim": farm.ground.victim, "probes": farm.ground.parts["probes"], **members}, label="cascading randomisation", seconds=20, uses=cell.uses,
    )  # fmt: skip


def grouped(rows: Rows, groups: tuple[str, ...], *, useful: bool = True) -> list[dict[str, Any]]:
    """Return the statistic rows of the thieves in ``groups``."""
    found = [row for row in rows if row["metric"] == "statistic" and row["extra"]["side"] == "thief" and row["extra"]["group"] in groups]
    return [row for row in found if row["extra"]["useful"]] if useful else found


def mild_row(rows: Rows) -> dict[str, Any] | None:
    """Return the AUC of all mild thieves together against the null models."""
    thieves = grouped(rows, MILD)
    nulls = [-row["value"] for row in rows if row["metric"] == "statistic" and row["extra"]["side"] == "independent"]
    if not thieves or not nulls:
        return None
    interval = auc_delong(np.array([-row["value"] for row in thieves]), np.array(nulls))
    common = {key: thieves[0][key] for key in ("method", "variant", "budget", "seed")}
    extra = {"thieves": len(thieves), "independents": len(nulls)}
    return from_interval("auc", interval, attack="all mild thieves", unit="auc", **common, extra=extra).as_json()


def _line(name: str, rows: Rows, group: str) -> list[object]:
    """Return how one group of thieves fares under one configuration."""
    found = grouped(rows, (group,), useful=False)
    if not found:
        return [name, group, "not tested", "-", "-", "-", "-"]
    caught, least = sum(row["extra"]["matches"] for row in found), min(row["extra"]["accuracy"] for row in found)
    values = [1 - row["value"] for row in found]
    useful = sum(row["extra"]["useful"] for row in found)
    return [
        name,
        group,
        figure(find_row(rows, "auc", group)),
        f"{min(values):.2f} .. {max(values):.2f}",
        f"{caught} of {len(found)}",
        f"{least:.3f}",
        useful,
    ]


def _document(farm: Farm, rows: dict[str, Rows], run: Run, error: float, profile: str, command: str) -> dict[str, Any]:
    """Return the results document: paragraphs, tables and all rows."""
    del run
    mild = {name: mild_row(found) for name, found in rows.items()}
    paragraphs = [
        "InFIP (arXiv 2210.07481). Of the paper's tables none could be read: its claims are qualitative, and the gates are this project's own.",
        farm.words(error),
        "The default of the hardened variant was chosen on a study and farm of another seed.",
        *(f"{name}: {calibration_words(found)}" for name, found in rows.items()),
    ]
    thefts = ["fingerprint", "thieves", "AUC", "score", "matched", "least accuracy", "useful"]
    tables = [
        ("Gates", ["figure", "target", "measured", "n", "met"], _gates(rows, mild)),
        ("Mild thieves together, against the null models", ["fingerprint", "AUC", "score of null models"],
         [[name, figure(mild[name]), _null_range(found)] for name, found in rows.items()]),
        *((caption, thefts, [_line(name, found, group) for group in groups for name, found in rows.items()])
          for caption, groups in (("Mild thieves", MILD), ("Strong thieves", STRONG), ("Models that learnt the source's answers", DISTILLED),
                                  ("Thieves who know the method", ADAPTIVE))),
        ("Last layers drawn anew", ["fingerprint", "layers", "score", "matches"],
         [[name, row["attack"], f"{1 - row['value']:.2f}", yes(row["extra"]["matches"]).strip("*")] for name, found in rows.items()
          for row in found if row["metric"] == "cascade"]),
        ("Independent models", ["fingerprint", "kind", "matched", "upper bound"],
         [[name, *line] for name, found in rows.items() for line in accused_lines(found)]),
    ]  # fmt: skip
    every = {name: [*found, *(row for row in (mild[name],) if row is not None)] for name, found in rows.items()}
    return {"title": f"infip, profile {profile}", "paragraphs": [SMOKE, *paragraphs] if profile == "smoke" else paragraphs, "tables": tables,
            "rows": labelled(every, profile, command)}  # fmt: skip


def _null_range(rows: Rows) -> str:
    """Return the range of the null models' scores."""
    values = [1 - row["value"] for row in rows if row["metric"] == "statistic" and row["extra"]["side"] == "independent"]
    return f"{min(values):.2f} .. {max(values):.2f}"


def _gates(rows: dict[str, Rows], mild: dict[str, dict[str, Any] | None]) -> list[list[object]]:
    """Return what was asked for, and what came out."""
    made: list[list[object]] = []
    for name in (name for name in SMOKED if name in rows):
        row, found = mild[name], rows[name]
        made.append(
            [
                f"{name}: AUC of mild thieves",
                ">= 0.95",
                figure(row),
                row["extra"]["thieves"] if row else 0,
                yes(row is not None and row["value"] >= 0.95),
            ]
        )
        false = next(row for row in found if row["metric"] == "false_claims")
        accused = [row for row in found if row["metric"] == "accused"]
        wrong = round((false["value"] or 0) * false["n"]) + sum(round(row["value"] * row["n"]) for row in accused)
        made.append(
            [
                f"{name}: independent models accused",
                "0",
                str(wrong),
                false["n"] + sum(row["n"] for row in accused),
                yes(not wrong),
            ]
        )
        last = [row for row in found if row["metric"] == "cascade" and row["attack"] == "last 1 layers random"]
        made.append([f"{name}: score with a random last layer changes", "yes", f"{1 - last[0]['value']:.2f}" if last else "-", len(last),
                     yes(bool(last) and last[0]["value"] > 0.05)])  # fmt: skip
    return made
