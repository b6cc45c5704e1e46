"""Whoever checks evidence trains some siblings anew, by the code that the key names, and sees whether they are those of the key."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from modelward.audit.calibrating import Calibrating, family_plan
from modelward.audit.enrolment import ownership
from modelward.audit.question import Question, prepare
from modelward.audit.training_set import set_and_part
from modelward.core.deciding import DRAWS
from modelward.core.errors import InputError, ModelwardError, UnsafeFileError, UsageError
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.evaluation.engine import Engine
from modelward.evaluation.parcels import get_model
from modelward.evaluation.sibling_starts import require_start
from modelward.evaluation.siblings import Plan, planned_start
from modelward.evaluation.store import Store
from modelward.ownership.fingerprint import Fingerprint
from modelward.ownership.sibling_guard import LEVEL, Figures, behaviour, figures_of, odd_one_out

ODD = "Siblings that were trained anew do not lie among those of the key: {why}"
FORESEEN = " Which ones follows from --seed 0, which the claimant could foresee: pass a --seed of your own."


@dataclass(frozen=True)
class Retraining:
    """What it takes to train siblings anew.

    Parameters
    ----------
    count
        how many.
    question
        the claimant's model, and the images that it was trained on.
    asked
        by which code, and where training began.
    seed
        chooses which siblings are trained; 0, which is everybody's, could be foreseen.
    jobs
        how many processes train.
    """

    count: int
    question: Question
    asked: Calibrating
    seed: int = 0
    jobs: int | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            message = f"--retrain is the number of siblings to train anew, at least 1, got {self.count}"
            raise UsageError(message)


@dataclass(frozen=True)
class Retrained:
    """What came of it.

    Parameters
    ----------
    same, alike, other
        numbers of siblings with the same weights, with the same answers, and with others.
    odd
        why these are no siblings; ``""`` where they may be.
    left
        number of siblings that were not trained anew.
    foreseen
        whether the claimant could know which ones would be.
    """

    same: int
    alike: int
    other: int
    odd: str = ""
    left: int = 0
    foreseen: bool = False

    def __str__(self) -> str:
        """Say it in a sentence or two."""
        count = self.same + self.alike + self.other
        said = [
            f"{self.same} have the weights that the key names" if self.same else "",
            f"{self.alike} answer as the key says" if self.alike else "",
            f"{self.other} answer otherwise" + ("" if self.odd else ", and lie among the others") if self.other else "",
        ]
        rest = f" What the other {self.left} siblings are is the owner's figure: nobody trained them anew." if self.left else ""
        told = f"{count} siblings were trained anew by the code that the key names: {'; '.join(filter(None, said))}.{rest}"
        return told + (FORESEEN if self.foreseen and self.left else "")


def retrain(key: Key, wanted: Retraining, *, store: Store | None = None) -> Retrained:
    """Train siblings of ``key`` anew and compare them with what it holds; which ones is drawn, finished ones are read from the store.

    Raises
    ------
    InputError
        when model, images, code or start are not those that the key names, or it has no siblings by code.
    ModelwardError
        when training fails.
    """
    members, kept = _places(key), store or Store()
    total = len(members) + len(key.fact(list, "draws", "failed"))
    count = next((known for known in DRAWS if known >= total), total)
    ground = prepare(wanted.question, kept)
    asked = replace(wanted.asked, count=count, thieves=False)
    plan = family_plan(asked, ground, kept)
    if plan is None:
        raise UsageError("--retrain needs --train package.module:function, or a model whose file carries its recipe")
    _require_roots(key, plan, ground.loaded.model)
    cells = [cell for cell in plan.ranked if cell.seed in members]
    order = torch.randperm(len(cells), generator=generator(wanted.seed))[: wanted.count]
    chosen = [cells[place] for place in order.tolist()]
    if not chosen:
        raise InputError("none of the seeds that the key names follows from this model, these images, this code and this start")
    run = Engine(kept, jobs=wanted.jobs).run(chosen, task="siblings trained anew")
    models = dict[int, nn.Module]()
    for cell in chosen:
        done = run.of(cell)
        if done is None:
            message = f"a sibling of the key could not be trained anew: {run.failed[cell.key]}"
            raise ModelwardError(message)
        models[cell.seed] = get_model(str(kept.folder), str(done.artifact))
    found = _compared(key, models, members, plan.about.images or ground.study.owner)
    found = replace(found, left=len(members) - len(models), foreseen=wanted.seed == 0)
    try:
        require_start(plan.about, list(models.values()), ground.loaded.model, planned_start(plan, kept))
    except InputError as error:
        return replace(found, odd=found.odd or f"{error}.")
    return found


def _places(key: Key) -> dict[int, int]:
    """Return the place of every sibling by its seed; raises `InputError` for a key whose siblings nobody could train."""
    if ownership(key.method, {}).drawn_over != "siblings":
        message = f"the draws behind this {key.method} key are no siblings; leave --retrain away"
        raise InputError(message)
    if key.fact(str, "draws", "origin") not in {"code", "recipe"}:
        raise InputError("the owner brought the siblings of this key: it names no code that they could be trained by")
    members, own = key.fact(list, "draws", "members"), int(key.fact(float, "draws", "own"))
    return {member["seed"]: place for place, member in enumerate(members) if place != own and isinstance(member.get("seed"), int)}


def _require_roots(key: Key, plan: Plan, model: nn.Module) -> None:
    """Raise `InputError` when what is brought is not what the key names."""
    about, images = plan.about, plan.about.images
    pairs = {
        "model": (state_digest(model), key.model_digest),
        "set of images": (None if images is None else images.digest, key.fact(dict, "draws").get("images")),
        "training code": (about.code, key.fact(dict, "draws").get("code")),
        "start": (about.start_digest, key.fact(dict, "draws").get("start_digest")),
    }
    other = next((name for name, (brought, named) in pairs.items() if brought != named), None)
    if other is not None:
        message = f"--retrain: the {other} is not the one that the key names: their digests differ"
        raise InputError(message)


def _compared(key: Key, models: dict[int, nn.Module], members: dict[int, int], images: ImageSet) -> Retrained:
    """Return how many of the siblings are those of the key.

    Raises
    ------
    UnsafeFileError
        when a sibling has the weights that the key names, and the key says of it what is not true.
    """
    told, method = key.fact(list, "draws", "members"), ownership(key.method, {})
    same = [seed for seed, model in models.items() if state_digest(model) == told[members[seed]]["digest"]]
    true = [seed for seed, model in models.items() if not method.differs(model, key, members[seed])]
    if not {*same} <= {*true}:  # a digest is easily copied: the rank is that of the answers
        raise UnsafeFileError(
            "a sibling that was trained anew has the weights that the key names, but it answers otherwise than the key says"
        )
    other = [seed for seed in models if seed not in {*same, *true}]
    whys = [why for seed in other for why in _odd(key, models[seed], members[seed], images, len(other))]
    return Retrained(len(same), len({*true} - {*same}), len(other), whys[0] if whys else "")


def _odd(key: Key, model: nn.Module, place: int, images: ImageSet, count: int) -> list[str]:
    """Return why a model does not lie among the siblings of a key, one of ``count`` that are tried; the one at ``place``, which it repeats, is left out."""
    members, own = key.fact(list, "draws", "members"), int(key.fact(float, "draws", "own"))
    left = [number for number in range(len(members)) if number not in {own, place}]
    clean = ImageSet(key.tensor("clean"), key.tensor("clean_labels"), images.classes, "probes")
    mine = Figures.of({"figures": figures_of(model, {"trained on": images, "probes": clean})}).values()
    rows = [*(Figures.of(members[number]).values() for number in left), mine]
    method = ownership(key.method, {})
    parts = {"clean_answers": predict(model, clean.pixels), **(method.parts(model, key, place) if isinstance(method, Fingerprint) else {})}
    tensors = {name: torch.cat([key.tensor(name)[left], part[None].to(key.tensor(name).dtype)]) for name, part in parts.items()}
    more = behaviour(tensors, len(rows))
    return odd_one_out([{**row, **further} for row, further in zip(rows, more, strict=True)], len(left), level=LEVEL / count)


def question_of(model: Path, arch: str | None, data: str | None, trained_on: str, **more: object) -> Question:
    """Return the question that brings the claimant's model and images; ``trained_on`` is a set, or a part of ``data``."""
    part = trained_on if trained_on in {"owner", "train"} else None
    if part is not None and data is None:
        message = f"--trained-on {part} is a part of --data; say of which set"
        raise UsageError(message)
    return Question(model=model, arch=arch, data=data or set_and_part(trained_on)[0], trained_on=part, **more)  # type: ignore[arg-type]
