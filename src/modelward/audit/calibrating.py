"""What a fingerprint's p-value is drawn over: siblings by the owner's code, by the recipe in the model's file, or files that the owner brings."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from modelward.audit.question import Ground
from modelward.audit.training_set import training_set
from modelward.core.deciding import DRAWS
from modelward.core.errors import InputError, Undecided, UsageError
from modelward.core.guard import state_digest
from modelward.core.images import ImageSet
from modelward.core.lineage import images_digest
from modelward.core.rng import generator
from modelward.core.siblings import Siblings
from modelward.evaluation.engine import Engine
from modelward.evaluation.sibling_starts import SAME_START
from modelward.evaluation.siblings import COUNTS, MATCHED_EPOCHS, Plan, gathered, plan, recipe_of
from modelward.evaluation.store import Store
from modelward.evaluation.zoo import null_recipe
from modelward.io.safetensors import load_tensors
from modelward.marking.unit_orders import same_start_p
from modelward.models import load_model
from modelward.models.files import CAP_BYTES
from modelward.models.nets import describe
from modelward.models.pretrained import SOURCES, cached
from modelward.training import Recipe

PROFILES = tuple(COUNTS)
ASK = (
    "say where training began: --base FILE (a public network), --start FILE (initial weights that others may have, such as a seed in a public script), "
    "or --base none (weights drawn anew)"
)


@dataclass(frozen=True)
class Calibrating:
    """How a fingerprint is calibrated.

    Parameters
    ----------
    profile
        ``smoke``, ``quick`` or ``full``: 6, 19 or 59 siblings by the recipe that the model's file carries.
    train, count
        the owner's own training as ``package.module:function``, and how many siblings.
    models
        a folder of siblings that the owner trained.
    matched
        no code: our recipe, stopped at the owner's training accuracy; an approximation, which decides nothing.
    base, start
        where training began, see `ASK`.
    trained_on
        the exact training set: a folder or name; ``None`` takes the owner's part of the data. Of a set with a test part its training part is taken,
        unless ``SET:test`` or ``SET:all`` says otherwise.
    known_bases
        a folder of public networks that ``base="none"`` is tried against, beside those that have a name.
    thieves
        whether tuning siblings are trained and stolen, so that verdicts know how many thieves would be missed.
    """

    profile: str | None = None
    train: str | None = None
    count: int | None = None
    models: Path | None = None
    matched: bool = False
    base: str | None = None
    start: Path | None = None
    trained_on: str | None = None
    known_bases: Path | None = None
    thieves: bool = True

    def __post_init__(self) -> None:
        ways = [word for word, given in (("--calibrate", self.profile), ("--train", self.train), ("--sibling-models", self.models),
                                         ("--recipe matched", self.matched)) if given]  # fmt: skip
        if len(ways) > 1:
            message = f"{' and '.join(ways)} are different ways to siblings; pass one"
            raise UsageError(message)
        if self.profile is not None and self.profile not in PROFILES:
            message = f"--calibrate is {', '.join(PROFILES)}, not {self.profile!r}"
            raise UsageError(message)
        if self.count is not None and self.count not in DRAWS:
            message = f"--siblings is {', '.join(map(str, DRAWS))} (other numbers make the test coarser for nothing), not {self.count}"
            raise UsageError(message)
        if self.base is not None and self.start is not None:
            raise UsageError("--base and --start both say where training began; pass one")

    @property
    def wanted(self) -> bool:
        """Whether siblings are asked for at all."""
        return any((self.profile, self.train, self.models, self.matched, self.count))


def family_plan(asked: Calibrating, ground: Ground, store: Store, *, ranked: bool = True) -> Plan | None:
    """Return the cells of the siblings, or ``None`` where none are trained; without ``ranked`` those alone that tell how many thieves are missed.

    Raises
    ------
    UsageError
        for what is missing, each time with the option that brings it.
    """
    if not asked.wanted or asked.models is not None:
        return None
    images = _trained_on(asked, ground)
    recipe = recipe_of(ground.loaded.facts)
    train: str | Recipe
    if asked.train is not None:
        train = asked.train
    elif asked.matched:
        train = replace(null_recipe(ground.loaded.arch), epochs=MATCHED_EPOCHS, schedule="constant")
    elif recipe is not None:
        _require_images(images, ground)
        train = recipe
    else:
        message = (
            "the model's file does not say how it was trained: pass --train package.module:function with --siblings 19, --trained-on DIR, "
            f"and {ASK}"
        )
        raise UsageError(message)
    kind, begin = _start(asked, ground, by_recipe=isinstance(train, Recipe))
    count = (asked.count or COUNTS[asked.profile or "quick"]) if ranked else 0
    smoke = asked.profile == "smoke"
    made = plan(
        train, images, count, model=ground.loaded.model, store=store, start=kind, begin=begin, tuning=0 if smoke or not asked.thieves else 5,
        thief_images=ground.study.attacker if asked.thieves and not smoke else None, test=ground.study.test,
        matched=asked.matched,
    )  # fmt: skip
    return replace(made, about=replace(made.about, smoke=smoke))


def family_of_files(asked: Calibrating, ground: Ground) -> Siblings:
    """Return the siblings that the owner brings as files, sorted by their digests: no order of names decides anything."""
    folder = asked.models or Path()
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not files:
        message = (
            f"--sibling-models {folder.name}: no safetensors files there; save siblings by your own code, or pass --train and --siblings"
        )
        raise InputError(message)
    kind, begin = _start(asked, ground, by_recipe=False)
    models = []
    for path in files:
        loaded = load_model(
            path, ground.question.arch or ground.loaded.arch, size=ground.loaded.model.size, convention=ground.question.convention
        )
        models.append(loaded.model)
    images = _trained_on(asked, ground)
    return Siblings(
        models=tuple(sorted(models, key=state_digest)), origin="models", start=kind, start_digest=None if begin is None else state_digest(begin),
        images=images,
    )  # fmt: skip


def family(asked: Calibrating, ground: Ground, made: Plan | None, store: Store, jobs: int | None) -> Siblings:
    """Return the siblings: trained (those in the store are read), brought, or none, which leaves the owner's word on the start."""
    if asked.models is not None:
        return family_of_files(asked, ground)
    if made is None:
        if asked.base is None and asked.start is None:
            return Siblings(start="none") if ground.loaded.facts.get("start") == "none" else Siblings()
        return Siblings(start=_start(asked, ground, by_recipe=False)[0])
    found = gathered(made, Engine(store, jobs=jobs).run(made.cells, task="siblings"), store, least=min(len(made.ranked), DRAWS[0]))
    for one in found.failed:
        warnings.warn(f"sibling {one.number} failed and is missing among the draws: {one.why}", stacklevel=2)
    return found


def _start(asked: Calibrating, ground: Ground, *, by_recipe: bool) -> tuple[str, nn.Module | None]:
    """Return where training began, in a word, and the weights, where there are such."""
    told = ground.loaded.facts.get("start")
    if asked.base is None and asked.start is None:
        if by_recipe and told == "none":
            return "none", None
        raise UsageError(ASK)
    if asked.base == "none":
        refuse_known_base(ground, asked.known_bases)
        return "none", None
    path = asked.start or Path(str(asked.base))
    began = load_model(
        path, ground.question.arch or ground.loaded.arch, size=ground.loaded.model.size, convention=ground.question.convention
    )
    shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (began.model, ground.loaded.model)]
    if shapes[0] != shapes[1]:
        message = f"{path.name} is of another architecture than the model: training cannot have begun there"
        raise InputError(message)
    return ("start" if asked.start is not None else "base"), began.model


def _trained_on(asked: Calibrating, ground: Ground) -> ImageSet:
    """Return the exact training set."""
    if asked.trained_on in {None, "owner", "train"}:
        if asked.train is not None and asked.trained_on is None:
            raise UsageError(
                "say which images the model was trained on: --trained-on DIR (exactly those), or owner or train for that part of --data"
            )
        return ground.study.owner
    images = training_set(str(asked.trained_on), size=ground.question.size)
    if images.classes != ground.study.owner.classes:
        message = f"--trained-on {asked.trained_on} has other classes than {ground.splits.name}"
        raise InputError(message)
    return images


def _require_images(images: ImageSet, ground: Ground) -> None:
    """Raise `InputError` when the recipe in the model's file was used on other images."""
    wanted = ground.loaded.facts.get("images")
    if wanted and wanted != images_digest(images.pixels, images.labels):
        message = f"the model's file says that it was trained on other images than {images.name}: pass exactly those with --trained-on DIR"
        raise InputError(message)


def refuse_known_base(ground: Ground, folder: Path | None) -> None:
    """Raise `InputError` when the model's units stand in the order of a public network: then training did begin there, whatever the owner says.

    Tried are the trained networks of that architecture that have a name and are here, and those in ``folder``.
    """
    own = ground.loaded.model
    files = [cached(name) for name in SOURCES if cached(name).exists() and name == describe(ground.loaded.arch)[0]]
    files += sorted(folder.glob("*.safetensors")) if folder is not None else []
    for path in files:
        try:
            p = same_start_p(own, load_tensors(path, cap=CAP_BYTES)[0], rng=generator(0))
        except Undecided as error:
            warnings.warn(f"--base none could not be tried against {path.name}: {error}", stacklevel=2)
            continue
        if p <= SAME_START:
            message = f"--base none: the model's hidden units stand in the order of {path.name} (p = {p:.2g}), so training began there; pass --base {path.name}"
            raise InputError(message)
