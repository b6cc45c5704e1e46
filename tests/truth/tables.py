"""``python -m tests.truth.tables FOLDER OUT``: the parts that are done, counted, as ``truth.json`` and ``truth.md``."""

from __future__ import annotations

import datetime as dt
import json
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tests.truth.datasets import CHANGES, OPTIMISERS

from modelward import __version__
from modelward.core.verdict import ALPHA
from modelward.evaluation.environment import environment
from modelward.reproduce.tables import Table, markdown, pretty_json
from modelward.statistics import bootstrap, clopper_pearson

FOUND = {"stolen", "related"}
ACROSS = "distilled across architectures"
COMMAND = "python -m tests.truth.train MODELS && python -m tests.truth MODELS && python -m tests.truth.tables MODELS docs/results"
WHO = (
    "Owners, siblings, strangers and thieves have 2,000 images of fashion-mini each, those of `photographs` 3,000 of CIFAR-10; locked sets have 3,000 of "
    "fashion-mini. `foreign` is an owner with a training loop, net and optimiser of his own, `ours` one who used `modelward.fit`, `base` one who "
    "fine-tuned a public network and says so. Strangers and thieves come from the foreign loop, whoever the owner is. Every key has 19 siblings and, where "
    "nothing else is said, a commitment that is older than the suspect. *Found* counts the verdicts stolen and related."
)
WHEN = (
    "The rows of fingerprints of `foreign`, `ours` and `base`, but for infip and all keys together, were made before the guard looked at more figures of "
    "the method's own probes (a stricter guard only says undecided more often), and those of the foreign owners' rates and of unit-order on garments before "
    "enrolments drew from digests. The rule for near copies was changed after it had refused the honest family of `base` (decision 0022)."
)
Row = dict[str, Any]


def _counted(table: str, who: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Row:
    """Return how many of some verdicts are findings, with the exact interval; what could not be read is not counted."""
    read = [one for one in rows if one["decision"] != "unreadable"]
    hits = sum(one["decision"] in FOUND for one in read)
    told: Row = {"table": table, **who, "found": hits, "n": len(read), "unreadable": len(rows) - len(read)}
    told |= {name.replace(" ", "_"): sum(one["decision"] == name for one in read) for name in ("undecided", "not stolen")}
    if read:
        bounds = clopper_pearson(hits, len(read))
        told |= {"value": hits / len(read), "ci_low": bounds.low, "ci_high": bounds.high}
    return told


def _grouped(rows: Sequence[Mapping[str, Any]], *keys: str) -> Iterator[tuple[tuple[Any, ...], list[Mapping[str, Any]]]]:
    """Yield rows that agree in ``keys``, in the order in which they come."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for one in rows:
        found[tuple(one[key] for key in keys)].append(one)
    yield from found.items()


def named(part: Mapping[str, Any], owner: str) -> Iterator[Row]:
    """Yield the rows of one owner and method: every kind of stranger, all of them, and thieves by what they had."""
    strangers = [one for one in part["rows"] if one["had"] == "nothing"]
    taken = [one for one in part["rows"] if one["had"] != "nothing"]
    who = {"owner": owner, "method": part["method"]}
    shared = {"owner's start", "same script and seed"}
    for (kind, access), rows in _grouped(strangers, "kind", "access"):
        yield _counted("strangers by kind", {**who, "kind": kind, "access": access, "declared": kind in shared}, rows)
    for (access,), rows in _grouped([one for one in strangers if one["kind"] not in shared], "access"):
        yield _counted("strangers", {**who, "access": access}, rows)
    for (had, access), rows in _grouped(
        [{**one, "had": ACROSS if one["kind"] == ACROSS else one["had"]} for one in taken], "had", "access"
    ):
        yield _counted("thieves", {**who, "had": had, "access": access}, rows)


def rates(part: Mapping[str, Any], recipe: str) -> Iterator[Row]:
    """Yield the mean share of strangers that owners of a recipe accuse, with a bootstrap interval over owners."""
    for access in part["owners"][0]:
        told = [[claimed for said, claimed in owner[access] if said != "unreadable"] for owner in part["owners"]]
        doubted = [
            any(not claimed and not isinstance(said, str) and said <= ALPHA for said, claimed in owner[access]) for owner in part["owners"]
        ]
        shares = [sum(one) / len(one) for one in told if one]
        if not shares:
            continue
        bounds = bootstrap(np.array(shares), lambda drawn: float(drawn.mean()), rng=np.random.default_rng(0))
        yield {
            "table": "rate over owners", "recipe": recipe, "method": part["method"], "access": access, "owners": len(shares),
            "strangers": len(told[0]), "n": sum(map(len, told)), "value": float(np.mean(shares)), "ci_low": bounds.low, "ci_high": bounds.high,
            "shares": [round(share, 4) for share in shares], "undecided_owners": sum(doubted),
        }  # fmt: skip


def guarded(part: Mapping[str, Any]) -> Iterator[Row]:
    """Yield how many owners the guard refuses: those whose recipe moves the accuracy on the training images by three points, and the siblings' own."""
    for kind, told in (("owner", "the siblings' own recipe"), ("misfit", "another recipe, 3 points or more")):
        rows = [one for one in part["rows"] if one["kind"] == kind and (kind == "owner" or abs(one["gap"]) >= 0.03)]
        hits = sum(one["refused"] for one in rows)
        bounds = clopper_pearson(hits, len(rows)) if rows else None
        gaps = [one["gap"] for one in rows]
        yield {"table": "guard", "recipe": told, "found": hits, "n": len(rows), "value": hits / max(1, len(rows)), "gaps": gaps,
               **({"ci_low": bounds.low, "ci_high": bounds.high} if bounds else {})}  # fmt: skip


def taught(part: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the accuracy of nets of one architecture that learnt from a set."""
    for one in part["rows"]:
        bounds = clopper_pearson(one["right"], one["n"])
        yield {
            "table": "locked sets", "recipe": part["variant"], "method": part["net"], "change": one["change"], "optimiser": one["optimiser"],
            "found": one["right"], "n": one["n"], "value": one["right"] / one["n"], "ci_low": bounds.low, "ci_high": bounds.high, "psnr": part["psnr"],
        }  # fmt: skip


def _lessons(rows: Sequence[Row]) -> list[list[Any]]:
    """Return a line for each net and set: the accuracy of every way to train, and the points that the least and the mean of them lose."""
    clean = {(row["method"], row["change"], row["optimiser"]): row["value"] for row in rows if row["recipe"] == "clean"}
    lines = []
    for (recipe, net), own in _grouped(rows, "recipe", "method"):
        lost = [
            round(100 * (clean[net, one["change"], one["optimiser"]] - one["value"]), 6)
            for one in own
            if (net, one["change"], one["optimiser"]) in clean
        ]
        told = (
            ""
            if recipe == "clean" or not lost
            else f"{min(lost):.1f} to {max(lost):.1f}, {sum(value >= 20 for value in lost)} of {len(lost)}"
        )
        quality = "" if own[0]["psnr"] is None else f"{own[0]['psnr']:.1f}"
        lines.append([net, recipe, quality, *(f"{one['value']:.2f}" for one in own), told])
    return lines


def begun(part: Mapping[str, Any]) -> Iterator[Row]:
    """Yield how many owners who say ``--base none`` are refused."""
    for (kind,), rows in _grouped(part["rows"], "kind"):
        hits = sum(one["refused"] for one in rows)
        bounds = clopper_pearson(hits, len(rows))
        yield {"table": "starts", "recipe": kind, "found": hits, "n": len(rows), "value": hits / len(rows), "p": [one["p"] for one in rows],
               "ci_low": bounds.low, "ci_high": bounds.high}  # fmt: skip


def simulated(parts: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    """Yield how often p was at most .05 in all chunks of a simulation, by suspect and for all, and what it may be."""
    for (method, m), chunks in _grouped(parts, "method", "m"):
        drawn, claimed = (Counter[str]() for _ in range(2))
        for one in chunks:
            for what, n in one["drawn"].items():
                for name in (what, f"all, {what.split(', ')[1]}"):
                    drawn[name] += n
                    claimed[name] += one["claimed"][what]
        for what, n in sorted(drawn.items()):
            spare, bounds = 3 * math.sqrt(ALPHA * (1 - ALPHA) / n), clopper_pearson(claimed[what], n)
            yield {
                "table": "simulation", "owner": "drawn", "method": method, "m": m, "suspect": what, "found": claimed[what], "n": n,
                "refused": sum(one["refused"] for one in chunks), "value": claimed[what] / n, "ci_low": bounds.low, "ci_high": bounds.high,
                "most": ALPHA + spare, "least": ALPHA - spare,
            }  # fmt: skip


def everything(folder: Path, earlier: Sequence[Row] = ()) -> list[Row]:
    """Return the rows of all parts that are done in a folder, and the ``earlier`` ones of parts that it does not have."""
    fresh = _measured(folder)
    made = {_part(row) for row in fresh}
    return sorted([*(row for row in earlier if _part(row) not in made), *fresh], key=lambda row: str(_part(row)))


def _part(row: Row) -> tuple[Any, ...]:
    """Return what is measured in one go."""
    return tuple(str(row.get(name, "")) for name in ("table", "owner", "recipe", "method", "m"))


def _measured(folder: Path) -> list[Row]:
    """Return the rows of all parts that are done."""
    parts = {path.stem: json.loads(path.read_text()) for path in sorted((folder / "rows").glob("*.json"))}
    rows: list[Row] = []
    for stem, part in parts.items():
        kind, owner = stem.split("-")[:2]
        if kind in {"named", "marked", "together"} and part["rows"]:
            rows += named(part, owner)
        elif kind == "rate":
            rows += rates(part, owner)
        elif kind == "guard":
            rows += guarded(part)
        elif kind == "taught":
            rows += taught(part)
        elif kind == "starts":
            rows += begun(part)
        elif kind == "forged":
            sums = {name: sum(one[key] for one in part["rows"]) for name, key in (("n", "tried"), ("fits", "fits"), ("found", "stolen"))}
            rows.append({"table": "forged", "method": part["method"], "models": len(part["rows"]), **sums, "why": part.get("why", "")})
        elif kind == "orders":
            rows += [
                _counted("orders", {"owner": owner, "method": "unit-order", "change": one["change"]}, one["rows"])
                for one in part["changes"]
            ]
    return rows + list(simulated([part for stem, part in parts.items() if stem.startswith("simulation")]))


def _cell(row: Mapping[str, Any] | None) -> str:
    """Return a count with its interval: ``"3 of 72 [.01, .12]"``."""
    if row is None or not row["n"]:
        return "-"
    return f"{row['found']} of {row['n']} [{row['ci_low']:.2f}, {row['ci_high']:.2f}]"


def _share(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return the tables of the page."""
    of = {name: [row for row in rows if row["table"] == name] for name in ("rate over owners", "strangers", "strangers by kind", "thieves", "guard",
                                                                              "simulation", "forged", "orders", "starts", "locked sets")}  # fmt: skip
    made: list[Table] = [(
        "Rate over owners: the mean share of strangers that an owner accuses (goal: at most .08, lower limit at most .05)",
        ["recipe", "method", "asked for", "owners", "strangers", "share accused [95 %]", "owners without a decision"],
        [[r["recipe"], r["method"], r["access"], r["owners"], r["strangers"], _share(r), r["undecided_owners"]] for r in of["rate over owners"]],
    ), (
        "Strangers of the named owners that are found",
        ["owner", "method", "asked for", "found", "undecided", "not stolen", "unreadable"],
        [[r["owner"], r["method"], r["access"], _cell(r), r["undecided"], r["not_stolen"], r["unreadable"]] for r in of["strangers"]],
    ), (
        "Thieves of the named owners that are found",
        ["owner", "method", "the thief had", "asked for", "found", "undecided", "not stolen", "unreadable"],
        [[r["owner"], r["method"], r["had"], r["access"], _cell(r), r["undecided"], r["not_stolen"], r["unreadable"]] for r in of["thieves"]],
    ), (
        "Guard: owners that are refused (goal: at least 19 of 20 of another recipe, at most 2 of 20 of the siblings' own)",
        ["owner's recipe", "refused"], [[r["recipe"], _cell(r)] for r in of["guard"]],
    ), (
        "`--base none`: owners whose word is refused (goal: all who began at the public network)",
        ["the owner's training", "refused", "largest p"], [[r["recipe"], _cell(r), f"{max(r['p']):.4f}"] for r in of["starts"]],
    ), (
        "unit-order on nets of one shape", ["both nets", "found", "undecided", "unreadable"],
        [[r["change"], _cell(r), r["undecided"], r["unreadable"]] for r in of["orders"]],
    ), (
        "Forged keys, as if dated before the suspect (goal: none is said to be stolen)", ["method", "models", "tries", "fit", "stolen"],
        [[r["method"], r["models"], r["n"], r["fits"], r["found"]] for r in of["forged"]],
    ), (
        "Simulation: share with p <= .05 (goal: at most .05 and three standard errors)",
        ["method", "siblings", "suspect, asked for", "owners", "share [95 %]", "at most"],
        [[r["method"], r["m"], r["suspect"], r["n"], _share(r), f"{r['most']:.4f}"] for r in of["simulation"]],
    ), (
        "dataset-lock: accuracy on clean images of nets that the lock has not seen (goal: 20 points on 5 of 6 nets; n = 1,000, intervals of 2 to 3 points)",
        ["net", "images of a class share", "PSNR", *(f"{change}, {rule}" for change in CHANGES for rule in OPTIMISERS), "points lost, ways that lose 20"],
        _lessons(of["locked sets"]),
    ), (
        "Strangers by kind; the last two share the initial weights of owners who said that nobody has them",
        ["owner", "method", "asked for", "kind", "found"],
        [[r["owner"], r["method"], r["access"], r["kind"], _cell(r)] for r in of["strangers by kind"]],
    )]  # fmt: skip
    return [table for table in made if table[2]]


def document(folder: Path, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the results document; what ``folder`` has no rows of is taken over from the document ``before``."""
    before = before or {"rows": (), "seconds": 0.0}
    rows = everything(folder, before["rows"])
    spent = {path.stem: json.loads(path.read_text())["seconds"] for path in sorted((folder / "rows").glob("*.json"))}
    spent = {**before.get("spent", {"before": before["seconds"]}), **spent}
    paragraphs = [WHO, WHEN, "No statistic was chosen on these owners: that was done on three others, of another cut (decision 0018)."]
    return {
        "schema": "modelward/results", "version": 1, "name": "truth", "title": "Does a verdict hold?", "paragraphs": paragraphs,
        "tables": tables(rows), "rows": rows, "command": COMMAND,
        "seconds": round(sum(spent.values()), 1), "spent": spent, "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "environment": {"modelward": __version__, **environment()},
    }  # fmt: skip


def main(folder: Path, out: Path) -> None:
    """Write the document and its page."""
    before = out / "truth.json"
    made = document(folder, json.loads(before.read_text(encoding="utf-8")) if before.exists() else None)
    out.mkdir(parents=True, exist_ok=True)
    (out / "truth.md").write_text(markdown(made), encoding="utf-8")
    (out / "truth.json").write_text(pretty_json(made), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
