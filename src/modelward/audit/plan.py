"""From a question to cells: what the audit will do, before any of it is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from modelward.audit.question import Ground, cell_seed
from modelward.audit.scope import Scope, usual_scope
from modelward.core.catalogue import find
from modelward.evaluation.budget import predict_seconds, train_seconds
from modelward.evaluation.cell import Cell
from modelward.evaluation.family import family_inputs
from modelward.evaluation.farm import TheftSpec, theft_cell, thefts
from modelward.evaluation.siblings import COUNTS, MATCHED_EPOCHS, recipe_of
from modelward.evaluation.siblings import Plan as FamilyPlan
from modelward.evaluation.siblings import plan as family_cells
from modelward.evaluation.zoo import SIBLINGS, NullSpec, null_cells, null_recipe, train_cell

WORDS = {
    "work_clean:intake": "intake checks", "work_clean:clean": "clean accuracy", "work_evasion:signs": "signs of masked gradients",
    "work_evasion:curve": "accuracy over eps", "work_corruption:curve": "accuracy under everyday changes", "work_theft:steal": "thefts",
    "work_training:train": "models trained independently", "work_siblings:train": "siblings of the model",
    "work_fingerprint:assess": "fingerprints",
}  # fmt: skip


Budget = tuple[str, int, int]  # architecture, epochs, images of the thief's


@dataclass(frozen=True)
class Plan:
    """The cells of an audit by section; `cells` lists them all."""

    scope: Scope
    single: dict[str, Cell]
    curves: dict[str, Cell]
    corruptions: dict[str, Cell]
    thieves: list[tuple[TheftSpec, Cell]]
    validation: list[tuple[TheftSpec, Cell]]
    scratch: dict[Budget, Cell]
    nulls: list[Cell]
    family: FamilyPlan | None = None
    fingerprints: list[Cell] = field(default_factory=list)

    def cells(self) -> Iterator[Cell]:
        """Yield every cell, the quick ones first."""
        yield from self.single.values()
        yield from self.curves.values()
        yield from self.corruptions.values()
        yield from (cell for _, cell in self.thieves)
        yield from self.scratch.values()
        yield from self.nulls
        yield from (cell for _, cell in self.validation)
        yield from self.family.cells if self.family else ()
        yield from self.fingerprints


def make_plan(ground: Ground) -> Plan:
    """Return the plan of an audit."""
    arch, scope, profile = ground.loaded.arch, scope_of(ground), ground.question.profile
    thieves = [(spec, _theft(ground, spec, "report")) for spec in scope.theft]
    nulls, validation, members = list[Cell](), list[tuple[TheftSpec, Cell]](), None
    if scope.fingerprints:
        members = family_of(ground)
        nulls = null_cells(arch, ground.study, ground.parts, profile=ground.question.profile, seed=ground.question.seed)[
            SIBLINGS[profile] :
        ]
    if any(fingerprint.settings.get("variant") == "paper" for fingerprint in scope.fingerprints):
        validation = [(spec, _theft(ground, spec, "validation")) for spec in thefts(arch, 1, ())]
    return Plan(
        scope=scope, single=_single(ground, scope), curves=_curves(ground, scope), corruptions=_corruptions(ground, scope), thieves=thieves,
        validation=validation, scratch=scratch_cells(ground, thieves), nulls=nulls,
        family=members, fingerprints=fingerprint_cells(ground, scope.fingerprints, nulls, validation, thieves, members),
    )  # fmt: skip


def family_of(ground: Ground) -> FamilyPlan:
    """Return the siblings that stand behind the fingerprints of an audit: by the recipe in the model's file, else by ours, matched in accuracy."""
    recipe = recipe_of(ground.loaded.facts) if ground.loaded.facts.get("start") == "none" else None
    profile = ground.question.profile
    made = family_cells(
        recipe or replace(null_recipe(ground.loaded.arch), epochs=MATCHED_EPOCHS, schedule="constant"), ground.study.owner, COUNTS[profile],
        model=ground.loaded.model, store=ground.store, matched=recipe is None, tuning=0,
    )  # fmt: skip
    return replace(made, about=replace(made.about, smoke=profile == "smoke"))


def scope_of(ground: Ground) -> Scope:
    """Return what is tested: what the question chose, else what its profile tests."""
    return ground.question.choice.over(usual_scope(ground.question.profile, ground.loaded.arch, ground.question.battery))


def _theft(ground: Ground, spec: TheftSpec, purpose: str) -> Cell:
    """Return one theft; validation thieves draw other seeds than reported ones."""
    return theft_cell(spec, ground.victim, ground.loaded.arch, ground.parts, ground.study, seed=cell_seed(ground, purpose))


def _measure(ground: Ground, work: str, settings: dict[str, Any], label: str, passes: float, uses: tuple[str, ...] = ()) -> Cell:
    """Return a cell that measures the victim on the test images."""
    count = min(int(settings.get("count", len(ground.study.test))), len(ground.study.test))
    return Cell(
        work=f"modelward.evaluation.{work}", settings=settings, inputs={"model": ground.victim, "test": ground.parts["test"]},
        seed=cell_seed(ground, work, settings), label=label, uses=uses, threads=ground.question.threads,
        seconds=0.3 + predict_seconds(ground.loaded.arch, count, passes, ground.study.test.shape),
    )  # fmt: skip


def _single(ground: Ground, scope: Scope) -> dict[str, Cell]:
    """Return the cells that look at the model as it is."""
    count = scope.images
    return {
        "intake": _measure(ground, "work_clean:intake", {"count": count}, "intake checks", 4),
        "clean": _measure(ground, "work_clean:clean", {}, "clean accuracy", 1),
        "signs": _measure(ground, "work_evasion:signs", {"count": count}, "signs of masked gradients", 3),
    }


def _curves(ground: Ground, scope: Scope) -> dict[str, Cell]:
    """Return one cell per attack and norm."""
    return {
        name: _measure(
            ground, "work_evasion:curve",
            {"method": attack.method, "fields": attack.settings, "norm": attack.norm, "eps": list(attack.eps), "count": scope.images},
            name, attack.passes * len(attack.eps), (find(attack.method).__module__,),
        )
        for name, attack in scope.curves().items()
    }  # fmt: skip


def _corruptions(ground: Ground, scope: Scope) -> dict[str, Cell]:
    """Return one cell per everyday change of the images."""
    count = max(scope.images, 64)
    return {
        kind: _measure(ground, "work_corruption:curve", {"kind": kind, "count": count}, f"{kind} curve", 2) for kind in scope.corruptions
    }


def scratch_cells(ground: Ground, thieves: list[tuple[TheftSpec, Cell]]) -> dict[Budget, Cell]:
    """Return, by the budget of a theft, the model that a thief could have trained honestly with it."""
    made: dict[Budget, Cell] = {}
    for spec, _ in thieves:
        budget = arch, epochs, images = budget_of(ground, spec)
        if epochs and budget not in made:
            fewer = images < len(ground.study.attacker)
            recipe = null_recipe(arch)
            batch = min(recipe.batch, _setting(spec, "batch")) if fewer else recipe.batch  # few images in large batches are few steps
            shorter = type(recipe)(**{**vars(recipe), "epochs": epochs, "batch": batch})
            words = f"from scratch, {epochs} epochs" + (f", {images} images" if fewer else "")
            null = NullSpec(arch, "attacker", images / len(ground.study.attacker), words, 0)
            made[budget] = train_cell(null, shorter, ground.parts, ground.study, cell_seed(ground, "scratch"))
    return made


def budget_of(ground: Ground, spec: TheftSpec) -> Budget:
    """Return what a theft spends: architecture, epochs and images of the thief's."""
    whole = len(ground.study.attacker)
    images = _setting(spec, "images") if theft_epochs(spec) else 0
    return spec.arch or ground.loaded.arch, theft_epochs(spec), min(images, whole) or whole


def _setting(spec: TheftSpec, name: str) -> int:
    """Return a setting of a theft, its own default where the spec leaves it out; 0 where there is none."""
    return int(spec.fields.get(name, getattr(find(spec.method), name, 0)) or 0)


def theft_epochs(spec: TheftSpec) -> int:
    """Return how many epochs a theft trains."""
    return _setting(spec, "epochs")


def fingerprint_cells(
    ground: Ground,
    configurations: tuple[tuple[str, dict[str, Any], str], ...],
    nulls: list[Cell],
    validation: list[tuple[TheftSpec, Cell]],
    thieves: list[tuple[TheftSpec, Cell]],
    members: FamilyPlan | None = None,
) -> list[Cell]:
    """Return one cell per ownership method, settings and access: enrol among siblings, then verify every suspect of the farm."""
    inputs, told = family_inputs(members, ground.parts["owner"])
    groups = {"null": nulls, "validation": [cell for _, cell in validation], "thief": [cell for _, cell in thieves]}
    suspects = {f"{name}/{index}": cell for name, cells in groups.items() for index, cell in enumerate(cells)}
    return [
        Cell(
            work="modelward.evaluation.work_fingerprint:assess", settings={"method": name, "fields": fields, "access": access, **told},
            inputs={"victim": ground.victim, "probes": ground.parts["probes"], **inputs, **suspects}, seed=cell_seed(ground, "enrol"),
            label=f"{name} {' '.join(str(v) for v in fields.values())} {access}".strip(), uses=(find(name).__module__,),
            seconds=2 + 0.03 * len(suspects) + train_seconds(ground.loaded.arch, len(ground.study.probes), 0.3, ground.study.probes.shape),
        )
        for name, fields, access in configurations
    ]  # fmt: skip
