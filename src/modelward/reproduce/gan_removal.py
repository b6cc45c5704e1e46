"""GAN removal beside plain fine-tuning, fine-pruning, Neural Cleanse and laundering, on marks that it should remove and on marks that it should not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modelward.core.catalogue import catalogue
from modelward.core.errors import UsageError
from modelward.core.rng import derive_seed
from modelward.data import Study, load_data, study
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine, Run
from modelward.evaluation.farm import TheftSpec, theft_cell
from modelward.evaluation.parcels import put_images
from modelward.evaluation.store import Store
from modelward.evaluation.zoo import NullSpec, null_recipe, put_parts, train_cell
from modelward.reproduce.fingerprint_tables import SMOKE, Rows
from modelward.reproduce.gan_removal_tables import MAIN, tables

WORK = "modelward.reproduce.gan_removal_work"
Spec = tuple[str, dict[str, Any]]
MARKS: dict[str, Spec] = {
    MAIN: ("zhang", {"source": -1}),
    "zhang, word on every class": ("zhang", {"source": -1, "variant": "paper"}),
    "zhang, stamp on one class": ("zhang", {}),
    "zhang, noise on one class": ("zhang", {"kind": "noise"}),
    "adi": ("adi", {}),
    "additional-class": ("additional-class", {}),
    "uchida": ("uchida", {}),
}
ATTACKS: dict[str, Spec] = {
    "gan-removal": ("gan-removal", {"restarts": 2}),
    "gan-removal without the critic": ("gan-removal", {"restarts": 2, "realism": 0.0}),
    "neural-cleanse, unlearn": ("neural-cleanse", {"restarts": 2, "epochs": 10}),
    "neural-cleanse, prune": ("neural-cleanse", {"restarts": 2, "mode": "prune", "ratio": 0.5}),
    "laundering": ("laundering", {"restarts": 2, "epochs": 10}),
    "fine-pruning": ("fine-prune", {"ratio": 0.8, "epochs": 10}),
    "plain fine-tuning": ("ftal", {"epochs": 10}),
    "the same training without triggers": ("gan-removal", {"gate": 1e9, "least": 0, "rounds": 1}),
}
LONGER: dict[str, Spec] = {
    "gan-removal, three times the steps": ("gan-removal", {"restarts": 2, "steps": 600})
}  # where stamps hide among errors
COMPARED = ("gan-removal", "the same training without triggers", "plain fine-tuning")
SMOKED = ("gan-removal", "neural-cleanse, prune", "plain fine-tuning")
RESIDUAL: Spec = ("gan-removal", {"kind": "residual", "rounds": 1})


@dataclass(frozen=True)
class Scale:
    """How large a profile is: data set, images a split, architecture, seeds, clean models a seed, images of the thief, steps, other marks or not."""

    data: str
    limit: int | None
    arch: str
    seeds: int
    clean: int
    images: int
    steps: int
    others: bool = False


SCALES = {
    "smoke": Scale("fashion-mini", 600, "lenet5", 1, 1, 60, 20),
    "quick": Scale("fashion-mini", None, "lenet5", 3, 2, 500, 200, others=True),
    "full": Scale("cifar10-jpeg", 10_000, "resnet8", 3, 2, 500, 200),
}


@dataclass(frozen=True, eq=False)
class Scene:
    """One seed: its parts of the data, and the source with independent models of its kind."""

    number: int
    study: Study
    parts: dict[str, str]
    source: Cell
    clean: list[Cell]


def gan_removal(*, profile: str, seed: int, store: Store, jobs: int | None, command: str) -> dict[str, Any]:
    """Mark, search, remove, ask; return the results document.

    Raises
    ------
    UsageError
        for an unknown profile.
    """
    if profile not in SCALES:
        message = f"profile is {', '.join(SCALES)}, not {profile!r}"
        raise UsageError(message)
    scale, engine = SCALES[profile], Engine(store, jobs=jobs)
    scenes = [_scene(scale, derive_seed("gan-removal", seed), number, store) for number in range(scale.seeds)]
    hunts, asked = [], []
    for scene in scenes:
        for name, mark in _marks(scene, scale, profile):
            cell = _mark_cell(scene, mark)
            hunts.append((name, scene.number, _hunt_cell(scene, scale, cell, mark)))
            asked.append((name, "none", scene.number, _ask_cell(scene, cell, cell, mark)))
            for attack, theft in _thefts(name, scene, scale, profile):
                copy = theft_cell(TheftSpec(theft[0], attack, theft[1]), cell, scale.arch, scene.parts, scene.study, seed=cell.seed)
                asked.append((name, attack, scene.number, _ask_cell(scene, copy, cell, mark)))
        hunts += [("no mark", scene.number, _hunt_cell(scene, scale, model, None)) for model in [scene.source, *scene.clean]]
    run = engine.run([*(cell for *_, cell in hunts), *(cell for *_, cell in asked)], task="gan-removal")
    return _document(scale, _rows(run, hunts, asked), run, profile, command)


def _scene(scale: Scale, seed: int, number: int, store: Store) -> Scene:
    """Return the models that everything starts from; the thief has few images."""
    made = study(load_data(scale.data, limit=scale.limit), seed=derive_seed(seed, number))
    parts = put_parts(store, made) | {"attacker": put_images(store, made.attacker.take(slice(scale.images)))}

    def model(part: str, index: int) -> Cell:
        spec = NullSpec(scale.arch, part, 1.0, "clean", index)
        whole = parts | {"attacker": put_images(store, made.attacker)}
        return train_cell(spec, null_recipe(scale.arch), whole, made, derive_seed(seed, number))

    return Scene(number, made, parts, model("owner", 0), [model(("owner", "attacker")[i % 2], i + 1) for i in range(scale.clean)])


def _marks(scene: Scene, scale: Scale, profile: str) -> list[tuple[str, Spec]]:
    """Return the marks of a scene: the stamp, and in the first all others where the profile has them."""
    known = catalogue()
    names = [name for name in MARKS if name == MAIN or (scene.number == 0 and scale.others)]
    small = {"count": 20, "epochs": 12, "batch": 32} if profile == "smoke" else {}
    return [(name, (MARKS[name][0], {**MARKS[name][1], **small})) for name in names if MARKS[name][0] in known]


def _thefts(mark: str, scene: Scene, scale: Scale, profile: str) -> list[tuple[str, Spec]]:
    """Return the attacks on a mark: all on the stamp, two on the others."""
    known = ATTACKS | (LONGER if profile == "full" else {})
    every = SMOKED if profile == "smoke" else tuple(known)
    names = [name for name in every if mark == MAIN or name in COMPARED]
    few = {"steps": scale.steps, "clean": scale.images, "epochs": 1} if profile == "smoke" else {}
    made = [(name, (known[name][0], {**known[name][1], **(few if "restarts" in known[name][1] else {})})) for name in names]
    return [*made, ("gan-removal, residual", RESIDUAL)] if mark == MAIN and scene.number == 0 and profile != "smoke" else made


def _facts(scene: Scene, mark: Spec) -> dict[str, Any]:
    """Return what the owner's cells are told of a mark."""
    return {"method": mark[0], "fields": mark[1], "secret": derive_seed(scene.source.seed, "secret", mark)}


def _uses(mark: Spec) -> tuple[str, ...]:
    return (catalogue()[mark[0]].__module__, "modelward.marking.scanning")


def _mark_cell(scene: Scene, mark: Spec) -> Cell:
    inputs: dict[str, str | Cell] = {"victim": scene.source, "owner": scene.parts["owner"]}
    return Cell(work=f"{WORK}:mark", settings=_facts(scene, mark), inputs=inputs, seed=derive_seed(scene.source.seed, "mark", mark),
                label=f"mark {mark[0]} #{scene.number}", seconds=15, uses=_uses(mark))  # fmt: skip


def _ask_cell(scene: Scene, suspect: Cell, marked: Cell, mark: Spec) -> Cell:
    inputs: dict[str, str | Cell] = {"suspect": suspect, "marked": marked, "test": scene.parts["test"]}
    return Cell(work=f"{WORK}:ask", settings=_facts(scene, mark), inputs=inputs, seed=suspect.seed, label=f"ask {suspect.label}", seconds=1,
                uses=_uses(mark))  # fmt: skip


def _hunt_cell(scene: Scene, scale: Scale, model: Cell, mark: Spec | None) -> Cell:
    settings = {"steps": scale.steps, "restarts": 2, "kind": "trigger", "realism": 0.05, **(_facts(scene, mark) if mark else {})}
    inputs: dict[str, str | Cell] = {"model": model, "images": scene.parts["attacker"], "test": scene.parts["test"]}
    return Cell(work=f"{WORK}:hunt", settings=settings, inputs=inputs | ({"marked": model} if mark else {}), label=f"scan {model.label}",
                seed=derive_seed(model.seed, "scan"), seconds=20, uses=_uses(mark or MARKS[MAIN]))  # fmt: skip


def _rows(run: Run, hunts: Sequence[tuple[str, int, Cell]], asked: Sequence[tuple[str, str, int, Cell]]) -> Rows:
    """Return all rows with mark, attack and seed written in."""
    made: Rows = []
    for name, number, cell in hunts:
        for row in finished.rows if (finished := run.of(cell)) else []:
            made.append({**row, "configuration": name, "attack": "scan", "scene": number})
    for name, attack, number, cell in asked:
        for row in finished.rows if (finished := run.of(cell)) else []:
            made.append({**row, "configuration": name, "attack": attack, "scene": number})
    return made


def _document(scale: Scale, rows: Rows, run: Run, profile: str, command: str) -> dict[str, Any]:
    """Return the results document."""
    first = (
        "Wang et al., ISC 2021, arXiv 2106.08104: retention 100 % to less than 2 %, accuracy lost less than 1 point (MNIST) and 3 points (CIFAR-10). "
        f"Here: {scale.data}, {scale.arch}, {scale.seeds} seeds, a thief with {scale.images} clean images and true labels. Retention is the share of "
        "test images under the owner's stamp, which no attack sees, that still get the mark's class; for marks without a stamp, of the key."
    )
    failed = [f"Not run: {label}." for label in list(run.failed.values())[:5]]
    labelled = [{**row, "profile": profile, "command": command} for row in rows]
    return {"title": f"gan-removal, profile {profile}", "paragraphs": [*([SMOKE] if profile == "smoke" else []), first, *failed],
            "tables": tables(labelled), "rows": labelled}  # fmt: skip
