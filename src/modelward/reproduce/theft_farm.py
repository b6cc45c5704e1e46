"""One farm for all fingerprints: a source, its siblings, its thieves, and independent models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from modelward.audit.plan import family_of, fingerprint_cells
from modelward.audit.question import Ground, Question
from modelward.audit.scope import COPIES
from modelward.core.canonical import canonical_json
from modelward.core.errors import ModelwardError, UsageError
from modelward.core.guard import state_digest
from modelward.core.rng import derive_seed
from modelward.data import load_data, study
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine
from modelward.evaluation.family import family_inputs
from modelward.evaluation.farm import TheftSpec, theft_cell, thefts
from modelward.evaluation.parcels import get_model
from modelward.evaluation.siblings import Plan
from modelward.evaluation.zoo import NullSpec, null_cells, null_recipe, put_parts, train_cell
from modelward.models import LoadedModel

SPARSITIES = (0.1, 0.125, 0.15, 0.175, 0.2, 0.25, 0.3)
Configuration = tuple[str, dict[str, Any], str]


@dataclass(frozen=True)
class Scale:
    """How large a profile is: data set, images a split, architecture of the source, that of foreign thieves."""

    data: str
    limit: int | None
    arch: str
    other: str
    strangers: int


SCALES = {
    "smoke": Scale("fashion-mini", 600, "cnn:width=8", "mlp", 1),
    "quick": Scale("fashion-mini", None, "cnn", "resnet8", 3),
    "full": Scale("cifar10-jpeg", 10_000, "cnn", "resnet8", 6),
}


@dataclass(frozen=True)
class Farm:
    """The study's ground and its suspects."""

    ground: Ground
    nulls: list[Cell]
    strangers: list[Cell]
    validation: list[tuple[TheftSpec, Cell]]
    thieves: list[tuple[TheftSpec, Cell]]
    family: Plan

    def words(self, error: float) -> str:
        """Return what the farm is made from; ``error`` is the source's, in [0, 1]."""
        made = self.ground.study
        return (
            f"Source: {self.ground.loaded.arch} on {self.ground.splits.name}, error {error:.1%} on {len(made.test)} images; owner "
            f"{len(made.owner)}, thieves {len(made.attacker)} other images, probes from {len(made.probes)}."
        )


def make_farm(
    profile: str,
    seed: int,
    engine: Engine,
    *,
    scales: Mapping[str, Scale] = SCALES,
    chosen: Callable[[Scale, int], list[TheftSpec]] | None = None,
) -> Farm:
    """Train the source and everything made from it or beside it; every recipe of a profile and seed gets the same farm.

    ``scales`` and ``chosen`` (scale, copies -> thefts) are those of a recipe that has a farm of its own.

    Raises
    ------
    UsageError
        for an unknown profile.
    """
    if profile not in scales:
        message = f"profile is {', '.join(scales)}, not {profile!r}"
        raise UsageError(message)
    # the statistics were chosen on farms of the plain seeds 0 and 1; what is reported comes from others
    scale, store, seed = scales[profile], engine.store, derive_seed("sac-jc, reported", seed)
    splits = load_data(scale.data, limit=scale.limit)
    made = study(splits, trained_on="owner", seed=seed)
    parts = put_parts(store, made)
    source = train_cell(NullSpec(scale.arch, "owner", 1.0, "source", 0), null_recipe(scale.arch), parts, made, derive_seed(seed, "source"))
    run = engine.run([source], task="source model")
    finished = run.of(source)
    if finished is None or finished.artifact is None:
        message = f"the source could not be trained: {run.failed.get(source.key)}"
        raise ModelwardError(message)
    model = get_model(str(store.folder), finished.artifact)
    question = Question(data=scale.data, profile=profile, seed=seed)
    facts = {"recipe": canonical_json(asdict(null_recipe(scale.arch))).decode(), "start": "none"}
    ground = Ground(question, LoadedModel(model, scale.arch, state_digest(model), facts), splits, made, finished.artifact, parts, store)
    kinds = (
        ("same recipe, other seed", 1.0, "owner"),
        ("accuracy-matched, same data", 0.6, "owner"),
        ("accuracy-matched, disjoint data", 0.6, "attacker"),
    )
    strangers = [
        train_cell(NullSpec(scale.arch, part, fraction, group, 100 + i), null_recipe(scale.arch), parts, made, derive_seed(seed, "stranger"))
        for group, fraction, part in kinds for i in range(scale.strangers)
    ]  # fmt: skip
    nulls = null_cells(scale.arch, made, parts, profile=profile, seed=seed)
    pick = chosen or _usual
    validation, thieves = (_stolen(ground, scale, pick(scale, n), what) for n, what in ((1, "validation"), (COPIES[profile], "report")))
    farm = Farm(ground, nulls, strangers, validation, thieves, family_of(ground))
    trained = engine.run(
        [*farm.family.cells, *farm.nulls, *farm.strangers, *(c for _, c in farm.validation), *(c for _, c in farm.thieves)], task="farm"
    )
    if trained.failed:
        message = f"{len(trained.failed)} models of the farm failed: {next(iter(trained.failed.values()))}"
        raise ModelwardError(message)
    return farm


def _usual(scale: Scale, copies: int) -> list[TheftSpec]:
    """Return the audit's thefts, with a finer grid of prunings."""
    kept = [spec for spec in thefts(scale.arch, copies, (scale.other,) if copies > 1 else ()) if spec.method != "prune"]
    pruned = [TheftSpec("prune", "prune", {"sparsity": s, "scope": scope}, "none") for s in SPARSITIES for scope in ("layer", "global")]
    return [*kept, *(pruned if copies > 1 else pruned[:2])]


def _stolen(ground: Ground, scale: Scale, specs: Sequence[TheftSpec], purpose: str) -> list[tuple[TheftSpec, Cell]]:
    """Return the cells of the thefts; validation thieves draw other seeds than reported ones."""
    seed = derive_seed(ground.question.seed, purpose)
    return [(spec, theft_cell(spec, ground.victim, scale.arch, ground.parts, ground.study, seed=seed)) for spec in specs]


def assessments(farm: Farm, configurations: Sequence[Configuration]) -> list[Cell]:
    """Return one assessment per configuration, with the strangers among the suspects."""
    cells = fingerprint_cells(farm.ground, tuple(configurations), farm.nulls, farm.validation, farm.thieves, farm.family)
    extra = {f"stranger/{index}": cell for index, cell in enumerate(farm.strangers)}
    return [Cell(**{**{k: v for k, v in vars(cell).items() if k != "key"}, "inputs": {**cell.inputs, **extra}}) for cell in cells]


def accusers(farm: Farm, configuration: Configuration) -> Cell:
    """Return the cell in which unrelated models are enrolled by strangers who then accuse the source."""
    strangers = {f"accuser/{index}": cell for index, cell in enumerate(farm.strangers)}
    base = fingerprint_cells(farm.ground, (configuration,), farm.nulls, farm.validation, farm.thieves, farm.family)[0]
    members, _ = family_inputs(farm.family, farm.ground.parts["owner"])
    inputs: dict[str, str | Cell] = {"victim": farm.ground.victim, "probes": farm.ground.parts["probes"], **strangers, **members}
    return Cell(work="modelward.evaluation.work_fingerprint:accuser", settings=base.settings, inputs=inputs, seed=base.seed, label="accusers",
                seconds=20, uses=base.uses)  # fmt: skip


def source_accuracy(farm: Farm, engine: Engine) -> float:
    """Return the source's accuracy on the test images, as the lineage of its thieves tells it."""
    run = engine.run([cell for _, cell in farm.thieves])
    extra = next(finished.rows[0]["extra"] for _, cell in farm.thieves if (finished := run.of(cell)) is not None)
    return float(extra["accuracy"] + extra["drop"])
