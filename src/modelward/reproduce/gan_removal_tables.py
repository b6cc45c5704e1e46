"""Tables of the GAN removal recipe, from its rows alone."""

from __future__ import annotations

from typing import Any

from modelward.reproduce.fingerprint_tables import Rows, yes
from modelward.reproduce.tables import Table, figure
from modelward.statistics import Interval, newcombe, wilson

MAIN = "zhang, stamp on every class"


def tables(rows: Rows) -> list[Table]:
    """Return the gates, what is left of every mark, and the scans."""
    stolen = [row for row in rows if row["attack"] != "scan"]
    lines = [
        [mark, attack, figure(_pooled(found)), sum(row["n"] for row in found), ", ".join(map(points, _drop(rows, mark, attack)))]
        for mark in dict.fromkeys(row["configuration"] for row in stolen)
        for attack in dict.fromkeys(row["attack"] for row in stolen)
        if (found := _pick(rows, "retention", mark, attack))
    ]
    scans = [_scan_line(row) for row in rows if row["metric"] == "flagged"]
    return [
        ("Gates", ["figure", "target", "measured", "met"], _gates(rows)),
        ("What is left of the mark", ["mark", "attack", "retention", "n", "points of accuracy lost, one a seed"], lines),
        ("Scans", ["model", "seed", "true class", "flagged", "largest index", "share of the mask inside the stamp"], scans),
    ]


def _pick(rows: Rows, metric: str, mark: str, attack: str) -> Rows:
    """Return the rows of one figure, one a seed."""
    return [row for row in rows if (row["metric"], row["configuration"], row["attack"]) == (metric, mark, attack)]


def _pooled(rows: Rows) -> dict[str, Any] | None:
    """Return rates of several seeds as one, with its interval; the seeds' images differ."""
    n = sum(row["n"] for row in rows)
    if not n:
        return None
    hits = wilson(round(sum(row["value"] * row["n"] for row in rows)), n)
    return {"value": hits.value, "ci_low": hits.low, "ci_high": hits.high, "n": n}


def _drop(rows: Rows, mark: str, attack: str) -> list[Interval]:
    """Return the accuracy lost, one a seed, in points; the marked model and the stolen one count as independent samples."""
    return [_points(row) for row in _pick(rows, "accuracy", mark, attack)]


def _points(row: dict[str, Any]) -> Interval:
    """Return what a stolen model's accuracy lacks of the marked one's, in points."""
    n, left = row["n"], round(row["value"] * row["n"])
    lost = newcombe((left + round(row["extra"]["drop"] * n), n), (left, n))
    return Interval(100 * lost.value, 100 * lost.low, 100 * lost.high, n, lost.method)


def points(lost: Interval) -> str:
    """Return points with their interval.

    >>> points(Interval(2.13, -1.0, 5.25, 1000, "newcombe"))
    '2.1 [-1.0, 5.2]'
    """
    return f"{lost.value:.1f} [{lost.low:.1f}, {lost.high:.1f}]"


def _counted(hits: int, n: int) -> str:
    """Return a count of models with the interval of its rate.

    >>> _counted(9, 9)
    '9 of 9 [70%, 100%]'
    """
    if not n:
        return "0 of 0"
    rate = wilson(hits, n)
    return f"{hits} of {n} [{rate.low:.0%}, {rate.high:.0%}]"


def _scan_line(row: dict[str, Any]) -> list[object]:
    """Return what a scan found."""
    extra = row["extra"]
    flagged = ", ".join(map(str, extra["flagged"])) or "none"
    largest = max((index for index in extra["anomaly"] if index is not None), default=float("nan"))
    mass = f"{extra['mass']:.2f}" if "mass" in extra else "-"
    return [row["configuration"], row["scene"], extra.get("target", "-"), flagged, f"{largest:.2f}", mass]


def _gates(rows: Rows) -> list[list[object]]:
    """Return what is asked of the attack, and whether it holds here."""
    scans = _pick(rows, "flagged", MAIN, "scan")
    right = sum(row["extra"]["flagged"] == [row["extra"].get("target")] for row in scans)
    clean = _pick(rows, "flagged", "no mark", "scan")
    quiet = sum(not row["extra"]["flagged"] for row in clean)
    mass = [row["extra"]["mass"] for row in scans if "mass" in row["extra"]]
    left, plain = (_pooled(_pick(rows, "retention", MAIN, attack)) for attack in ("gan-removal", "plain fine-tuning"))
    better = left is not None and plain is not None and left["ci_high"] < plain["ci_low"]
    lost = _drop(rows, MAIN, "gan-removal")
    worst = max(lost, key=lambda one: one.value, default=None)
    return [
        ["the marked class and only it flagged", "every seed", _counted(right, len(scans)), yes(right == len(scans) > 0)],
        ["share of the mask inside the stamp, least", ">= .4", f"{min(mass, default=float('nan')):.2f}", yes(bool(mass) and min(mass) >= 0.4)],
        ["retention after gan-removal", "<= 10 %", figure(left), yes(left is not None and left["value"] <= 0.1)],
        ["points of accuracy lost, worst seed", "<= 3", "-" if worst is None else points(worst), yes(worst is not None and worst.value <= 3)],
        ["less is left than after plain fine-tuning", figure(plain), figure(left), yes(better)],
        ["unmarked models that are not flagged", ">= 80 %", _counted(quiet, len(clean)), yes(quiet >= 0.8 * len(clean) > 0)],
    ]  # fmt: skip
