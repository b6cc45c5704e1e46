"""Tables of the recipe `advparams`, made from its rows alone."""

from __future__ import annotations

import math
from typing import Any

from modelward.report.words import told
from modelward.reproduce.advparams_labels import HEADLINE, label_gates, label_tables, parted
from modelward.reproduce.fingerprint_tables import Rows, yes
from modelward.reproduce.pooling import Found, pooled
from modelward.reproduce.tables import Table, figure

CLASSES = 10
CLAIM = "80.65 (Fashion-MNIST), 81.16 (CIFAR-10), 87.91 (GTSRB)"  # points lost without the key
LEAST = "as few as 0.000205 %"


def pick(rows: Rows, metric: str, **wanted: Any) -> Rows:
    """Return the rows of one figure; ``wanted`` names further fields."""
    return [row for row in rows if row["metric"] == metric and all(row.get(name) == value for name, value in wanted.items())]


def tables(rows: Rows) -> list[Table]:
    """Return all tables of the results."""
    rows, few = parted(rows)
    made = [
        ("Gates", ["figure", "target", "measured", "n", "met"], [*label_gates(few), *_gates(rows)]),
        *label_tables(few),
        ("The locks", ["architecture", "variant", "original", "locked", "points lost without the key",
                       "same moves at random places", "at random places of the same tensors", "opened",
                       "entries, of all parameters", "bits of their places, for a blind search", "keys of random content that open"], _locks(rows)),
        ("Accuracy over the share of the parameters that is moved", ["architecture", "variant", "budget", "locked", "recalibrated, 400 images",
                                                                     *(f"{o}, {i} images: fine-tuned / from scratch" for i, o in _budgets(rows))],
         _curve(rows)),
        ("Who knows the method", ["architecture", "variant", "attempt", "settings", "accuracy", "from scratch", "n"], _battery(rows)),
        ("Pruning", ["architecture", "variant", *(f"{share / 10:g}" for share in range(1, 10))], _pruning(rows)),
        ("Parts of the key", ["architecture", "variant", *_fractions(rows)], _partial(rows)),
        ("Two builds compared", ["architecture", "variant", "places in common", "told by the difference", "of those moved in one build alone",
                                 "told wrongly", "accuracy of the merged build", "key of the other build"], _builds(rows)),
        ("Do the entries stick out? AUC of ranking by distance from the median",
         ["architecture", "variant", "AUC", "AUC of the same entries before", "median z", "largest z", "largest z of the others"], _outliers(rows)),
    ]  # fmt: skip
    return [table for table in made if table[2]]


def _kinds(rows: Rows) -> list[tuple[str, str]]:
    """Return architectures with variants, in order."""
    return list(dict.fromkeys((row["arch"], row["configuration"]) for row in rows))


def _headline(rows: Rows, arch: str, variant: str) -> Rows:
    """Return the rows of a variant at the headline's budget: the paper's one, and the share at which the hardened lock itself was measured."""
    return [row for row in rows if (row["arch"], row["configuration"]) == (arch, variant) and row["budget_share"] in {None, _share(rows)}]


def _share(rows: Rows) -> float:
    """Return the share of the parameters that the hardened lock moved; budgets beside it are cut from a longer one, without an original."""
    return next((row["budget_share"] for row in rows if row["metric"] == "original" and row["budget_share"] is not None), HEADLINE)


def _gates(rows: Rows) -> list[list[object]]:
    """Return what was asked for, and what came out."""
    lines: list[list[object]] = []
    for arch, variant in _kinds(rows):
        mine, name = _headline(rows, arch, variant), f"{arch}, {variant}"
        original, locked = pooled(pick(mine, "original")), pooled(pick(mine, "unauthorised"))
        if original is None or locked is None:
            continue
        most = 1 / CLASSES + (0.15 if variant == "paper" else 0.05)
        entries = pick(mine, "entries")
        share = max(row["extra"]["share"] for row in entries)
        lines.append([f"{name}: accuracy without the key", f"<= {most:.2f}", figure(locked), locked["n"], yes(locked["value"] <= most)])
        limit = 0.001 if variant == "paper" else _share(rows)
        lines.append([f"{name}: share of the parameters, largest", f"<= {limit:.1%}", f"{share:.3%}", len(entries), yes(share <= limit)])
        control = pooled(pick(mine, "random_places"))
        if control and variant == "paper":
            lost = original["value"] - control["value"]
            lines.append(
                [f"{name}: points lost by the same moves at random places", "<= 3", f"{100 * lost:.1f}", control["n"], yes(lost <= 0.03)]
            )
        again = pooled(pick(mine, "recovered", attack="bn-recalibrate"))
        if again and variant == "hardened":
            target = 0.6 * original["value"]
            lines.append(
                [
                    f"{name}: recalibrated",
                    f"<= 60 % of the original, {target:.2f}",
                    figure(again),
                    again["n"],
                    yes(again["value"] <= target),
                ]
            )
        for metric, words in (
            ("restored", "opened byte for byte"),
            ("inside_band", "changed entries inside the band"),
            ("refused", "wrong keys refused"),
        ):
            found = pick(mine, metric)
            total = sum(row["n"] for row in found)
            held = round(sum(row["value"] * row["n"] for row in found))
            lines.append([f"{name}: {words}", "all", f"{held} of {total}", total, yes(held == total > 0)])
        counted = [row["extra"]["changed"] == row["value"] for row in entries]
        lines.append([f"{name}: key as long as the change", "all", f"{sum(counted)} of {len(counted)}", len(counted), yes(all(counted))])
    return lines


def _locks(rows: Rows) -> list[list[object]]:
    """Return the accuracies of each lock, pooled over seeds, each seed's locked one behind it; first what the paper claims."""
    lines: list[list[object]] = [["the paper claims", "", "", "", CLAIM, "", "", "", LEAST, "", ""]] if _kinds(rows) else []
    for arch, variant in _kinds(rows):
        mine = _headline(rows, arch, variant)
        locked, entries = pick(mine, "unauthorised"), pick(mine, "entries")
        each = ", ".join(f"{row['value']:.2f}" for row in locked)
        counts = ", ".join(f"{row['value']:.0f} ({row['extra']['share']:.3%})" for row in entries)
        blind = f"{min((_blind(row['value'] / row['extra']['share'], row['value']) for row in entries), default=0):,.0f}"
        original, without = pooled(pick(mine, "original")), pooled(locked)
        lost = f"{100 * (original['value'] - without['value']):.1f}" if original and without else "-"
        controls = [row["value"] for row in pick(mine, "random_places")]
        spread = f"; {min(controls):.2f} to {max(controls):.2f}" if controls else ""
        lines.append([arch, variant, figure(original), f"{figure(without)}; {each}", lost,
                      f"{figure(pooled(pick(mine, 'random_places')))}{spread}",
                      figure(pooled(pick(mine, "random_places_same_tensors"))), figure(pooled(pick(mine, "authorised"))), counts, blind,
                      figure(pooled(pick(mine, "guessed_keys_open")))])  # fmt: skip
    return lines


def _blind(total: float, entries: float) -> float:
    """Return log2 of how many sets of places there are, for who knows no more than how many of ``total`` parameters were moved.

    >>> round(_blind(4, 2), 3)
    2.585
    """
    return (math.lgamma(total + 1) - math.lgamma(entries + 1) - math.lgamma(total - entries + 1)) / math.log(2)


def _budgets(rows: Rows) -> list[tuple[int, str]]:
    """Return the thief's budgets: images and optimizer."""
    trained = pick(rows, "recovered", attack="ftal")
    return sorted({(row["extra"]["images"], _setting(row, "optimizer")) for row in trained}, key=lambda pair: (pair[1] != "sgd", pair[0]))


def _setting(row: dict[str, Any], name: str) -> Any:
    """Return a setting of a theft."""
    return row["extra"]["fields"][name]


def _curve(rows: Rows) -> list[list[object]]:
    """Return locked, recalibrated and fine-tuned accuracy for every budget; training from scratch beside the latter."""
    lines: list[list[object]] = []
    for arch, variant in _kinds(rows):
        mine = [row for row in rows if (row["arch"], row["configuration"]) == (arch, variant)]
        for share in sorted({row["budget_share"] or 0.0 for row in mine}):
            here = [row for row in mine if (row["budget_share"] or 0.0) == share]
            cells: list[object] = [arch, variant, f"{share:.1%}" if share else "as found"]
            cells += [figure(pooled(pick(here, "unauthorised"))), figure(pooled(pick(here, "recovered", attack="bn-recalibrate")))]
            known = [row for row in rows if row["arch"] == arch]
            lines.append(cells + [_beside(here, images, optimizer, known) for images, optimizer in _budgets(rows)])
    return lines


def _beside(rows: Rows, images: int, optimizer: str, known: Rows) -> str:
    """Return the best of the rates, seed by seed, fine-tuned and from scratch, pooled over the seeds.

    ``known``: all rows of the architecture. What training from scratch reaches does not hang on the lock, so that every lock of a seed
    stands beside the same, whichever of its rates diverged.
    """
    found = [
        row
        for row in pick(rows, "recovered", attack="ftal")
        if row["extra"]["images"] == images and _setting(row, "optimizer") == optimizer
    ]
    if not found:
        return "-"
    tuned, alone = [], []
    for scene in sorted({row["scene"] for row in found}):
        tuned += [max((row for row in found if row["scene"] == scene and row["n"]), key=lambda row: row["value"], default=None)]
        alone += [best_scratch(known, scene, images, optimizer)]
    ran = [row for row in tuned if row is not None]
    lost = f" (diverged in {len(tuned) - len(ran)} of {len(tuned)} seeds)" if 0 < len(ran) < len(tuned) else ""
    return f"{figure(pooled(ran)) if ran else 'diverged'}{lost} / {figure(pooled(row for row in alone if row is not None))}"


def best_scratch(rows: Rows, scene: int, images: int | None, optimizer: str | None = None) -> Found:
    """Return the most that training from scratch on so many images reached, at any rate tried beside a theft by fine-tuning.

    ``rows``: of one architecture; whether a lock's own training diverged does not matter.
    """
    mine = [row for row in rows if row["scene"] == scene and row["metric"] in {"original", "recovered"}]
    n = max((row["n"] for row in mine), default=0)
    found = [
        row["extra"]
        for row in pick(mine, "recovered", attack="ftal")
        if row["extra"]["images"] == images and optimizer in {None, row["extra"]["fields"].get("optimizer")}
    ]
    best = max((extra for extra in found if extra["from_scratch"] is not None), key=lambda extra: extra["from_scratch"], default=None)
    return scratch_of(best, n) if best else None


def scratch_of(extra: dict[str, Any], n: int) -> Found:
    """Return training from scratch as it is told in a row, with its interval; ``None`` where it was not measured."""
    value, (low, high) = extra.get("from_scratch"), extra.get("from_scratch_ci") or (None, None)
    return None if value is None else {"value": value, "ci_low": low, "ci_high": high, "n": n}


def _battery(rows: Rows) -> list[list[object]]:
    """Return how far those who know the method came, with training from scratch on as many labelled images."""
    lines: list[list[object]] = []
    for arch, variant in _kinds(rows):
        mine = [row for row in rows if row["arch"] == arch]
        for row in pick(_headline(rows, arch, variant), "recovered"):
            known, extra = row["extra"].get("group"), row["extra"]
            if known and row["attack"] not in {"ftal", "prune", "bn-recalibrate"}:
                alone = scratch_of(extra, row["n"]) or best_scratch(mine, row["scene"], extra.get("images"))
                lines.append([arch, variant, known, told(extra.get("fields", {})), figure(row), figure(alone), row["n"]])
    return lines


def _pruning(rows: Rows) -> list[list[object]]:
    """Return the accuracy of pruned locked models."""
    lines: list[list[object]] = []
    for arch, variant in _kinds(rows):
        found = {round(_setting(row, "sparsity"), 1): row for row in pick(_headline(rows, arch, variant), "recovered", attack="prune")}
        if found:
            lines.append([arch, variant, *(figure(found.get(round(tenths / 10, 1))) for tenths in range(1, 10))])
    return lines


def _fractions(rows: Rows) -> list[str]:
    """Return the fractions of a key that were tried."""
    return sorted({row["budget"] for row in pick(rows, "partial_key")}, key=float)


def _partial(rows: Rows) -> list[list[object]]:
    """Return the accuracy over the share of right entries, pooled over draws and seeds."""
    return [
        [arch, variant, *(figure(pooled(pick(mine, "partial_key", budget=fraction))) for fraction in _fractions(rows))]
        for arch, variant in _kinds(rows)
        if pick(mine := _headline(rows, arch, variant), "partial_key")
    ]


def _builds(rows: Rows) -> list[list[object]]:
    """Return what two builds give away."""
    lines: list[list[object]] = []
    for arch, variant in _kinds(rows):
        mine = _headline(rows, arch, variant)
        if pick(mine, "overlap"):
            shown = [figure(pooled(pick(mine, metric))) for metric in ("overlap", "revealed", "revealed_unshared", "false_alarms")]
            merged = figure(pooled(pick(mine, "recovered", attack="two builds merged")))
            lines.append([arch, variant, *shown, merged, figure(pooled(pick(mine, "cross_key")))])
    return lines


def _outliers(rows: Rows) -> list[list[object]]:
    """Return how well the entries are told from others, one line a seed."""
    lines: list[list[object]] = []
    for arch, variant in _kinds(rows):
        mine = _headline(rows, arch, variant)
        for after, before in zip(pick(mine, "outlier_auc", attack="locked"), pick(mine, "outlier_auc", attack="original"), strict=True):
            values = (after["extra"][name] for name in ("median", "largest", "largest of the others"))
            lines.append([arch, variant, figure(after), figure(before), *map(_deviations, values)])
    return lines


def _deviations(value: float) -> str:
    """Return robust standard deviations in words; the cap stands for a tensor most of whose entries are equal.

    >>> _deviations(4.25), _deviations(1e9)
    ('4.2', 'beyond measure: the rest are equal')
    """
    return f"{value:.1f}" if value < 1e9 else "beyond measure: the rest are equal"
