"""Siblings as cells: by the owner's code or recipe, with seeds that nobody chooses, and thefts of some that are never ranked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from modelward.core import consent
from modelward.core.canonical import digest_of
from modelward.core.errors import InputError, ModelwardError, UsageError
from modelward.core.guard import state_digest
from modelward.core.images import ImageSet
from modelward.core.rng import derive_seed
from modelward.core.siblings import EXTRACTED, TUNING, Failed, Siblings, TuningThief, sibling_seed
from modelward.evaluation.budget import train_seconds
from modelward.evaluation.cell import Cell
from modelward.evaluation.code import code_digest
from modelward.evaluation.engine import Engine, Run
from modelward.evaluation.farm import TheftSpec, access_of
from modelward.evaluation.parcels import get_model, put_images, put_model
from modelward.evaluation.sibling_starts import require_start
from modelward.evaluation.store import Store
from modelward.evaluation.work_siblings import Train
from modelward.models.custom import here, is_custom
from modelward.training import Recipe

MATCHED_EPOCHS = 30
COUNTS = {"smoke": 6, "quick": 19, "full": 59}
_TUNED, _LAST = TheftSpec("ftal", "fine-tuned"), TheftSpec("ftll", "last layer fine-tuned")
KINDS: tuple[tuple[TheftSpec, ...], ...] = (
    (_TUNED, TheftSpec("prune-ft", "pruned and fine-tuned", {"sparsity": 0.5}), TheftSpec("quantise", "quantised", {"bits": 4}, "none")),
    (TheftSpec("ftal", "fine-tuned", {"lr": 0.001}), _LAST, TheftSpec("prune", "pruned", {"sparsity": 0.3}, "none")),
    (_TUNED, TheftSpec("rtal", "new last layer, fine-tuned"), TheftSpec("weight-noise", "noisy weights", {"sigma": 0.1}, "none")),
    (TheftSpec("ftal", "fine-tuned", {}, "stolen"), _LAST, TheftSpec("quantise", "quantised", {"bits": 8}, "none")),
    (_TUNED, TheftSpec("prune-ft", "pruned and fine-tuned", {"sparsity": 0.3}), TheftSpec("prune", "pruned", {"sparsity": 0.5}, "none")),
)
EXTRACTIONS = ("extract-l", "extract-p")


@dataclass(frozen=True, eq=False)
class Plan:
    """The cells of a family: siblings in the order of their numbers, tuning siblings, and thefts of these."""

    ranked: list[Cell]
    tuning: list[Cell]
    thefts: list[tuple[int, TheftSpec, Cell]]
    about: Siblings

    @property
    def cells(self) -> list[Cell]:
        """All of them."""
        return [*self.ranked, *self.tuning, *(cell for _, _, cell in self.thefts)]


def plan(
    train: str | Recipe, images: ImageSet, count: int, *, model: nn.Module | Cell, store: Store, start: str = "none", begin: nn.Module | None = None,
    tuning: int = TUNING, thief_images: ImageSet | None = None, test: ImageSet | None = None, matched: bool = False,
) -> Plan:  # fmt: skip
    """Return the cells of a family; nothing is trained. Parameters as in `siblings`.

    ``matched``: the recipe is ours, and each sibling stops where it knows as many training images as ``model``. A ``model`` that is still to be trained
    is given as the cell that trains it.
    """
    if isinstance(train, str):
        consent.give([train])
        if not is_custom(train):
            message = f"--train names a function as package.module:function, not {train!r}"
            raise UsageError(message)
    if (begin is None) != (start == "none"):
        raise UsageError("a public network or initial weights go with start 'base' or 'start', and nothing goes with 'none'")
    with here():
        code = code_digest(train.partition(":")[0]) if isinstance(train, str) else digest_of(asdict(train))
    origin = "code" if isinstance(train, str) else "matched" if matched else "recipe"
    about = Siblings(
        origin=origin, start=start, start_digest=None if begin is None else state_digest(begin), code=code,
        images=images, root=model.key if isinstance(model, Cell) else None,
    )  # fmt: skip
    arch = str(model.settings["arch"]) if isinstance(model, Cell) else str(getattr(model, "arch", "")) or None
    inputs: dict[str, str | Cell] = {
        "images": put_images(store, images),
        "model": model if isinstance(model, Cell) else put_model(store, model),
    }
    if begin is not None:
        inputs["start"] = put_model(store, begin)
    roots = (model.key if isinstance(model, Cell) else state_digest(model), images.digest, code, about.start_digest)
    settings: dict[str, Any] = {"train": train, "recipe": None} if isinstance(train, str) else {"train": None, "recipe": asdict(train)}
    settings |= {"matched": True} if matched else {}
    epochs = 15.0 if isinstance(train, str) else float(train.epochs)
    seconds = train_seconds(arch or "lenet5", len(images), epochs, images.shape)

    def cell(kind: str, number: int) -> Cell:
        with here():
            return Cell(
                work="modelward.evaluation.work_siblings:train", settings=settings, inputs=inputs, label=f"{kind} {number}", seconds=seconds,
                seed=sibling_seed(*roots, number, kind=kind), uses=(train.partition(":")[0],) if isinstance(train, str) else (),
                precision="fp32" if isinstance(train, str) else train.precision,
            )  # fmt: skip

    ranked = [cell("sibling", number) for number in range(1, count + 1)]
    spare = [cell("tuning sibling", number) for number in range(1, tuning + 1)]
    found = thefts_of(spare, arch, thief_images, test or images, store) if thief_images is not None else []
    return Plan(ranked, spare, found, about)


def thefts_of(
    victims: Sequence[str | Cell], arch: str | None, images: ImageSet, test: ImageSet, store: Store
) -> list[tuple[int, TheftSpec, Cell]]:
    """Return three thefts with the weights and one extraction of every victim, a stored model or the cell that trains it."""
    inputs = {"images": put_images(store, images), "test": put_images(store, test)}
    made = []
    for number, victim in enumerate(victims):
        extraction = TheftSpec(EXTRACTIONS[number % 2], EXTRACTED, {}, "stolen", arch)
        root, seconds = (victim, 5.0) if isinstance(victim, str) else (victim.seed, victim.seconds / 3)
        for spec in (*KINDS[number % len(KINDS)], extraction):
            cell = Cell(
                work="modelward.evaluation.work_theft:steal", label=f"theft {number + 1}: {spec.group}",
                settings={"method": spec.method, "fields": spec.fields, "labels": spec.labels, "arch": spec.arch, "group": spec.group,
                          "access": access_of(spec).value},
                inputs={"victim": victim, **inputs}, seed=derive_seed("tuning theft", root, number, spec.method, spec.fields), seconds=seconds,
                uses=_code_of(spec.method),
            )  # fmt: skip
            made.append((number, spec, cell))
    return made


def _code_of(method: str) -> tuple[str, ...]:
    """Return the module of a method."""
    from modelward.core.catalogue import find

    return (find(method).__module__,)


def gathered(made: Plan, run: Run, store: Store, *, least: int = 1) -> Siblings:
    """Return the family that a run made.

    Raises
    ------
    ModelwardError
        when fewer than ``least`` siblings came of it: the same command goes on with those that are missing.
    InputError
        when the code ignores its seed, or trains nothing.
    """
    failed = [Failed(number, cell.seed, run.failed[cell.key]) for number, cell in enumerate(made.ranked, 1) if run.of(cell) is None]
    good = [cell for cell in made.ranked if run.of(cell) is not None]
    if len(good) < least:
        one = failed[0]
        message = (
            f"{len(failed)} of {len(made.ranked)} siblings failed, the first is number {one.number}: {one.why}; the same command goes on there, "
            "unless the code is changed: siblings of other code are trained anew"
        )
        raise ModelwardError(message)
    models = [_model(cell, run, store) for cell in good]
    if len(models) > 1 and len({state_digest(model) for model in models[:2]}) < 2:
        raise InputError("two siblings have the same weights: the training code ignores its seed, or trains nothing")
    require_start(made.about, models, _owner(made, store), planned_start(made, store))
    tuning = [cell for cell in made.tuning if run.of(cell) is not None]
    place = {id(cell): number for number, cell in enumerate(tuning)}
    thieves = tuple(
        TuningThief(place[id(made.tuning[of])], _model(cell, run, store), spec.group)
        for of, spec, cell in made.thefts if run.of(cell) is not None and id(made.tuning[of]) in place
    )  # fmt: skip
    return replace(
        made.about, models=tuple(models), seeds=tuple(cell.seed for cell in good), failed=tuple(failed),
        tuning=tuple(_model(cell, run, store) for cell in tuning), thieves=thieves,
    )  # fmt: skip


def _owner(made: Plan, store: Store) -> nn.Module | None:
    """Return the owner's model, where it was there before its siblings."""
    given = made.ranked[0].inputs["model"] if made.ranked else None
    return get_model(str(store.folder), given) if isinstance(given, str) else None


def planned_start(made: Plan, store: Store) -> nn.Module | None:
    """Return the weights that training began with, where there are such."""
    given = made.ranked[0].inputs.get("start") if made.ranked else None
    return get_model(str(store.folder), given) if isinstance(given, str) else None


def _model(cell: Cell, run: Run, store: Store) -> nn.Module:
    """Return the model of a finished cell."""
    finished = run.of(cell)
    return get_model(str(store.folder), str(finished.artifact if finished else ""))


def siblings(
    train: Train | str | Recipe, data: ImageSet, count: int = 19, *, model: nn.Module, base: nn.Module | str | None = None,
    start: nn.Module | None = None, tuning: int | None = None, thief_images: ImageSet | None = None, test: ImageSet | None = None,
    store: Store | None = None, jobs: int | None = None,
) -> Siblings:  # fmt: skip
    """Train siblings of ``model``: what its owner could just as well have made. Finished ones are read from the store.

    Parameters
    ----------
    train
        the owner's own training: a function ``(images, labels, seed) -> module`` of a module that can be imported, or its name as
        ``package.module:function``; it gets uint8 images (N, C, H, W), int64 labels (N,) and a seed, and does all that was done for ``model``:
        validation split, early stopping, averaging. Or a `Recipe`, for a model that `modelward.fit` trained.
    data
        exactly the images that ``model`` was trained on.
    count
        19, 39, 59 or 99.
    model
        the owner's model; siblings have its shape.
    base, start
        where training began: at a public network (``base``), at initial weights that others may have (``start``), or, with ``base="none"``, at
        weights drawn anew. One of them has to be said: it is the owner's word, and stands in every verdict.
    tuning, thief_images, test
        siblings that are never ranked: references of IPGuard and CAE, and, with images of a thief's, victims of thefts, so that verdicts know how many
        thieves would be missed. ``None`` trains five where ``thief_images`` are given, and none else.
    store, jobs
        where finished models are kept, and how many processes train.

    Raises
    ------
    UsageError
        when nothing was said of the start, or the function has no name that another process could import.
    InputError, ModelwardError
        when siblings fail, ignore their seed or are of another shape.
    """
    named = train if isinstance(train, str | Recipe) else name_of(train)
    if (base is None) == (start is None):
        raise UsageError(
            "say where training began: base=MODEL (a public network), start=MODEL (initial weights that others may have), or base='none'"
        )
    began = start if start is not None else base
    kind = "start" if start is not None else "none" if base == "none" else "base"
    if isinstance(began, str) and kind != "none":
        message = f"base is a network or 'none', not {began!r}"
        raise UsageError(message)
    kept = store or Store()
    if tuning is None:
        tuning = TUNING if thief_images is not None else 0
    made = plan(
        named, data, count, model=model, store=kept, start=kind, begin=began if isinstance(began, nn.Module) else None, tuning=tuning,
        thief_images=thief_images, test=test,
    )  # fmt: skip
    return gathered(made, Engine(kept, jobs=jobs).run(made.cells, task="siblings"), kept, least=count)


def name_of(function: Callable[..., Any]) -> str:
    """Return the name by which another process can import ``function``; raises `UsageError` where it cannot.

    >>> name_of(recipe_of)
    'modelward.evaluation.siblings:recipe_of'
    """
    module, name = str(getattr(function, "__module__", "")), str(getattr(function, "__qualname__", ""))
    if module in {"", "__main__"} or not name.isidentifier():
        message = f"siblings are trained in processes of their own, which cannot import {name or function!r}: put it into a module and pass that function"
        raise UsageError(message)
    return f"{module}:{name}"


def recipe_of(facts: Mapping[str, str]) -> Recipe | None:
    """Return the recipe that a model's file carries, or ``None``; raises `InputError` for one that makes no sense."""
    import json

    if "recipe" not in facts:
        return None
    try:
        return Recipe(**json.loads(facts["recipe"]))
    except (ValueError, TypeError, UsageError) as error:
        message = f"the model's file carries a recipe that cannot be read: {error}"
        raise InputError(message) from error
