"""An additional class and steganographic images beside Zhang's keys and frontier stitching, under the same attacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modelward.core.catalogue import find
from modelward.core.errors import ModelwardError, UnavailableError
from modelward.core.rng import derive_seed
from modelward.data import Study, load_data, study
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine
from modelward.evaluation.parcels import put_images
from modelward.evaluation.store import Store
from modelward.evaluation.zoo import NullSpec, null_cells, null_recipe, put_parts, train_cell
from modelward.reproduce.additional_class_tables import document
from modelward.reproduce.theft_farm import SCALES

Attack = tuple[str, dict[str, Any], str]
PAPER: dict[str, Any] = {"variant": "paper", "payload": "image", "codec": "lsb", "start": "scratch"}
STRENGTHS = (0, 12, 24, 96)
QUERY: tuple[Attack, ...] = (("wrap-reconstruct", {}, "none"), ("detect-reconstruction", {}, "none"), ("detect-divergence", {}, "none"))
WEAR: tuple[Attack, ...] = (
    *(("prune", {"sparsity": share}, "none") for share in (0.3, 0.5, 0.7)), ("ftal", {"epochs": 5}, "true"), ("ftal", {"epochs": 10, "lr": 0.03}, "true"),
)  # fmt: skip
MORE: tuple[Attack, ...] = (("fine-prune", {"ratio": 0.8}, "true"), ("distil", {}, "stolen"))
SURGERY: tuple[Attack, ...] = (
    ("head-surgery", {"how": "drop"}, "none"), ("head-surgery", {"how": "merge"}, "none"), ("head-surgery", {"how": "remap"}, "true"),
)  # fmt: skip
SMOKE: tuple[Attack, ...] = (
    ("wrap-reconstruct", {"coder_epochs": 1}, "none"), ("detect-reconstruction", {"coder_epochs": 1}, "none"), ("prune", {"sparsity": 0.5}, "none"),
    SURGERY[0],
)  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """How large a profile is: architecture, null models, models that other owners marked, users, seeds."""

    arch: str
    nulls: int
    users: int
    seeds: int


SIZES = {"smoke": Scale("mlp:width=32", 3, 10, 1), "quick": Scale("lenet5", 20, 100, 1), "full": Scale("lenet5", 60, 100, 3)}


def additional_class(*, profile: str, seed: int, store: Store, jobs: int | None, command: str) -> dict[str, Any]:
    """Mark with every configuration, attack all of them alike, and return the results document."""
    from modelward.core.errors import UsageError

    if profile not in SIZES:
        message = f"profile is {', '.join(SIZES)}, not {profile!r}"
        raise UsageError(message)
    scale, size, engine = SCALES[profile], SIZES[profile], Engine(store, jobs=jobs)
    splits = load_data(scale.data, limit=scale.limit)
    cells: dict[tuple[str, int], Cell] = {}
    made = study(splits, trained_on="owner", seed=derive_seed("additional-class", seed))
    for number in range(size.seeds):
        ground = Ground(made, put_parts(store, made), size, profile, derive_seed("additional-class", seed, number))
        cells |= {(name, number): cell for name, cell in configurations(ground, elsewhere(scale.data, store)).items()}
    run = engine.run(list(cells.values()), task="additional-class")
    broken = [run.failed[cell.key] for cell in cells.values() if cell.key in run.failed]
    if broken:
        message = f"{len(broken)} configurations could not be measured: {broken[0]}"
        raise ModelwardError(message)
    rows: list[dict[str, Any]] = []
    for (name, number), cell in cells.items():
        finished = run.of(cell)
        rows += [
            {**row, "configuration": name, "run": number, "profile": profile, "command": command}
            for row in (finished.rows if finished else [])
        ]
    return document(
        rows, profile, f"{size.arch} on {splits.name}, {len(made.owner)} images of the owner, {len(made.attacker)} of the thief"
    )


@dataclass(frozen=True, eq=False)
class Ground:
    """What one seed stands on."""

    study: Study
    parts: dict[str, str]
    size: Scale
    profile: str
    seed: int


def configurations(ground: Ground, elsewhere: dict[str, str]) -> dict[str, Cell]:
    """Return the cell of each configuration by its name."""
    arch, parts, study_ = ground.size.arch, ground.parts, ground.study
    source = train_cell(NullSpec(arch, "owner", 1.0, "source", 0), null_recipe(arch), parts, study_, derive_seed(ground.seed, "source"))
    nulls = null_cells(arch, study_, parts, profile="full" if ground.profile == "full" else "quick", seed=ground.seed)[: ground.size.nulls]
    smoke = ground.profile == "smoke"
    quick = {"count": 30, "epochs": 3} if smoke else {}
    strangers = [_published(ground, nulls[0], {**quick, **fields}) for fields in ([PAPER] if smoke else [PAPER, {}])]
    inputs: dict[str, str | Cell] = {"victim": source, "owner": parts["owner"], "attacker": parts["attacker"], "test": parts["test"]}
    inputs |= {f"null/{index:03d}": cell for index, cell in enumerate(nulls)}
    ours = {**inputs, **elsewhere, **{f"stranger/{index}": cell for index, cell in enumerate(strangers)}}
    cell = _maker(ground, quick)
    made = {
        "paper": cell("additional-class", PAPER, _attacks(smoke, full=True), ours),
        "hardened": cell("additional-class", {}, _attacks(smoke, full=True), ours),
    }
    if smoke:
        return {**made, "zhang, noise": cell("zhang", {"kind": "noise"}, SMOKE, inputs)}
    made |= {f"hardened, {n} decoys a batch": cell("additional-class", {"decoys": n}, WEAR, ours) for n in STRENGTHS}
    made |= {
        f"zhang, {kind}": cell("zhang", {"kind": kind, "variant": "paper"}, _attacks(smoke, full=False), inputs)
        for kind in ("content", "noise")
    }
    return {**made, "frontier": cell("frontier", {"variant": "paper"}, _attacks(smoke, full=False), inputs)}


def _attacks(smoke: bool, *, full: bool) -> tuple[Attack, ...]:
    """Return what a configuration is attacked with."""
    return SMOKE if smoke else (*QUERY, *WEAR, *MORE, *(SURGERY if full else ()))


def _published(ground: Ground, victim: Cell, fields: dict[str, Any]) -> Cell:
    """Return the cell in which another owner marks a model of his own."""
    return Cell(
        work="modelward.reproduce.additional_class_work:publish", settings={"method": "additional-class", "fields": fields},
        inputs={"victim": victim, "owner": ground.parts["attacker"]}, seed=derive_seed(ground.seed, "stranger", fields), label="another owner's mark",
        seconds=30, uses=(find("additional-class").__module__,),
    )  # fmt: skip


def _maker(ground: Ground, quick: dict[str, Any]) -> Callable[[str, dict[str, Any], tuple[Attack, ...], dict[str, str | Cell]], Cell]:
    """Return the maker of cells of one ground: ``(method, fields, attacks, inputs)``."""

    def make(method: str, fields: dict[str, Any], attacks: tuple[Attack, ...], inputs: dict[str, str | Cell]) -> Cell:
        uses = sorted({find(method).__module__, *(find(name).__module__ for name, _, _ in attacks)})
        whole = {**quick, **fields}
        users = ground.size.users if attacks is not WEAR else 0
        return Cell(
            work="modelward.reproduce.additional_class_work:measure",
            settings={"method": method, "fields": whole, "attacks": [list(attack) for attack in attacks], "users": users, "images": 500},
            inputs=inputs, seed=derive_seed(ground.seed, "configuration"), label=f"{method} {' '.join(map(str, fields.values()))}".strip(),
            seconds=30 + 12 * len(attacks), uses=tuple(uses),
        )  # fmt: skip

    return make


def elsewhere(data: str, store: Store) -> dict[str, str]:
    """Return natural images of another task, where this computer has any."""
    other = "fashion-mini" if data != "fashion-mini" else "cifar10-jpeg"
    try:
        images = load_data(other, limit=1000).test
    except UnavailableError:
        return {}
    return {"elsewhere": put_images(store, images.take(slice(500)))}
