"""Tables of the recipe ``dataset-lock``: gates, and what was learned from what."""

from __future__ import annotations

from typing import Any

from modelward.reproduce.fingerprint_tables import Rows, yes
from modelward.reproduce.tables import Table, figure
from modelward.statistics import wilson

DROP, NOISE, QUALITY = 0.30, 0.05, 24.0
CLAIMS = (("CIFAR-10", "0.86", "0.38"), ("TinyImageNet", "0.74", "0.16"))  # accuracy after training on clean and on protected images


def pick(rows: Rows, **wanted: Any) -> Rows:
    """Return the rows with these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def pooled(rows: Rows) -> dict[str, Any] | None:
    """Return rates of several seeds as one, with its interval; their test images may be the same, so it is that of one net more."""
    n = sum(row["n"] for row in rows)
    if not n:
        return None
    hits = wilson(round(sum(row["value"] * row["n"] for row in rows)), n)
    return {"value": hits.value, "ci_low": hits.low, "ci_high": hits.high, "n": n}


def tables(rows: Rows) -> list[Table]:
    """Return all tables of the results."""
    victims = _victims(rows)[:2]
    found = [
        ("Gates", ["figure", "target", "measured", "n", "met"], gates(rows)),
        ("Accuracy on clean test images, by what was trained on", ["data", "victim", "seed", "clean", "locked", "noise as large", "changes dealt at random"],
         _main(rows)),
        ("The locked sets", ["data", "configuration", "seed", "PSNR, dB", "SSIM", "largest change", "recovered", "how they lie"], _sets(rows)),
        ("Other settings, accuracy on clean test images", ["configuration", "PSNR, dB", *victims], _settings(rows, victims)),
        ("What a thief tries", ["configuration", "attack", "victim", "as published", "accuracy", "from his clean images alone", "n"], _tried(rows)),
    ]  # fmt: skip
    return [(caption, header, body) for caption, header, body in found if body]


def _tasks(rows: Rows) -> list[str]:
    return list(dict.fromkeys(row["task"] for row in rows))


def _victims(rows: Rows) -> list[str]:
    """Return the architectures that were trained on the first data set, the surrogate's first."""
    return list(dict.fromkeys(row["victim"] for row in pick(rows, metric="original", task=_tasks(rows)[0]))) if rows else []


def gates(rows: Rows) -> list[list[object]]:
    """Return what is asked of the lock, and whether it holds here."""
    lines: list[list[object]] = []
    for task in _tasks(rows):
        own = pick(rows, task=task)
        back = [row for row in own if row["metric"] == "recovered_images"]
        whole = pooled(back)
        lines.append(
            [f"{task}: images recovered", "100 %", figure(whole), sum(r["n"] for r in back), yes(whole is not None and whole["value"] == 1)]
        )
        quality = [row["value"] for row in pick(own, metric="psnr", configuration="chosen")]
        lines.append([f"{task}: PSNR, worst seed", f">= {QUALITY:g} dB", f"{min(quality, default=0):.1f}", len(quality),
                      yes(bool(quality) and min(quality) >= QUALITY)])  # fmt: skip
        for victim in dict.fromkeys(row["victim"] for row in pick(own, metric="original")):
            clean, locked = (
                pooled(pick(own, metric=m, configuration=c, victim=victim)) for m, c in (("original", "clean"), ("unauthorised", "chosen"))
            )
            noise = pooled(pick(own, metric="control", configuration="noise", victim=victim))
            lines += [_drop(f"{task}, {victim}: points lost to the lock", clean, locked, at_least=DROP),
                      _drop(f"{task}, {victim}: points lost to noise as large", clean, noise, at_most=NOISE)]  # fmt: skip
        same = [_same_weights(own, row) for row in pick(own, metric="authorised")]
        lines.append(
            [
                f"{task}: unlocked images train the very same weights",
                "every seed",
                f"{sum(same)} of {len(same)}",
                len(same),
                yes(bool(same) and all(same)),
            ]
        )
    return lines


def _drop(
    what: str, clean: dict[str, Any] | None, other: dict[str, Any] | None, *, at_least: float | None = None, at_most: float | None = None
) -> list[object]:
    """Return the line of a difference between two accuracies."""
    target = f">= {100 * at_least:.0f}" if at_least is not None else f"<= {100 * (at_most or 0):.0f}"
    if clean is None or other is None:
        return [what, target, "not tested", 0, "-"]
    lost = round(clean["value"] - other["value"], 9)
    met = lost >= at_least if at_least is not None else lost <= (at_most or 0)
    return [what, target, f"{100 * lost:.1f} ({figure(clean)} -> {figure(other)})", other["n"], yes(met)]


def _same_weights(rows: Rows, row: dict[str, Any]) -> bool:
    """Return whether the net trained on unlocked images is, bit for bit, that trained on the originals."""
    others = pick(rows, metric="original", victim=row["victim"], scene=row["scene"])
    return bool(others) and others[0]["extra"]["state"] == row["extra"]["state"]


def _main(rows: Rows) -> list[list[object]]:
    """Return one line for each victim and seed; first what the paper claims."""
    measured = pick(rows, metric="original")
    lines: list[list[object]] = [[data, "the paper claims", "", *claim, "", ""] for data, *claim in CLAIMS] if measured else []
    for clean in measured:
        where = {name: clean[name] for name in ("task", "victim", "scene")}
        others = [pick(rows, configuration=name, attack="none", **where) for name in ("chosen", "noise", "shuffled")]
        shown = [figure(found[0]) if found else "-" for found in others]
        lines.append([clean["task"], clean["victim"], clean["scene"], figure(clean), *shown])
    return lines


def _sets(rows: Rows) -> list[list[object]]:
    """Return one line for each locked set."""
    lines: list[list[object]] = []
    for row in pick(rows, metric="recovered_images"):
        where = {name: row[name] for name in ("task", "configuration", "scene")}
        values = [pick(rows, metric=metric, **where)[0]["value"] for metric in ("psnr", "ssim", "linf")]
        lie = ", ".join(f"{count} in {words}" for words, count in row["extra"]["counts"].items())
        back = f"{round(row['value'] * row['n'])} of {row['n']}"
        lines.append(
            [row["task"], row["configuration"], row["scene"], f"{values[0]:.1f}", f"{values[1]:.3f}", f"{values[2]:.0f}", back, lie]
        )
    return lines


def _settings(rows: Rows, victims: list[str]) -> list[list[object]]:
    """Return one line for each configuration of the first data set and seed."""
    first = pick(rows, task=_tasks(rows)[0], scene=0) if rows else []
    lines: list[list[object]] = []
    for row in pick(first, metric="psnr"):
        name = row["configuration"]
        found = [pick(first, metric="unauthorised", configuration=name, victim=victim) for victim in victims]
        if any(found):
            lines.append([name, f"{row['value']:.1f}", *(figure(rate[0]) if rate else "-" for rate in found)])
    return lines


def _tried(rows: Rows) -> list[list[object]]:
    """Return one line for each thing that thieves try: on the chosen lock all of it, on the others the renaming of outputs."""
    lines: list[list[object]] = []
    for row in sorted(pick(rows, metric="recovered", scene=0), key=lambda row: row["configuration"] != "chosen"):
        attack = f"{row['budget']}, mixed in" if row["budget"] else row["attack"]
        where = {name: row[name] for name in ("task", "victim", "scene", "configuration")}
        published = next(iter(pick(rows, metric="unauthorised", **where)), None)
        alone = row["extra"].get("from_scratch")
        lines.append([row["configuration"], attack, f"{row['victim']}, {row['task']}", figure(published), figure(row),
                      "-" if alone is None else f"{alone:.2f}", row["n"]])  # fmt: skip
    return lines
