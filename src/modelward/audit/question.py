"""What is asked of an audit, and what it starts from: the model, the data in disjoint parts, their digests in the store."""

from __future__ import annotations

import dataclasses
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from modelward.audit.scope import Choice, require_one_of, usual_scope
from modelward.core.errors import InputError, UsageError
from modelward.core.guard import predict, state_digest
from modelward.core.rng import derive_seed
from modelward.data import Splits, Study, load_data, study
from modelward.evaluation.farm import PROFILES as BATTERIES
from modelward.evaluation.parcels import put_model
from modelward.evaluation.store import Store
from modelward.evaluation.zoo import put_parts
from modelward.models import Convention, LoadedModel, load_model
from modelward.models.embedded import embedded_model
from modelward.report.conditions import Condition

PROFILES = ("smoke", "quick", "full")
SMOKE_IMAGES = 600
ASKED = 512  # images that tell whether the first of too many outputs are the classes


@dataclass(frozen=True)
class Question:
    """An audit, as asked.

    Parameters
    ----------
    model
        safetensors file; ``None`` is the embedded LeNet-5.
    arch
        architecture name, or ``package.module:function`` of your own; may be left out for files that modelward saved.
    convention
        what the net expects of its images where that is not RGB in [0, 1].
    data
        name, folder, zip or file of a labelled image set.
    profile
        effort: ``smoke`` (seconds, not evidence), ``quick``, ``full``.
    trained_on
        ``owner``: the model saw only the owner's half of the training split; ``train``: it saw all of it. ``None`` asks the model file, and
        assumes ``train`` where that says nothing.
    battery
        every theft there is, in the size ``smoke``, ``standard`` or ``full``, instead of the eight kinds that a profile tests.
    choice
        what is tested; what it leaves open is the profile's.
    fail_if
        conditions on the figures, as in ``robust_acc < .4``; one that is met fails the audit.
    """

    model: Path | None = None
    arch: str | None = None
    data: str = "fashion-mini"
    profile: str = "quick"
    seed: int = 0
    trained_on: str | None = None
    threads: int = 1
    size: tuple[int, int] | None = None
    convention: Convention | None = None
    battery: str | None = None
    choice: Choice = field(default_factory=Choice)
    fail_if: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.profile not in PROFILES:
            message = f"profile is {', '.join(PROFILES)}, not {self.profile!r}"
            raise UsageError(message)
        if self.trained_on not in {None, "owner", "train"}:
            message = f"trained_on is owner or train, not {self.trained_on!r}"
            raise UsageError(message)
        if self.battery is not None:
            require_one_of(self.battery, BATTERIES, "battery")
            if self.choice.theft is not None:
                message = f"the battery {self.battery!r} and a list of thefts both say what is stolen; keep one of the two"
                raise UsageError(message)
        if self.arch is not None and self.model is None:
            message = f"the embedded model is a lenet5; --arch {self.arch} is for a model of your own, pass that with --model"
            raise UsageError(message)
        if self.convention is not None and self.model is None:
            raise UsageError("the embedded model takes RGB in [0, 1]; range, channels, mean and std are for a model of your own")
        for text in self.fail_if:
            Condition.parse(text)
        if self.choice != Choice():
            self.choice.over(usual_scope(self.profile, "lenet5", self.battery)).checked()


@dataclass(frozen=True)
class Ground:
    """What an audit stands on: model and data, checked against each other and kept in the store."""

    question: Question
    loaded: LoadedModel
    splits: Splits
    study: Study
    victim: str
    parts: dict[str, str]
    store: Store
    notes: tuple[str, ...] = field(default=())


def fitted(question: Question) -> tuple[LoadedModel, Splits]:
    """Return the question's model and data; raises `InputError` when they do not belong together."""
    splits = load_data(question.data, size=question.size)
    if question.model is None:
        loaded = embedded_model()
    else:
        loaded = load_model(question.model, question.arch, size=question.size, like=splits.test.shape, convention=question.convention)
    remark = check_fit(loaded, splits)
    if remark:
        warnings.warn(remark, stacklevel=2)
    return loaded, splits


def prepare(question: Question, store: Store) -> Ground:
    """Load model and data, check that they fit, split the data, and keep all of it in the store.

    Raises
    ------
    InputError
        when the model's channels, size or classes are not the data's; more outputs than classes are none of that.
    """
    loaded, splits = fitted(question)
    remark = _further_outputs(loaded, splits)
    notes = [f"{remark[0].upper()}{remark[1:]}; answers beyond the classes count as wrong."] if remark else []
    trained_on = question.trained_on or loaded.facts.get("trained_on")
    if trained_on not in {"owner", "train"}:
        trained_on = "train"
        notes.append(
            "The model file does not say what it was trained on: the whole training split was assumed, and thieves work with half of the test split."
        )
    made = study(splits, trained_on="owner" if trained_on == "owner" else "train", seed=_split_seed(loaded))
    owner = loaded.facts.get("owner_digest")
    if owner and owner != made.owner.digest:
        notes.append("The model file names other training images than this data set's owner part: thieves may share images with the owner.")
    if question.profile == "smoke":
        parts = {name: getattr(made, name) for name in ("owner", "attacker", "probes", "test")}
        made = dataclasses.replace(made, **{name: part.few(SMOKE_IMAGES) for name, part in parts.items()})
    return Ground(question, loaded, splits, made, put_model(store, loaded.model), put_parts(store, made), store, tuple(notes))


def _split_seed(loaded: LoadedModel) -> int:
    """Return the seed of the split that the model's file names."""
    text = loaded.facts.get("split_seed", "0")
    if not re.fullmatch("[0-9]{1,18}", text):
        message = f"the model's file names {text!r:.40} as the seed of its split, which is no whole number from 0"
        raise InputError(message)
    return int(text)


def check_fit(loaded: LoadedModel, splits: Splits) -> str:
    """Return what is odd about a model's outputs, or ``""``; raises `InputError` when model and data do not belong together."""
    channels, height, width = splits.test.shape
    net = loaded.model
    if net.channels != channels:
        message = (
            f"the model takes {net.channels} channels, the images of {splits.name} have {channels}; pass the data the model was made for"
        )
        raise InputError(message)
    if net.size != (height, width):
        want = f"{net.size[0]},{net.size[1]}"
        message = f"the model takes {want} images, {splits.name} has {height},{width}; pass --size {want} to resize the images"
        raise InputError(message)
    if net.classes < len(splits.test.classes):
        message = f"the model has {net.classes} outputs, {splits.name} has {len(splits.test.classes)} classes; pass the data the model was made for"
        raise InputError(message)
    remark = _further_outputs(loaded, splits)
    if remark:
        _require_first_classes(loaded, splits)
    return remark


def _further_outputs(loaded: LoadedModel, splits: Splits) -> str:
    """Return the remark on outputs beyond the classes, which is all that a mark in a class of its own shows; ``""`` where there are none."""
    more = loaded.model.classes - len(splits.test.classes)
    count = "one output" if more == 1 else f"{more} outputs"
    return f"the model has {count} more than the data has classes: it may carry an additional-class mark" if more > 0 else ""


def _require_first_classes(loaded: LoadedModel, splits: Splits) -> None:
    """Raise `InputError` for a model with further outputs whose first ones answer like a guess: it was made for other classes."""
    images = splits.test.few(ASKED)
    right = int((predict(loaded.model, images.pixels).argmax(1) == images.labels).sum())
    if right <= int(images.labels.bincount().max()):  # what one and the same answer to all of them reaches
        message = (
            f"the model has {loaded.model.classes} outputs, {splits.name} has {len(splits.test.classes)} classes, and {right} of its answers to {len(images)} "
            "images are right, as by guessing; pass the data the model was made for"
        )
        raise InputError(message)


def cell_seed(ground: Ground, *coordinates: object) -> int:
    """Return the seed of a cell from the question's seed and its coordinates."""
    return derive_seed(ground.question.seed, *coordinates)


def subject(ground: Ground) -> dict[str, object]:
    """Return what the report says of model and data."""
    parts = {name: getattr(ground.study, name) for name in ("owner", "attacker", "probes", "test")}
    return {
        "model": ground.question.model.name if ground.question.model else "embedded lenet5",
        "digest": state_digest(ground.loaded.model), "arch": ground.loaded.arch,
        "parameters": sum(p.numel() for p in ground.loaded.model.parameters()),
        "data": ground.splits.name, "classes": list(ground.splits.test.classes),
        "parts": {name: {"n": len(part), "digest": part.digest} for name, part in parts.items()},
    }  # fmt: skip
