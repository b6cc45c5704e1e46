"""Tables of the activeguard recipe, from its rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelward.reproduce.fingerprint_tables import Rows, yes
from modelward.reproduce.tables import Table, figure

PAPER = {"lenet5": ("99.15 %", "8.92 %"), "resnet8": ("91.46 % (WRN)", "10 % (WRN)")}
MOST_ACCEPTED = 10 / 10_000


def tables(rows: Rows) -> list[Table]:
    """Return all tables."""
    return [
        ("Gates", ["network", "figure", "target", "measured", "n", "met"], gates(rows)),
        ("Accuracy", ["network", "seed", "configuration", "of whom", "here", "the paper claims"], _accuracies(rows)),
        ("Credentials that come in by the network's word alone", ["network", "configuration", "images", "probes", "come in", "n"], _forged(rows)),
        ("Windows alone, by width and number of probes (first seed)", ["images", *_columns(rows)], _widths(rows)),
        ("What a theft leaves of the opened network",
         ["network", "attack", "accuracy", "users by windows", "probes in window", "classes", "bit errors"], _endured(rows)),
        ("Training back the stripped file of bound mode", ["network", "attack", "images", "recovered", "from scratch"], _recovered(rows)),
        ("Owner, labels, cost", ["network", "seed", "configuration", "figure", "on", "value", "n"], _rest(rows)),
    ]  # fmt: skip


def _of(rows: Rows, metric: str, **wanted: Any) -> Rows:
    """Return the rows of one metric with these values."""
    return [row for row in rows if row["metric"] == metric and all(row.get(name) == value for name, value in wanted.items())]


def gates(rows: Rows) -> list[list[object]]:
    """Return what is promised, and whether it holds here, for each architecture over all seeds: the worst seed decides."""
    lines: list[list[object]] = []
    for arch in dict.fromkeys(row["arch"] for row in rows):
        mine = [row for row in rows if row["arch"] == arch and row["configuration"] == "hardened"]
        for what, target, found, met in _checks(mine):
            worst = min(found, key=lambda row: met(row["value"]), default=None)
            good = worst is not None and all(met(row["value"]) for row in found)
            lines.append([arch, what, target, _spread(found), sum(row["n"] for row in found), yes(good)])
    return lines


def _checks(rows: Rows) -> list[tuple[str, str, Rows, Any]]:
    """Return (figure, target, rows, whether a value is good enough)."""
    chance = _chance(rows)
    pools = [row for row in _of(rows, "accepted") if row["budget"] == "m 4"]
    return [
        ("users crafted", "100 %", _of(rows, "crafted"), lambda v: v == 1),
        ("users identified after PNG", "100 %", _of(rows, "identified"), lambda v: v == 1),
        ("users taken for another", "0", _of(rows, "misattributed"), lambda v: v == 0),
        ("strangers past the network alone, 4 probes, worst kind", "<= 10 of 10,000", pools, lambda v: v <= MOST_ACCEPTED),
        ("forgers past the whole gate", "0", _of(rows, "full_gate", attack="all"), lambda v: v == 0),
        ("users past the whole gate", "100 %", _of(rows, "gate_admits"), lambda v: v == 1),
        ("accuracy without a credential, worst mode", f"<= {chance + 0.03:.2f}", _of(rows, "unauthorised"), lambda v: v <= chance + 0.03),
        ("authorised logits, bit for bit", "100 %", _of(rows, "bit_identical"), lambda v: v == 1),
        ("bound file, layer stripped", f"<= {chance + 0.05:.2f}", _of(rows, "stripped", attack="bound"), lambda v: v <= chance + 0.05),
        ("wrong bits after saving and loading", "0", _of(rows, "bit_errors", attack="saved and loaded"), lambda v: v == 0),
        ("revoked users refused", "100 %", _of(rows, "revoked_refused"), lambda v: v == 1),
    ]


def _chance(rows: Rows) -> float:
    """Return the accuracy of a guess: 1/K."""
    return next((1 / row["extra"]["classes"] for row in _of(rows, "original")), 0.1)


def _spread(found: Sequence[dict[str, Any]]) -> str:
    """Return the least and the largest value of some rows, with the interval of the one that stands furthest from the rest."""
    if not found:
        return "-"
    low, high = min(found, key=lambda row: row["value"]), max(found, key=lambda row: row["value"])
    shown = high if low["value"] != 1 or high["value"] != 1 else low
    span = f"[{shown['ci_low']:.4f}, {shown['ci_high']:.4f}]"
    same = low["value"] == high["value"]
    return f"{low['value']:.4f} {span}" if same else f"{low['value']:.4f} to {high['value']:.4f} {span}"


def _accuracies(rows: Rows) -> list[list[object]]:
    """Return accuracies with the paper's beside them."""
    lines: list[list[object]] = []
    for metric, place in (("original", None), ("authorised", 0), ("unauthorised", 1), ("stripped", None)):
        for row in _of(rows, metric):
            claim = PAPER.get(row["arch"], ("-", "-"))[place] if place is not None else "-"
            whom = f"{metric}, {row['attack']}" if row["attack"] else metric
            lines.append([row["arch"], row["scene"], row["configuration"], whom, figure(row), claim])
    return lines


def _forged(rows: Rows) -> list[list[object]]:
    """Return how often strangers' images come in by the network's word."""
    found = [*_of(rows, "accepted"), *_of(rows, "replayed")]
    return [[row["arch"], f"{row['configuration']} #{row['scene']}", row["attack"], row["budget"], _many(row), row["n"]] for row in found]


def _many(row: dict[str, Any]) -> str:
    """Return a rate as a count with its interval in percent."""
    return f"{round(row['value'] * row['n'])} [{row['ci_low']:.2%}, {row['ci_high']:.2%}]"


def _columns(rows: Rows) -> list[str]:
    """Return the widths and numbers of probes that were tried, with the users that they serve."""
    found = dict.fromkeys((row["budget"], row["extra"]["users"]) for row in _of(rows, "window_only", scene=0))
    return [f"{budget} ({users} users)" for budget, users in found]


def _widths(rows: Rows) -> list[list[object]]:
    """Return how often strangers come in by windows alone."""
    found = _of(rows, "window_only", scene=0)
    budgets, lines = list(dict.fromkeys(row["budget"] for row in found)), list[list[object]]()
    for arch in dict.fromkeys(row["arch"] for row in found):
        for attack in dict.fromkeys(row["attack"] for row in found):
            mine = [next(iter(_of(found, "window_only", arch=arch, attack=attack, budget=budget)), None) for budget in budgets]
            lines.append([f"{arch}: {attack}", *("-" if row is None else _share(row) for row in mine)])
    return lines


def _share(row: dict[str, Any]) -> str:
    """Return a rate with its interval in percent."""
    return f"{row['value']:.2%} [{row['ci_low']:.2%}, {row['ci_high']:.2%}]"


def _endured(rows: Rows) -> list[list[object]]:
    """Return windows, classes and bits after each theft, side by side."""
    found = _of(rows, "probes_in_window")
    metrics = ("accuracy", "windows", "probes_in_window", "classes", "bit_errors")
    return [
        [row["arch"], f"{row['attack']} {row['budget']}".strip(),
         *(figure(next(iter(_of(rows, metric, arch=row["arch"], attack=row["attack"], budget=row["budget"])), None)) for metric in metrics)]
        for row in found
    ]  # fmt: skip


def _recovered(rows: Rows) -> list[list[object]]:
    """Return what thieves reach from the stripped file, with training from scratch at the same budget."""
    lines: list[list[object]] = []
    for row in _of(rows, "recovered"):
        alone, span = row["extra"]["from_scratch"], row["extra"]["from_scratch_ci"]
        scratch = "-" if alone is None else f"{alone:.2f} [{span[0]:.2f}, {span[1]:.2f}]"
        lines.append([row["arch"], row["attack"], row["extra"]["images"] or "all", figure(row), scratch])
    return lines


def _rest(rows: Rows) -> list[list[object]]:
    """Return bits of the owner's and of null models, identification by labels, distances and times."""
    wanted = ("bit_errors", "null_bit_errors", "identified_by_labels", "null_identified_by_labels", "others_open", "distance", "latency",
              "lock_seconds", "issue_seconds")  # fmt: skip
    lines: list[list[object]] = []
    for metric in wanted:
        for row in _of(rows, metric):
            if metric == "bit_errors" and row["attack"] not in {"saved and loaded", "bound file, stripped"}:
                continue
            said = {
                name: value
                for name, value in row["extra"].items()
                if name in {"p", "binomial_p", "nulls", "least", "p0", "p_one_user", "p_any_user"}
            }
            told = "".join(f", {name} {value:.3g}" for name, value in said.items() if isinstance(value, int | float))
            lines.append([row["arch"], row["scene"], row["configuration"], metric, row["attack"] or "-", figure(row) + told, row["n"]])
    return lines
