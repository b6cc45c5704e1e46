"""Uchida, DeepMarks and passports: what is left of each mark in the weights, whom a leaked copy is traced to, and what forgers reach."""

from __future__ import annotations

from typing import Any

from modelward.core.errors import ModelwardError
from modelward.core.rng import derive_seed
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine
from modelward.evaluation.store import Store
from modelward.reproduce.baselines import COLUMNS as SHARED
from modelward.reproduce.baselines import (
    DECISIONS,
    Configuration,
    Fields,
    Scene,
    anchored,
    decision_line,
    labelled,
    make_scene,
    measure,
    share,
    theft_line,
)
from modelward.reproduce.fingerprint_tables import SMOKE, Rows, find_row, yes
from modelward.reproduce.passport_forgeries import FORGED, FORGING, SUFFIX, forged_lines, forged_rows
from modelward.reproduce.tables import Table

NAMED: dict[str, Configuration] = {
    "uchida, lambda .01, Adam": ("uchida", {"variant": "paper", "lam": 0.01, "optimizer": "adam", "lr": 0.002}),
    "uchida, paper": ("uchida", {"variant": "paper"}),
    "uchida": ("uchida", {}),
    "uchida, orthonormal": ("uchida", {"kind": "orthonormal"}),
    "uchida, control: lambda 0": ("uchida", {"lam": 0.0}),
    "deepmarks, paper": ("deepmarks", {"variant": "paper"}),
    "deepmarks": ("deepmarks", {}),
}
PASSPORTS: dict[str, Configuration] = {
    "passport 1": ("passport", {"scheme": 1}),
    "passport 2": ("passport", {"scheme": 2}),
    "passport 2, paper, shuffled images": ("passport", {"scheme": 2, "variant": "paper", "kind": "shuffle"}),
    "passport 3": ("passport", {"scheme": 3}),
}
SMALL: dict[str, Fields] = {
    "uchida": {"bits": 64, "epochs": 2, "batch": 32, "lam": 0.1}, "deepmarks": {"epochs": 1, "batch": 32},
    "passport": {"epochs": 4, "batch": 32, "significance": 0.001},
}  # fmt: skip
SMOKED = ("uchida, paper", "uchida", "deepmarks", "passport 2")
ANCHORS = {
    "uchida, lambda .01, Adam": {
        "marked": 0.969, "ftll": 0.969, "ftal": 0.969, "rtll": 0.969, "rtal": 0.969, "prune 0.5": 0.969, "prune 0.7": 0.969,
    },
}  # fmt: skip
EXTRA = ("quantise 8", "quantise 5", "quantise 4", "overwrite", "weight-shift", "weight-shift 1.0", "permute", "rescale")
_MORE: tuple[tuple[str, Fields, str], ...] = (
    *(("quantise", {"bits": bits}, "none") for bits in (8, 5, 4)), ("weight-shift", {}, "true"), ("weight-shift", {"shift": 1.0}, "true"),
    ("permute", {}, "none"), ("rescale", {}, "none"),
)  # fmt: skip
MORE = {name: (*_MORE, ("overwrite", {"method": name}, "stolen")) for name in ("uchida", "deepmarks", "passport")}
WAYS = ("average", "median", "splice", "splice-filters", "min", "max")
USERS = {
    "smoke": {"7 users": {"fields": {"users": 7, "epochs": 2, "batch": 32}, "copies": 4, "leaked": 2, "ways": ["average"], "sizes": [2], "trials": 3}},
    "quick": {
        "31 users": {"fields": {"users": 31}, "copies": 31, "leaked": 31, "ways": list(WAYS), "sizes": [2, 3, 4, 5], "trials": 50},
        "100 users": {"fields": {"users": 100, "epochs": 1}, "copies": 100, "leaked": 10, "ways": ["average"], "sizes": [2, 3, 5], "trials": 50},
    },
}  # fmt: skip


def weight_baselines(*, profile: str, seed: int, store: Store, jobs: int | None, command: str) -> dict[str, Any]:
    """Measure the marks in weights; return the results document."""
    engine, small = Engine(store, jobs=jobs), profile == "smoke"
    scene = make_scene(profile, seed, engine, arch="cnn:width=8" if small else None)
    gated = scene if small else make_scene(profile, seed, engine, arch="cnn")
    chosen = [
        {name: _small(pair) if small else pair for name, pair in part.items() if not small or name in SMOKED} for part in (NAMED, PASSPORTS)
    ]
    more = {name: MORE[name][-2:] for name in MORE} if small else MORE
    rows = {**measure(scene, chosen[0], engine, more), **measure(gated, chosen[1], engine, more)}
    traced, forged = _traced(scene, profile, engine), forged_rows(gated, chosen[1], engine)
    paragraphs = [
        (
            "Uchida et al. (arXiv 1701.04082), DeepMarks (arXiv 1804.03648), passports (arXiv 1909.07830). Bits and signs for a share of the key; of "
            "passports the share is that of right signs or of kept accuracy with the passports, whichever is less."
        ),
        scene.words(next(iter(rows.values()))),
        f"Passports need batch normalisation: their source is {gated.scale.arch}.",
        FORGING,
        "A forged key of the paper's variants is solved for in closed form and fits; of the hardened ones it is the best of 1,000 secrets.",
    ]
    found = labelled({**rows, **traced, **forged}, profile, command)
    return {"title": f"weight-baselines, profile {profile}", "paragraphs": [SMOKE, *paragraphs] if small else paragraphs,
            "tables": tables(found), "rows": found}  # fmt: skip


def tables(found: Rows) -> list[Table]:
    """Return the tables, from the rows of all configurations, groups of users and forgeries alone."""
    groups = {name: [row for row in found if row["configuration"] == name] for name in dict.fromkeys(row["configuration"] for row in found)}
    rows = {name: many for name, many in groups.items() if find_row(many, "statistic", "marked")}
    forged = {name: many for name, many in groups.items() if name.endswith(SUFFIX)}
    traced = {name: many for name, many in groups.items() if name not in rows and name not in forged}
    made: list[Table] = [
        ("Gates", ["figure", "target", "measured", "n", "met"], _gates(rows, traced)),
        ("Share of the key that is found / accuracy of the model", ["configuration", *SHARED], [theft_line(*pair) for pair in rows.items()]),
        ("The same after attacks on marks in weights", ["configuration", *EXTRA], [_extra_line(*pair) for pair in rows.items()]),
        ("Whom the threshold accuses", DECISIONS, [decision_line(*pair) for pair in rows.items()]),
        ("Passports forged with all weights and a tenth of the data", FORGED, forged_lines(forged)),
        ("Tracing users and colluders", ["code", "copies", "all named, nobody else", "somebody guilty", "some innocent", "n"], _trace_lines(traced)),
        ("Against the anchors", ["configuration", "model", "anchor", "here", "anchor lies"],
         [line for name, anchors in ANCHORS.items() if name in rows for line in anchored(name, rows[name], anchors)]),
    ]  # fmt: skip
    return [each for each in made if each[2]]


def _small(configuration: Configuration) -> Configuration:
    """Return a configuration that takes seconds."""
    return configuration[0], {**configuration[1], **SMALL[configuration[0]]}


def _traced(scene: Scene, profile: str, engine: Engine) -> dict[str, Rows]:
    """Return the rows of each group of users."""
    inputs: dict[str, str | Cell] = {"victim": scene.source, **{part: scene.parts[part] for part in ("owner", "attacker", "test")}}
    inputs |= {f"null/{index}": cell for index, cell in enumerate(scene.nulls)}
    cells = {
        name: Cell(work="modelward.evaluation.work_users:users", settings=settings, inputs=inputs, seed=derive_seed(scene.seed, "users", name),
                   label=name, seconds=60, uses=("modelward.attacks.theft.finetune", "modelward.attacks.theft.prune"))
        for name, settings in USERS.get(profile, USERS["quick"]).items()
    }  # fmt: skip
    run = engine.run(list(cells.values()), task="users")
    if run.failed:
        message = f"users could not be traced: {next(iter(run.failed.values()))}"
        raise ModelwardError(message)
    return {name: finished.rows for name, cell in cells.items() if (finished := run.of(cell)) is not None}


def _extra_line(name: str, rows: Rows) -> list[object]:
    """Return the share of the key that is found after each further attack."""
    made: list[object] = [name]
    for column in EXTRA:
        wanted = f"overwrite {rows[0]['method']}" if column == "overwrite" else column
        made.append(share(find_row(rows, "statistic", wanted)))
    return made


def _trace_lines(traced: dict[str, Rows]) -> list[list[object]]:
    """Return how often users and colluders were named."""
    lines: list[list[object]] = []
    for name, rows in traced.items():
        for attack in dict.fromkeys(row["attack"] for row in rows if row["metric"] in {"identified", "collusion_named"}):
            right = find_row(rows, "identified", attack) or find_row(rows, "collusion_named", attack)
            some = find_row(rows, "somebody_named", attack)
            wrong = find_row(rows, "misattributed", attack) or find_row(rows, "innocents_named", attack)
            lines.append([name, attack, *(_percent(row) for row in (right, some, wrong)), (right or {}).get("n")])
    return lines


def _percent(row: dict[str, Any] | None) -> str:
    """Return a rate with its interval in percent."""
    return "-" if row is None else f"{row['value']:.0%} [{row['ci_low']:.0%}, {row['ci_high']:.0%}]"


def _gates(rows: dict[str, Rows], traced: dict[str, Rows]) -> list[list[object]]:
    """Return what the methods promise, and whether it holds here; the targets are this project's own."""
    lines: list[list[object]] = []
    for name in (name for name in ("uchida", "deepmarks", "passport 2", "passport 3") if name in rows):
        marked, plain = rows[name][0], rows[name][1]
        lost = plain["extra"]["accuracy"] - marked["extra"]["accuracy"]
        others = [row for row in rows[name] if row["attack"] in {"null", "stranger"}]
        accused = sum(row["extra"]["matches"] for row in others)
        lines += [
            [f"{name}: found in the marked model", ">= 95 %", share(marked), marked["n"], yes(marked["value"] <= 0.05)],
            [f"{name}: accuracy lost", "<= 2 points", f"{lost:.1%}", marked["n"], yes(lost <= 0.02)],
            [f"{name}: null models and strangers accused", "0", str(accused), len(others), yes(not accused)],
        ]
    for code, found in traced.items():
        identified, wrong = find_row(found, "identified", "none"), find_row(found, "misattributed", "none")
        if identified is None or wrong is None:
            continue
        lines += [
            [f"{code}: copies traced to their user", "100 %", _percent(identified), identified["n"], yes(identified["value"] == 1)],
            [f"{code}: copies traced to somebody else", "<= .1 %", _percent(wrong), wrong["n"], yes(wrong["value"] <= 0.001)],
        ]
        for size in (2, 3):
            named, innocent = (find_row(found, metric, f"average of {size}") for metric in ("collusion_named", "innocents_named"))
            if named and innocent:
                good = named["value"] >= 0.9 and innocent["value"] == 0
                shown = f"{_percent(named)}, {_percent(innocent)}"
                lines.append(
                    [
                        f"{code}: averages of {size} copies named, no innocent",
                        ">= 90 %, 0",
                        shown,
                        named["n"],
                        yes(good),
                    ]
                )
    return lines
