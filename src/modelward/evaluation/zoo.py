"""The null zoo: independent models of every kind a thief could be confused with, trained once and shared by all methods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from torch import nn

from modelward.core import consent
from modelward.core.errors import ModelwardError, UsageError
from modelward.core.rng import derive_seed
from modelward.data import Study
from modelward.evaluation.budget import train_seconds
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine, Run
from modelward.evaluation.parcels import get_model, put_images
from modelward.evaluation.store import Store
from modelward.models.custom import modules_of
from modelward.models.nets import ARCHITECTURES, describe
from modelward.training import Recipe

COUNTS = {"smoke": 6, "quick": 28, "full": 84}
SIBLINGS = {"smoke": 2, "quick": 6, "full": 8}
OTHERS = ("cnn", "resnet8", "lenet5", "mlp")

# how often each kind stands in a zoo of 30: (architecture, data part, fraction of it, group, share)
_KINDS = (
    ("same", "attacker", 1.0, "same architecture, disjoint data", 6),
    ("other", "owner", 1.0, "other architecture, same data", 3),
    ("same", "owner", 1.0, "same recipe, other seed", 5),
    ("other", "attacker", 1.0, "other architecture, disjoint data", 4),
    ("same", "attacker", 0.6, "accuracy-matched, disjoint data", 4),
    ("third", "attacker", 1.0, "other architecture, disjoint data", 2),
    ("other", "attacker", 0.6, "accuracy-matched, other architecture", 3),
    ("same", "owner", 0.6, "accuracy-matched, same data", 2),
    ("third", "owner", 1.0, "other architecture, same data", 1),
)


@dataclass(frozen=True)
class NullSpec:
    """One independent model: what it is, what it is trained on, and how."""

    arch: str
    part: str
    fraction: float
    group: str
    index: int


def null_recipe(arch: str) -> Recipe:
    """Return the recipe of independent models of ``arch``; a net of the user's own gets one that few nets diverge under.

    >>> null_recipe("vit-tiny:depth=2").lr, null_recipe("wrn16").lr, null_recipe("mynets:make").optimizer
    (0.05, 0.1, 'adam')
    """
    if describe(arch)[0] not in ARCHITECTURES:
        return Recipe(epochs=15, lr=0.002, batch=64, optimizer="adam", weight_decay=0.0)
    slow = describe(arch)[0] in {"mlp", "lenet5", "vit-tiny"}  # without batch normalisation
    return Recipe(epochs=15 if slow else 12, lr=0.05 if slow else 0.1, batch=64)


def specs(arch: str, count: int) -> list[NullSpec]:
    """Return ``count`` null models for a victim of architecture ``arch``, the kinds well mixed.

    Kinds are dealt so that every prefix holds its share of each: setting some aside keeps both parts alike.
    """
    others = [name for name in OTHERS if name != describe(arch)[0]]
    names = {"same": arch, "other": others[0], "third": others[-1]}
    total = sum(kind[4] for kind in _KINDS)
    dealt = [0] * len(_KINDS)
    made: list[NullSpec] = []
    for index in range(count):
        chosen = max(range(len(_KINDS)), key=lambda k: (_KINDS[k][4] * (index + 1) / total - dealt[k], -k))
        which, part, fraction, group, _ = _KINDS[chosen]
        made.append(NullSpec(names[which], part, fraction, group, dealt[chosen]))
        dealt[chosen] += 1
    return made


def train_cell(spec: NullSpec, recipe: Recipe, parts: dict[str, str], study: Study, seed: int) -> Cell:
    """Return the cell that trains one independent model; ``parts`` are the digests of the study's image sets."""
    images = len(getattr(study, spec.part)) * spec.fraction
    return Cell(
        work="modelward.evaluation.work_training:train",
        settings={"arch": spec.arch, "recipe": asdict(recipe), "fraction": spec.fraction, "group": spec.group},
        inputs={"images": parts[spec.part], "test": parts["test"]},
        seed=derive_seed(seed, "null", asdict(spec), asdict(recipe), parts[spec.part]),
        label=f"null {spec.arch} on {spec.part} #{spec.index}",
        seconds=train_seconds(spec.arch, round(images), recipe.epochs, study.test.shape),
        uses=modules_of(spec.arch),
        precision=recipe.precision,
    )


def put_parts(store: Store, study: Study) -> dict[str, str]:
    """Keep the study's image sets in the store and return their digests by name."""
    return {part: put_images(store, getattr(study, part)) for part in ("owner", "attacker", "probes", "test")}


def null_cells(arch: str, study: Study, parts: dict[str, str], *, profile: str, seed: int = 0) -> list[Cell]:
    """Return the cells of the null zoo for a victim of architecture ``arch``: siblings (same data, same recipe) first."""
    if profile not in COUNTS:
        message = f"a null zoo is {', '.join(COUNTS)}, not {profile!r}"
        raise UsageError(message)
    siblings = [NullSpec(arch, "owner", 1.0, "sibling", index) for index in range(SIBLINGS[profile])]
    return [train_cell(spec, null_recipe(spec.arch), parts, study, seed) for spec in [*siblings, *specs(arch, COUNTS[profile])]]


def models_of(run: Run, cells: list[Cell], store: Store) -> Iterator[tuple[Cell, nn.Module]]:
    """Yield (cell, model) for every finished cell that made a model."""
    for cell in cells:
        finished = run.of(cell)
        if finished is not None and finished.artifact:
            yield cell, get_model(str(store.folder), finished.artifact)


def null_zoo(
    arch: str, study: Study, *, profile: str = "quick", seed: int = 0, store: Store | None = None, jobs: int | None = None
) -> list[nn.Module]:
    """Return independent models for calibrating the key of a model of architecture ``arch``; trained once, then read from the store.

    Parameters
    ----------
    arch
        the victim's architecture.
    study
        disjoint parts of one data set.
    profile
        ``"smoke"`` (2 siblings + 6 nulls), ``"quick"`` (6 + 28) or ``"full"`` (8 + 84).
    """
    consent.give([arch])
    store = store or Store()
    cells = null_cells(arch, study, put_parts(store, study), profile=profile, seed=seed)
    run = Engine(store, jobs=jobs).run(cells, task="null models")
    if run.failed:
        message = f"{len(run.failed)} null models failed: {next(iter(run.failed.values()))}"
        raise ModelwardError(message)
    return [model for _, model in models_of(run, cells, store)]
