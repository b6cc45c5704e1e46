"""Tables of the recipe `sample-lock`, made from its rows alone."""

from __future__ import annotations

from typing import Any

from modelward.reproduce.advparams_tables import best_scratch, pick, scratch_of
from modelward.reproduce.fingerprint_tables import Rows, yes
from modelward.reproduce.pooling import pooled
from modelward.reproduce.tables import Table, figure

CLASSES = 10
CLOSED = ("wrap-noise", "wrap-blur", "wrap-jpeg", "swapped trigger", "other generator", "label-remap")
OPEN = (
    "surrogate generator",
    "generator from labels",
    "head-surgery",
    "foreign words",
    "noise of equal norm",
    "prune",
    "fine-prune",
    "bn-recalibrate",
)
CLAIMS = {"authorised": "97.67 % (SSAT)", "unauthorised": "1.00 % (SSAT)", "identified": "100 % (SSAT)"}


def tables(rows: Rows) -> list[Table]:
    """Return all tables of the results."""
    made: list[Table] = [
        ("Gates", ["figure", "target", "measured", "n", "met"], gates(rows)),
        ("Who can use the network", ["architecture", "variant", "original", "authorised", "unauthorised", "authorised, one image at a time",
                                     "unauthorised, one image at a time", "authorised, among plain images"], _uses(rows)),
        ("What opens it", ["architecture", "variant", "attempt", "setting", "accuracy", "from scratch", "n", "seeds"], _opened(rows)),
        ("Fine-tuning with true labels, first seed", ["architecture", "variant", "images", "rate", "accuracy", "from scratch, same rate",
                                                      "from scratch, best rate", "n"], _tuned(rows)),
        ("Triggers", ["architecture", "variant", "specificity, one a seed", "PSNR in dB, one a seed"], _looks(rows)),
        ("Users named by one image", ["architecture", "variant", "image kept as", "right", "somebody else", "n", "the paper's claim"], _named(rows)),
    ]  # fmt: skip
    return [table for table in made if table[2]]


def _kinds(rows: Rows) -> list[tuple[str, str]]:
    """Return architectures with variants, in order."""
    return list(dict.fromkeys((row["arch"], row["configuration"]) for row in rows))


def _of(rows: Rows, arch: str, variant: str) -> Rows:
    return [row for row in rows if (row["arch"], row["configuration"]) == (arch, variant)]


def _attempts(rows: Rows) -> dict[tuple[str, str], Rows]:
    """Return attempts without training by name and setting, with one row a seed."""
    found: dict[tuple[str, str], Rows] = {}
    for row in pick(rows, "recovered"):
        if row["attack"] != "ftal":
            found.setdefault((row["attack"], row["budget"]), []).append(row)
    return found


def gates(rows: Rows) -> list[list[object]]:
    """Return what was asked for, and what came out; the gates are the hardened variant's, the paper's are shown beside them."""
    lines: list[list[object]] = []
    for arch, variant in _kinds(rows):
        mine, name = _of(rows, arch, variant), f"{arch}, {variant}"
        original, inside, outside = (pooled(pick(mine, metric)) for metric in ("original", "authorised", "unauthorised"))
        if original is None or inside is None or outside is None:
            continue
        least, most, limit = original["value"] - 0.02, 1 / CLASSES + 0.05, 1 / CLASSES + 0.15
        lines.append([f"{name}: authorised", f">= {least:.3f}", figure(inside), inside["n"], yes(inside["value"] >= least)])
        lines.append([f"{name}: unauthorised", f"<= {most:.2f}", figure(outside), outside["n"], yes(outside["value"] <= most)])
        for (attack, budget), found in _attempts(mine).items():
            if attack in CLOSED or (attack, budget) == ("mean trigger", "strength 1"):
                hits = pooled(found)
                if hits is not None:
                    lines.append(
                        [f"{name}: {attack} {budget}".rstrip(), f"<= {limit:.2f}", figure(hits), hits["n"], yes(hits["value"] <= limit)]
                    )
        spread = [row["value"] for row in pick(mine, "specificity")]
        lines.append([f"{name}: sample specificity, least", "> .5", f"{min(spread):.2f}", len(spread), yes(min(spread) > 0.5)])
        traced = pooled(pick(mine, "identified", attack="png"))
        if traced is not None:
            lines.append(
                [
                    f"{name}: users named after PNG",
                    "all",
                    f"{round(traced['value'] * traced['n'])} of {traced['n']}",
                    traced["n"],
                    yes(traced["value"] == 1),
                ]
            )
    return lines


def _uses(rows: Rows) -> list[list[object]]:
    """Return accuracies with and without the generator; first what the paper claims."""
    metrics = ("original", "authorised", "unauthorised", "authorised_alone", "unauthorised_alone", "authorised_mixed")
    lines: list[list[object]] = [["the paper claims", "", *(CLAIMS.get(metric, "") for metric in metrics)]]
    return lines + [[*kind, *(figure(pooled(pick(_of(rows, *kind), metric))) for metric in metrics)] for kind in _kinds(rows)]


def _opened(rows: Rows) -> list[list[object]]:
    """Return what was tried without fine-tuning the network, with training from scratch beside what has labelled images."""
    lines: list[list[object]] = []
    for kind in _kinds(rows):
        found = _attempts(_of(rows, *kind))
        for attack in ("mean trigger", *CLOSED, *OPEN):
            for (name, budget), many in found.items():
                hits = pooled(many)
                if name == attack and hits is not None:
                    lines.append([*kind, name, budget or "-", figure(hits), figure(_beside(rows, many)), hits["n"], len(many)])
    return lines


def _beside(rows: Rows, many: Rows) -> dict[str, Any] | None:
    """Return training from scratch beside an attempt, one row a seed: as its rows tell it, or as a cell of its own does."""
    own = [found for row in many if (found := scratch_of(row["extra"], row["n"]))]
    places = {(row["arch"], row["scene"], row["attack"]) for row in many}
    apart = [row for row in pick(rows, "from_scratch") if (row["arch"], row["scene"], row["attack"]) in places]
    return pooled(own or {row["scene"]: row for row in apart}.values())


def _tuned(rows: Rows) -> list[list[object]]:
    """Return how much a thief with labels trains back, beside training from scratch: at his rate, and at the best one for as many images."""
    lines: list[list[object]] = []
    for kind in _kinds(rows):
        known = [row for row in rows if row["arch"] == kind[0]]
        for row in pick(_of(rows, *kind), "recovered", attack="ftal"):
            images, scene = row["extra"]["images"], row["scene"]
            same = [
                other for other in known if (other.get("attack"), other.get("budget"), other["scene"]) == ("ftal", row["budget"], scene)
            ]
            alone = next((found for other in same if (found := scratch_of(other["extra"], other["n"]))), None)
            best = best_scratch(known, scene, images)
            lines.append([*kind, images, _rate_of(row), figure(row), figure(alone), figure(best), row["n"]])
    return lines


def _rate_of(row: dict[str, Any]) -> str:
    """Return the learning rate in a row's budget."""
    return next((part.strip().removeprefix("lr ") for part in row["budget"].split(",") if part.strip().startswith("lr ")), "-")


def _looks(rows: Rows) -> list[list[object]]:
    """Return how triggers differ between images, and how much they change."""
    return [
        [*kind, *(", ".join(f"{row['value']:.2f}" for row in pick(_of(rows, *kind), metric)) for metric in ("specificity", "psnr"))]
        for kind in _kinds(rows)
    ]


def _named(rows: Rows) -> list[list[object]]:
    """Return how often one image tells its user."""
    lines: list[list[object]] = []
    for kind in _kinds(rows):
        mine = pick(_of(rows, *kind), "identified")
        for label in dict.fromkeys(row["attack"] for row in mine):
            found = pick(mine, "identified", attack=label)
            hits = pooled(found)
            if hits is not None:
                wrong = sum(row["extra"]["somebody_else"] for row in found)
                lines.append([*kind, label, figure(hits), wrong, hits["n"], CLAIMS["identified"]])
        nobody = pooled(pick(_of(rows, *kind), "named_without_trigger"))
        if nobody is not None:
            lines.append([*kind, "never drawn on", figure(nobody), round(nobody["value"] * nobody["n"]), nobody["n"], "-"])
    return lines
