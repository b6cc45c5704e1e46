"""Tables of the additional-class recipe."""

from __future__ import annotations

from typing import Any

from modelward.audit.section import percent
from modelward.reproduce.fingerprint_tables import SMOKE, yes
from modelward.reproduce.tables import figure

Rows = list[dict[str, Any]]
PRUNED = ("sparsity 0.3", "sparsity 0.5", "sparsity 0.7")
TUNED = ("epochs 5", "epochs 10, lr 0.03")


def of(rows: Rows, **wanted: str) -> Rows:
    """Return the rows in which every field has the wanted value.

    >>> of([{"metric": "hits", "attack": "none"}], metric="hits", attack="prune")
    []
    """
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def first(rows: Rows, **wanted: str) -> dict[str, Any] | None:
    """Return the first of the rows that `of` gives."""
    return next(iter(of(rows, **wanted)), None)


def told(row: dict[str, Any] | None) -> str:
    """Return a rate with its interval, and a dash where there is none."""
    return "-" if row is None else percent(row)


def share(rows: Rows, **wanted: str) -> float | None:
    """Return the smallest value, over the seeds, of the rows that `of` gives."""
    return min((row["value"] for row in of(rows, **wanted) if row["value"] is not None), default=None)


def document(rows: Rows, profile: str, ground: str) -> dict[str, Any]:
    """Return the results document: paragraphs, tables and all rows."""
    names = list(dict.fromkeys(row["configuration"] for row in rows))
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
    tables = [
        ("Gates", ["figure", "target", "measured", "n", "met"], gates(rows)),
        ("The class is answered to", ["images", *_ours(names, rows)], _specific(rows, _ours(names, rows))),
        ("Key images that are still found, with the accuracy that is left", ["attack", *names], _attacks(rows, names)),
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
    found = [(caption, header, body) for caption, header, body in tables if body]
    return {"title": f"additional-class, profile {profile}", "paragraphs": [SMOKE, *paragraphs] if profile == "smoke" else paragraphs,
            "tables": found, "rows": rows}  # fmt: skip


def gates(rows: Rows) -> list[list[object]]:
    """Return the gates of the issue; the worst seed counts."""
    made: list[list[object]] = []

    def gate(name: str, target: str, value: float | None, met: bool, n: object) -> None:
        made.append([name, target, "-" if value is None else f"{value:.1%}", n, yes(value is not None and met)])

    for name in ("paper", "hardened"):
        hits = share(rows, configuration=name, metric="hits", attack="none")
        n = (first(rows, configuration=name, metric="hits", attack="none") or {}).get("n", 0)
        gate(f"{name}: key images found", ">= 99 %", hits, (hits or 0) >= 0.99, n)
        read = share(rows, configuration=name, metric="users_read", attack="users")
        gate(f"{name}: payloads read", "100 %", read, read == 1, (first(rows, configuration=name, metric="users_read") or {}).get("n", 0))
        after = share(rows, configuration=name, metric="hits", attack="wrap-reconstruct")
        gate(f"{name}: key images found behind an autoencoder", ">= 90 %", after, (after or 0) >= 0.9, n)
        drop = max(
            (row["extra"]["before"] - row["value"] for row in of(rows, configuration=name, metric="accuracy", attack="none")), default=None
        )
        gate(f"{name}: accuracy lost", "<= 2 points", drop, drop is not None and drop <= 0.02, _n(rows, name, "accuracy", "none"))
        taken = _most(rows, name, "class_on_test", "none")
        gate(
            f"{name}: class answered to test images",
            "<= 0.1 %",
            taken,
            taken is not None and taken <= 0.001,
            _n(rows, name, "class_on_test", "none"),
        )
    for kind, limit in (("random noise", 0.01), ("other-seed keys", 0.05)):
        worst = _most(rows, "hardened", "class_answered", kind)
        gate(
            f"hardened: class answered to {kind}",
            f"<= {limit:.0%}",
            worst,
            worst is not None and worst <= limit,
            _n(rows, "hardened", "class_answered", kind),
        )
    for metric, words in (("nulls_matched", "null models accused"), ("strangers_matched", "other owners' marked models accused")):
        worst = _most(rows, "hardened", metric)
        gate(f"hardened: {words}", "0", worst, worst == 0, (first(rows, configuration="hardened", metric=metric) or {}).get("n", 0))
    wrong = _most(rows, "hardened", "misattributed")
    gate("users misattributed", "<= 0.1 %", wrong, wrong is not None and wrong <= 0.001, _n(rows, "hardened", "misattributed", "users"))
    return made


def _n(rows: Rows, name: str, metric: str, attack: str) -> int:
    """Return the sample size of a figure."""
    return int((first(rows, configuration=name, metric=metric, attack=attack) or {}).get("n", 0))


def _most(rows: Rows, name: str, metric: str, attack: str | None = None) -> float | None:
    """Return the largest value over the seeds."""
    found = of(rows, configuration=name, metric=metric, **({"attack": attack} if attack else {}))
    return max((row["value"] for row in found), default=None)


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


def _attacks(rows: Rows, names: list[str]) -> list[list[object]]:
    """Return one line for every attack: key images found, and in brackets the accuracy."""

    def cell(name: str, attack: str, budget: str) -> str:
        row = first(rows, configuration=name, metric="hits", attack=attack, budget=budget)
        if row is None:
            return ""
        return f"{row['value']:.0%} ({row['extra']['accuracy']:.1%})" if "accuracy" in row["extra"] else f"{row['value']:.0%}"

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
        [row["configuration"], row["budget"], percent(row), f"{row['extra']['accuracy']:.1%}", f"{row['extra']['trace']:.3f}",
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
        return f"{row['value']:.0%} of {row['n']}" + (
            f", statistic {extra['statistic']:.2f}: {extra['decision']}" if "decision" in extra else ""
        )

    points = dict.fromkeys(
        (row["metric"], row["attack"]) for row in rows if row["metric"] in {"claim_hits", "strangers_matched", "nulls_matched"}
    )
    return [
        [f"{attack}" if metric == "claim_hits" else f"{attack} matched", *(cell(n, metric, attack) for n in names)]
        for metric, attack in points
    ]
