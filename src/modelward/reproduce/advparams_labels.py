"""What a thief with few labels gets of AdvParams: his attempts by number of labels, what they find, and the tables and gates of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelward.evaluation.farm import TheftSpec
from modelward.reproduce.fingerprint_tables import Rows, yes
from modelward.reproduce.pooling import Found, pooled
from modelward.reproduce.tables import Table, figure

HEADLINE = 0.01  # the hardened lock's share of the parameters
GROUP, EDGE = "few labels", "edge"
EPOCHS: Mapping[int, int] = {30: 60, 100: 40, 300: 20, 1000: 10}  # epochs by labels: 120 to 630 steps of 16
RATES = {"sgd": 0.01, "adam": 0.001}
CLAIMED, MARGIN = 100, 0.1  # labels at which the lock is to leave no more than so much above training from scratch
FINDERS = ("equal-values", "value-clusters")  # those that look at values alone
BLIND, CERTAIN = 0.05, 1e-6


def label_specs(labels: Mapping[int, int], *, wide: bool = True) -> list[TheftSpec]:
    """Return what a thief tries with few labels: at every number what trains, and at the claimed one all that looks for entries.

    Parameters
    ----------
    labels
        epochs by number of labels.
    wide
        also what looks for entries by anything but their values.
    """
    made = []
    for images, epochs in labels.items():
        budget = {"images": images, "epochs": epochs, "batch": 16}
        made += [TheftSpec("ftal", GROUP, {**budget, "optimizer": name, "lr": lr}) for name, lr in RATES.items()]
        fitted = ["ftal", {**budget, "optimizer": "adam", "lr": RATES["adam"]}]
        made.append(TheftSpec("equal-values", GROUP, budget))
        made += [TheftSpec("combined", GROUP, {"steps": [["gradient-fill", {"images": images}], fitted]})] if wide else []
        if images == CLAIMED or len(labels) == 1:
            made.append(TheftSpec("value-clusters", GROUP, budget))
            made += _once(budget) if wide else []
    return made


def _once(budget: dict[str, Any]) -> list[TheftSpec]:
    """Return what is tried at one number of labels alone."""
    images = {"images": budget["images"]}
    return [
        TheftSpec("gradient-fill", GROUP, images),
        TheftSpec("reverse-lock", GROUP, {**images, "rule": "swap", "share": 2 * HEADLINE, "each": 4}),
        TheftSpec("nearest-sibling", GROUP, budget),
        TheftSpec("clip-outliers", GROUP, budget),
        TheftSpec("clip-outliers", GROUP, {**budget, "optimizer": "adam", "lr": RATES["adam"], "keep": 0.95}),
        *(TheftSpec("layer-ridge", GROUP, {**images, "cut": cut}) for cut in (1, 2, 3)),
    ]


def parted(rows: Rows) -> tuple[Rows, Rows]:
    """Return the rows of the lock and of the older attempts, and those that this page tells: few labels, finds, and the control at the edge."""
    mine = [row for row in rows if row["configuration"] == EDGE or row["metric"] == "found" or row["extra"].get("group") == GROUP]
    told = {id(row) for row in mine}
    return [row for row in rows if id(row) not in told], mine


def label_tables(rows: Rows) -> list[Table]:
    """Return what few labels leave, and what was found."""
    return [
        ("What few labels leave, beside training from scratch on the same",
         ["architecture", "landing", "labels", "from scratch", "ridge on random features", "fine-tuned", "the best of all attempts", "which",
          "points above the better without the network"], _left(rows)),
        ("What each attempt makes of the claimed number of labels", ["architecture", "landing", "attempt", "accuracy, pooled", "each seed"], _each(rows)),
        ("Entries found, beside as many flagged blindly in the same tensors",
         ["architecture", "landing", "attempt", "flagged", "found, of all moved", "chance of as many blindly, each seed"], _found(rows)),
    ]  # fmt: skip


def label_gates(rows: Rows) -> list[list[object]]:
    """Return what was asked for, and what came out."""
    lines: list[list[object]] = []
    for arch, landing in _kinds(rows):
        name = f"{arch}, {'hardened' if landing != EDGE else 'at the edge, the control'}"
        chances: list[float] = [row["extra"]["chance"] for row in rows if _is(row, arch, landing, "found") and row["attack"] in FINDERS]
        held = sum(chance < CERTAIN if landing == EDGE else chance > BLIND for chance in chances)
        count, enough = len(chances), len(chances) - (0 if landing == EDGE else max(1, len(chances) // 20))
        words = (
            ("equal values and heaps are found, p < 1e-6", "all")
            if landing == EDGE
            else ("by equal values and heaps no more is found than blindly, p > .05", "19 of 20")
        )
        lines.append([f"{name}: {words[0]}", words[1], f"{held} of {count}", count, yes(held >= enough > 0)])
        scratch, best = _scratch(rows, arch, CLAIMED), _best(rows, arch, landing, CLAIMED)
        if landing != EDGE and scratch and best:
            lines.append([f"{name}: {CLAIMED} labels, the best attempt ({best[0]})", f"<= scratch + {100 * MARGIN:.0f} points, {scratch['value'] + MARGIN:.2f}",
                          figure(best[1]), best[1]["n"], yes(best[1]["value"] <= scratch["value"] + MARGIN)])  # fmt: skip
    return lines


def _kinds(rows: Rows) -> list[tuple[str, str]]:
    """Return architectures with landings, in order."""
    return list(dict.fromkeys((row["arch"], row["configuration"]) for row in rows))


def _is(row: dict[str, Any], arch: str, landing: str, metric: str) -> bool:
    """Return whether a row is one of these."""
    return (row["arch"], row["configuration"], row["metric"]) == (arch, landing, metric)


def _tried(rows: Rows, arch: str, landing: str, images: int) -> dict[str, dict[int, Rows]]:
    """Return the attempts with so many labels, by what they are called and by seed; a rate or a keep of the same attempt is a try of it."""
    found: dict[str, dict[int, Rows]] = {}
    for row in rows:
        if _is(row, arch, landing, "recovered") and row["extra"].get("group") == GROUP and row["extra"]["images"] == images:
            found.setdefault(called(row), {}).setdefault(row["scene"], []).append(row)
    return found


def called(row: dict[str, Any]) -> str:
    """Return what an attempt is called.

    >>> called({"attack": "combined", "extra": {"fields": {"steps": [["gradient-fill", {}], ["ftal", {}]]}}})
    'gradient-fill, then ftal'
    """
    fields = row["extra"]["fields"]
    if row["attack"] == "combined":
        return ", then ".join(step if isinstance(step, str) else step[0] for step in fields["steps"])
    return f"layer-ridge, cut {fields['cut']}" if "cut" in fields else str(row["attack"])


def _pooled(by_seed: Mapping[int, Rows], value: str = "value") -> Found:
    """Return the best try of every seed, pooled with its interval; ``value`` names the figure in a row, or in what stands beside it."""
    best = []
    for rows in by_seed.values():
        values = [(row[value] if value == "value" else row["extra"].get(value), row["n"]) for row in rows]
        most = max(((reached, n) for reached, n in values if reached is not None), default=None)
        best += [{"value": most[0], "n": most[1]}] if most else []
    return pooled(best)


def _scratch(rows: Rows, arch: str, images: int) -> Found:
    """Return training from scratch on so many labels, at the better rate of each seed; the lock does not matter."""
    by_seed: dict[int, Rows] = {}
    for row in rows:
        if (
            row["arch"] == arch
            and row["metric"] == "recovered"
            and row["attack"] == "ftal"
            and row["extra"]["images"] == images
            and row["n"]
        ):
            by_seed.setdefault(row["scene"], []).append(row)
    return _pooled(by_seed, "from_scratch")


def _random(rows: Rows, arch: str, images: int) -> Found:
    """Return ridge regression on the features of untrained networks, at the cut that is best over all seeds."""
    cuts: dict[int, dict[int, Rows]] = {}
    for row in rows:
        if row["arch"] == arch and row["attack"] == "layer-ridge" and row["extra"].get("images") == images and row["metric"] == "recovered":
            cuts.setdefault(row["extra"]["fields"]["cut"], {}).setdefault(row["scene"], []).append(row)
    reached = [found for by_seed in cuts.values() if (found := _pooled(by_seed, "from_scratch"))]
    return max(reached, key=lambda found: found["value"], default=None)


def _without(rows: Rows, arch: str, images: int) -> Found:
    """Return the most that so many labels give whoever has no network of the owner's: trained from scratch, or read from random features."""
    ways = [found for found in (_scratch(rows, arch, images), _random(rows, arch, images)) if found]
    return max(ways, key=lambda found: found["value"], default=None)


def _best(rows: Rows, arch: str, landing: str, images: int) -> tuple[str, dict[str, Any]] | None:
    """Return the attempt that reached most over all seeds, and what."""
    reached = [(name, _pooled(by_seed)) for name, by_seed in _tried(rows, arch, landing, images).items()]
    return max(((name, found) for name, found in reached if found), key=lambda one: one[1]["value"], default=None)


def _labels(rows: Rows) -> list[int]:
    """Return the numbers of labels that were tried."""
    return sorted({row["extra"]["images"] for row in rows if row["metric"] == "recovered" and row["extra"].get("group") == GROUP})


def _left(rows: Rows) -> list[list[object]]:
    """Return the curve, a line for every number of labels."""
    lines: list[list[object]] = []
    for arch, landing in _kinds(rows):
        for images in _labels(rows):
            scratch, best = _without(rows, arch, images), _best(rows, arch, landing, images)
            if scratch and best:
                plain = _pooled(_tried(rows, arch, landing, images).get("ftal", {}))
                above = f"{100 * (best[1]['value'] - scratch['value']):+.1f}"
                alone = [figure(_scratch(rows, arch, images)), figure(_random(rows, arch, images))]
                lines.append([arch, landing, images, *alone, figure(plain), figure(best[1]), best[0], above])
    return lines


def _each(rows: Rows) -> list[list[object]]:
    """Return every attempt at the claimed number of labels."""
    images = CLAIMED if CLAIMED in _labels(rows) else max(_labels(rows), default=0)
    return [
        [
            arch,
            landing,
            name,
            figure(_pooled(by_seed)),
            ", ".join(f"{max((row['value'] or 0.0) for row in tries):.2f}" for tries in by_seed.values()),
        ]
        for arch, landing in _kinds(rows)
        for name, by_seed in _tried(rows, arch, landing, images).items()
    ]


def _found(rows: Rows) -> list[list[object]]:
    """Return what was flagged and found, the seeds together."""
    lines: list[list[object]] = []
    for arch, landing in _kinds(rows):
        looked: dict[str, Rows] = {}
        for row in rows:
            if _is(row, arch, landing, "found"):
                looked.setdefault(row["attack"], []).append(row)
        for name, found in looked.items():
            hits = sum(round(row["value"] * row["n"]) for row in found)
            flagged, moved = sum(row["extra"]["flagged"] for row in found), sum(row["n"] for row in found)
            chances = ", ".join(f"{row['extra']['chance']:.2g}" for row in found)
            lines.append([arch, landing, name, flagged, f"{hits} of {moved}; {figure(pooled(found))}", chances])
    return lines
