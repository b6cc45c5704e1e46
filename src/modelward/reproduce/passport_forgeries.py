"""Attacks 2 and 3 of the DeepIPR paper in the recipe of the marks in weights: their cells and their table."""

from __future__ import annotations

from collections.abc import Mapping

from modelward.audit.section import percent
from modelward.core.errors import ModelwardError
from modelward.core.rng import derive_seed
from modelward.evaluation.budget import train_seconds
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine
from modelward.reproduce.baselines import Configuration, Scene
from modelward.reproduce.fingerprint_tables import Rows, find_row
from modelward.statistics import newcombe

SUFFIX = ", forged"
FORGED = [
    "configuration", "published", "with the passports", "attack", "accuracy with forged scales", "with forged passports", "points lost",
    "signs that are the owner's", "likeness to the genuine", "the paper's statistic", "hardened takes the key",
]  # fmt: skip
FORGING = (
    "Attack 2 of the passport paper trains scales and shifts of the gates alone, with a tenth of the owner's number of images and a share of the signs "
    "turned; attack 3 makes other passports for them, here in closed form. The paper's rule takes a key whose statistic is small."
)


def forged_rows(scene: Scene, named: Mapping[str, Configuration], engine: Engine) -> dict[str, Rows]:
    """Return the rows of forging each configuration of passports that draws its own, by the configuration's name and ``, forged``.

    Raises
    ------
    ModelwardError
        when one could not be forged.
    """
    inputs: dict[str, str | Cell] = {"victim": scene.source, **{part: scene.parts[part] for part in ("owner", "attacker", "test")}}
    many, small = max(2, len(scene.study.owner) // 10), len(scene.study.owner) < 500
    cells = {
        name + SUFFIX: Cell(
            work="modelward.evaluation.work_passports:forge", settings={"fields": fields, "images": many, "epochs": 2 if small else 40},
            inputs=inputs, seed=derive_seed(scene.seed, "forgery", name), label=f"forging {name}",
            seconds=2 * train_seconds(scene.scale.arch, len(scene.study.owner), 10, scene.study.test.shape),
            uses=("modelward.ownership.passport", "modelward.ownership.passport_forging"),
        )
        for name, (_, fields) in named.items() if fields.get("variant") != "paper"
    }  # fmt: skip
    run = engine.run(list(cells.values()), task="forgeries")
    if run.failed:
        message = f"passports could not be forged: {next(iter(run.failed.values()))}"
        raise ModelwardError(message)
    return {name: finished.rows for name, cell in cells.items() if (finished := run.of(cell)) is not None}


def forged_lines(forged: Mapping[str, Rows]) -> list[list[object]]:
    """Return one line a configuration and share of turned signs."""
    lines: list[list[object]] = []
    for name, rows in forged.items():
        published, unlocked = (find_row(rows, metric, "none") for metric in ("published", "unlocked"))
        for row in (row for row in rows if row["metric"] == "forged_passports"):
            scales, extra = find_row(rows, "forged_scales", row["attack"]), row["extra"]
            if published is None or unlocked is None or scales is None:
                continue
            pair = [(round(one["value"] * one["n"]), one["n"]) for one in (unlocked, row)]
            lost = newcombe(pair[0], pair[1])
            lines.append([
                name.removesuffix(SUFFIX), percent(published), percent(unlocked), row["attack"], percent(scales), percent(row),
                f"{100 * lost.value:.1f} [{100 * lost.low:.1f}, {100 * lost.high:.1f}]", f"{extra['signs_of_the_owner']:.0%}",
                f"{extra['likeness']:.2f}", f"{extra['statistic']:.3f}", "yes" if extra["hardened"] else "no",
            ])  # fmt: skip
    return lines
