"""Tables of the additional-class recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from modelward.audit.section import percent
from modelward.reproduce.additional_class_gates import first, gates, of, rated, told
from modelward.reproduce.fingerprint_tables import SMOKE, Rows
from modelward.reproduce.tables import Table, figure

PRUNED = ("sparsity 0.3", "sparsity 0.5", "sparsity 0.7")
TUNED = ("epochs 5", "epochs 10, lr 0.03")


def document(rows: Rows, profile: str, ground: str) -> dict[str, Any]:
    """Return the results document: paragraphs, tables and all rows."""
    paragraphs = [
        (
            "Sun, Xue et al.: an additional class and steganographic images (arXiv 2104.09203; Applied Intelligence 2022). The abstract claims 100 % of the "
            "key images, 100 % of the fingerprints, and more than logos, noise and frontier stitching under query modification."
        ),
        (
            f"Source: {ground}. Every rate is read from key images that went through PNG. Nulls are independent models; a stranger is a model that "
            "another owner marked with the same method."
        ),
        (
            "The paper's variant answers its class to whatever is odd: noise, other textures, other people's key images. The hardened one is trained with "
            "decoys that are drawn anew for every batch, and asks decoys beside the keys. The payload proves who was issued an image, not who leaked a model."
        ),
    ]
    return {"title": f"additional-class, profile {profile}", "paragraphs": [SMOKE, *paragraphs] if profile == "smoke" else paragraphs,
            "tables": tables(rows), "rows": rows}  # fmt: skip


def tables(rows: Rows) -> list[Table]:
    """Return the tables that have lines, from rows alone."""
    names = list(dict.fromkeys(row["configuration"] for row in rows))
    made: list[Table] = [
        ("Gates", ["figure", "target", "measured", "n", "met"], gates(rows)),
        ("The class is answered to", ["images", *_ours(names, rows)], _specific(rows, _ours(names, rows))),
        ("Key images that are still found", ["attack", *names], _attacks(rows, names, told)),
        ("The accuracy that is left", ["attack", *names], _attacks(rows, names, _left(rows))),
        (
            "What decoys cost: key images found",
            ["decoys a batch", "other-seed keys taken", "noise taken", *PRUNED, *TUNED],
            trade_off(rows),
        ),
        (
            "Detectors of key images",
            ["keys", "detector", "AUC against test images", "refused at 1 % of false alarms"],
            _detectors(rows, names),
        ),
        ("Head surgery: what the labels still tell", ["keys", "surgery", "keys found", "accuracy", "chi-square", "p"], _surgery(rows)),
        ("Users", ["figure", *_ours(names, rows, "users_read")], _users(rows, _ours(names, rows, "users_read"))),
        ("Claims without a mark", ["keys", *_ours(names, rows)], _claims(rows, _ours(names, rows))),
    ]
    return [table for table in made if table[2]]


def _ours(names: list[str], rows: Rows, metric: str = "class_answered") -> list[str]:
    """Return the configurations that have a row of ``metric``."""
    return [name for name in names if first(rows, configuration=name, metric=metric)]


def _specific(rows: Rows, names: list[str]) -> list[list[object]]:
    """Return one line for every kind of images."""
    kinds = dict.fromkeys(row["attack"] for row in of(rows, metric="class_answered"))
    return [[kind, *(told(first(rows, configuration=n, metric="class_answered", attack=kind)) for n in names)] for kind in kinds]


def _points(rows: Rows) -> list[tuple[str, str]]:
    """Return every attack with its setting, in order of appearance."""
    return list(dict.fromkeys((row["attack"], row["budget"]) for row in of(rows, metric="hits")))


def _left(rows: Rows) -> Callable[[dict[str, Any]], str]:
    """Return what tells, for the row of an attack, the accuracy that it left."""

    def words(row: dict[str, Any]) -> str:
        marked = first(rows, configuration=row["configuration"], metric="accuracy", attack="none")
        if marked is None:
            return "-"
        return told(rated(row["extra"]["accuracy"], marked["n"]) if "accuracy" in row["extra"] else marked)

    return words


def _attacks(rows: Rows, names: list[str], words: Callable[[dict[str, Any]], str]) -> list[list[object]]:
    """Return one line for every attack, and a figure of each configuration."""

    def cell(name: str, attack: str, budget: str) -> str:
        row = first(rows, configuration=name, metric="hits", attack=attack, budget=budget)
        return "" if row is None else words(row)

    return [[f"{attack} {budget}".strip(), *(cell(name, attack, budget) for name in names)] for attack, budget in _points(rows)]


def trade_off(rows: Rows) -> list[list[object]]:
    """Return, for each strength of decoys, how specific the class is and how much of it survives."""
    made: list[list[object]] = []
    for name in dict.fromkeys(row["configuration"] for row in rows):
        if not name.startswith("hardened") or first(rows, configuration=name, metric="hits", budget=PRUNED[0]) is None:
            continue
        taken = [
            figure(first(rows, configuration=name, metric="class_answered", attack=kind)) for kind in ("other-seed keys", "random noise")
        ]
        left = [figure(first(rows, configuration=name, metric="hits", attack="prune", budget=budget)) for budget in PRUNED]
        left += [figure(first(rows, configuration=name, metric="hits", attack="ftal", budget=budget)) for budget in TUNED]
        made.append([name.removeprefix("hardened, ").removesuffix(" decoys a batch").replace("hardened", "48 (default)"), *taken, *left])
    return sorted(made, key=lambda line: int(str(line[0]).split()[0]))


def _detectors(rows: Rows, names: list[str]) -> list[list[object]]:
    """Return how well autoencoders tell key images from test images."""
    found = [(name, row) for name in names for row in of(rows, configuration=name, metric="detector_auc")]
    return [
        [name, row["attack"], figure(row), told(first(rows, configuration=name, metric="keys_refused", attack=row["attack"]))]
        for name, row in found
    ]  # fmt: skip


def _surgery(rows: Rows) -> list[list[object]]:
    """Return what head surgery leaves."""
    return [
        [row["configuration"], row["budget"], percent(row), _left(rows)(row), f"{row['extra']['trace']:.3f}",
         "-" if row["extra"]["trace_p"] is None else f"{row['extra']['trace_p']:.3f}"]
        for row in of(rows, metric="hits", attack="head-surgery") if "trace" in row["extra"]
    ]  # fmt: skip


def _users(rows: Rows, names: list[str]) -> list[list[object]]:
    """Return what becomes of users."""
    metrics = dict.fromkeys(row["metric"] for row in of(rows, attack="users"))
    return [[metric.replace("_", " "), *(figure(first(rows, configuration=n, metric=metric)) for n in names)] for metric in metrics]


def _claims(rows: Rows, names: list[str]) -> list[list[object]]:
    """Return what keys find that were never embedded, with the decision where nothing was committed to."""

    def cell(name: str, metric: str, attack: str) -> str:
        row = first(rows, configuration=name, metric=metric, attack=attack)
        if row is None:
            return ""
        extra = row["extra"]
        return f"{told(row)} of {row['n']}" + (f", statistic {extra['statistic']:.2f}: {extra['decision']}" if "decision" in extra else "")

    points = dict.fromkeys(
        (row["metric"], row["attack"]) for row in rows if row["metric"] in {"claim_hits", "strangers_matched", "nulls_matched"}
    )
    return [
        [f"{attack}" if metric == "claim_hits" else f"{attack} matched", *(cell(n, metric, attack) for n in names)]
        for metric, attack in points
    ]
