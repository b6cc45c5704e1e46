"""What the recipes of the baseline marks share: one source, its null models and strangers, a cell a configuration, and the table of thefts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelward.core.catalogue import find
from modelward.core.errors import ModelwardError, UsageError
from modelward.core.rng import derive_seed
from modelward.data import Study, load_data, study
from modelward.evaluation.budget import train_seconds
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine
from modelward.evaluation.zoo import NullSpec, null_cells, null_recipe, put_parts, train_cell
from modelward.reproduce.fingerprint_tables import Rows, find_row, rows_by_name
from modelward.statistics import clopper_pearson

Fields = dict[str, Any]
Configuration = tuple[str, Fields]
THEFTS: tuple[tuple[str, Fields, str], ...] = (
    ("ftll", {}, "true"), ("ftal", {}, "true"), ("rtll", {}, "stolen"), ("rtal", {}, "stolen"), ("prune", {"sparsity": 0.5}, "none"),
    ("prune", {"sparsity": 0.7}, "none"), ("extract-l", {}, "stolen"),
)  # fmt: skip
COLUMNS = ("marked", "ftll", "ftal", "rtll", "rtal", "prune 0.5", "prune 0.7", "extract-l")


@dataclass(frozen=True)
class Scale:
    """How large a profile is: data set, images a split, the owner's and the thief's images, architecture, null zoo, strangers, thefts."""

    data: str
    limit: int | None
    owner: int
    attacker: int
    arch: str
    zoo: str
    strangers: int
    thefts: int = len(THEFTS)


SCALES = {
    "smoke": Scale("fashion-mini", 400, 200, 200, "mlp:width=32", "smoke", 1, 2),
    "quick": Scale("mnist-5k", None, 3000, 1000, "lenet5", "quick", 6),
    "full": Scale("fashion-mini", None, 3000, 3000, "lenet5", "full", 12),
}


@dataclass(frozen=True)
class Scene:
    """The ground of one profile: its study, the stored parts, the source, the models that calibrate and those that do not."""

    scale: Scale
    study: Study
    parts: dict[str, str]
    source: Cell
    nulls: list[Cell]
    strangers: list[Cell]
    seed: int

    def cell(self, configuration: Configuration, more: Sequence[tuple[str, Fields, str]] = ()) -> Cell:
        """Return the cell that marks the source with one configuration, steals the marked model and reads the mark from all."""
        name, fields = configuration
        thefts: list[dict[str, Any]] = [
            {"method": m, "fields": f, "labels": labels} for m, f, labels in (*THEFTS[: self.scale.thefts], *more)
        ]
        inputs: dict[str, str | Cell] = {"victim": self.source, **{part: self.parts[part] for part in ("owner", "attacker", "test")}}
        inputs |= {f"null/{i}": cell for i, cell in enumerate(self.nulls)} | {
            f"stranger/{i}": cell for i, cell in enumerate(self.strangers)
        }
        return Cell(
            work="modelward.evaluation.work_baseline:endure", settings={"method": name, "fields": fields, "thefts": thefts}, inputs=inputs,
            seed=derive_seed(self.seed, "baseline", name), label=f"{name} {fields.get('variant', 'hardened')}",
            seconds=2 * train_seconds(self.scale.arch, len(self.study.owner), 20, self.study.test.shape),
            uses=(type(find(name)()).__module__, *(type(find(theft["method"])()).__module__ for theft in thefts)),
        )  # fmt: skip

    def words(self, rows: Rows) -> str:
        """Return what the scene is made of."""
        made = self.study
        accuracy = rows[1]["extra"]["accuracy"]
        return (
            f"Source: {self.scale.arch} on {made.owner.name}, accuracy {accuracy:.1%} on {len(made.test)} images; owner {len(made.owner)}, thief "
            f"{len(made.attacker)} other images; {len(self.nulls)} null models and {len(self.strangers)} strangers, which decide nothing. Small "
            "statistics mean marked; tables show the share of the key that is found. Intervals are exact binomial ones over the images or bits of "
            "one key and one attacked model, not over models."
        )


def make_scene(profile: str, seed: int, engine: Engine, arch: str | None = None) -> Scene:
    """Describe and train the source, the null zoo and the strangers; ``arch`` is another architecture than the profile's.

    Raises
    ------
    UsageError
        for an unknown profile.
    ModelwardError
        when a model could not be trained.
    """
    if profile not in SCALES:
        message = f"profile is {', '.join(SCALES)}, not {profile!r}"
        raise UsageError(message)
    scale, seed = SCALES[profile], derive_seed("baselines", seed)
    scale = scale if arch is None else replace(scale, arch=arch)
    made = study(load_data(scale.data, limit=scale.limit), seed=seed, owner_size=scale.owner, attacker_size=scale.attacker)
    parts = put_parts(engine.store, made)
    source = train_cell(NullSpec(scale.arch, "owner", 1.0, "source", 0), null_recipe(scale.arch), parts, made, derive_seed(seed, "source"))
    nulls = null_cells(scale.arch, made, parts, profile=scale.zoo, seed=seed)
    kinds = [(scale.arch, part) for part in ("owner", "attacker")]
    strangers = [
        train_cell(NullSpec(*kinds[i % 2], 1.0, "stranger", 100 + i), null_recipe(scale.arch), parts, made, derive_seed(seed, "stranger"))
        for i in range(scale.strangers)
    ]
    run = engine.run([source, *nulls, *strangers], task="models")
    if run.failed:
        message = f"{len(run.failed)} models could not be trained: {next(iter(run.failed.values()))}"
        raise ModelwardError(message)
    return Scene(scale, made, parts, source, nulls, strangers, seed)


def measure(
    scene: Scene, named: Mapping[str, Configuration], engine: Engine, more: Mapping[str, Sequence[tuple[str, Fields, str]]] | None = None
) -> dict[str, Rows]:
    """Return the rows of every configuration by its name; ``more`` are further thefts by method.

    Raises
    ------
    ModelwardError
        when a configuration could not be measured.
    """
    cells = [scene.cell(configuration, (more or {}).get(configuration[0], ())) for configuration in named.values()]
    run = engine.run(cells, task="marks")
    for name, cell in zip(named, cells, strict=True):
        if cell.key in run.failed:
            message = f"{name} could not be measured: {run.failed[cell.key]}"
            raise ModelwardError(message)
    return rows_by_name(run, list(named), cells)


def found(row: dict[str, Any]) -> tuple[int, int]:
    """Return how many of a key's images or bits were found, and of how many.

    >>> found({"value": 0.25, "n": 8})
    (6, 8)
    """
    return row["n"] - round(row["value"] * row["n"]), row["n"]


def share(row: dict[str, Any] | None) -> str:
    """Return the share of a key that is found, with its exact interval, and the accuracy of the model behind a bar.

    >>> share({"value": 0.5, "n": 10, "extra": {"accuracy": 0.9}})
    '.50 [.19, .81] / .90'
    """
    if row is None or row["value"] is None:
        return "-"
    interval = clopper_pearson(*found(row))
    figures = [f"{value:.2f}".removeprefix("0") for value in (interval.value, interval.low, interval.high, row["extra"]["accuracy"])]
    return f"{figures[0]} [{figures[1]}, {figures[2]}] / {figures[3]}"


def theft_line(name: str, rows: Rows) -> list[object]:
    """Return the share of the key that is found after each theft, with the thief's accuracy."""
    return [name, *(share(find_row(rows, "statistic", column)) for column in COLUMNS)]


def decision_line(name: str, rows: Rows) -> list[object]:
    """Return where the threshold of a configuration lies, and whom it accuses: nulls, strangers, a key that was only claimed, a forged one."""
    marked = rows[0]["extra"]
    nulls, strangers = ([row for row in rows if row["attack"] == kind] for kind in ("null", "stranger"))
    shares = [1 - row["value"] for row in nulls]
    claimed, forged = (find_row(rows, "statistic", what) for what in ("claimed", "forged"))
    return [
        name, "-" if marked["threshold"] is None else f"{1 - marked['threshold']:.2f}", f"{min(shares):.2f} to {max(shares):.2f}",
        f"{sum(row['extra']['matches'] for row in nulls)} of {len(nulls)}", f"{sum(row['extra']['matches'] for row in strangers)} of {len(strangers)}",
        *(fits(row) for row in (claimed, forged)), f"{marked['p']:.1e}" if marked["p"] is not None else "-",
    ]  # fmt: skip


DECISIONS = [
    "configuration",
    "found, at least",
    "null models",
    "nulls accused",
    "strangers accused",
    "claimed key fits",
    "forged key fits",
    "p over secrets",
]


def fits(row: dict[str, Any] | None) -> str:
    """Return whether a key fits a model that was never marked with it, and what the verdict without a commitment is."""
    if row is None or row["value"] is None:
        return "could not be made"
    return f"{'yes' if row['extra']['matches'] else 'no'}, {row['extra']['decision'].replace('_', ' ')}"


def anchored(name: str, rows: Rows, anchors: Mapping[str, float]) -> list[list[object]]:
    """Return how the share of a key that is found compares with figures measured elsewhere: whether they lie in its exact interval."""
    lines: list[list[object]] = []
    for attack, wanted in anchors.items():
        row = find_row(rows, "statistic", attack)
        if row is not None and row["value"] is not None:
            interval = clopper_pearson(*found(row))
            lines.append(
                [
                    name,
                    attack,
                    f"{wanted:.2f}",
                    share(row),
                    "inside" if interval.low <= wanted <= interval.high else _side(interval.value, wanted),
                ]
            )
    return lines


def _side(value: float, wanted: float) -> str:
    """Return on which side of an anchor a figure lies."""
    return "higher" if value > wanted else "lower"


def labelled(rows: Mapping[str, Sequence[dict[str, Any]]], profile: str, command: str) -> Rows:
    """Return the rows of all configurations, each with its name, for the results file."""
    return [{**row, "configuration": name, "profile": profile, "command": command} for name, many in rows.items() for row in many]
