"""What every theft promises, tried on all of the catalogue: a new method adds one row to `ROWS`."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import torch
from torch import nn

from modelward.core.canonical import canonical_json
from modelward.core.catalogue import catalogue
from modelward.core.errors import AccessError, InputError, UsageError
from modelward.core.families import TheftMethod
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.core.suspect import Access
from modelward.core.view import AttackerView, Labels
from modelward.data.study import Study
from modelward.models import Net
from modelward.models.assembly import Assembly

ORDER = list(Access)  # from the most to the least
MLP = "mlp:width=16"


@dataclasses.dataclass(frozen=True)
class Row:
    """A theft with settings; ``random``: it draws; ``asks``: queries an image for stolen labels; ``steps``, ``epochs``: what it reports."""

    name: str
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    random: bool = True
    asks: int = 1
    steps: int | None = None
    epochs: int | None = None


def still(name: str, **fields: Any) -> Row:
    """Return the row of a theft that asks nothing and draws nothing."""
    return Row(name, fields, random=False, asks=0)


def unasked(name: str, **fields: Any) -> Row:
    """Return the row of a theft that asks nothing but draws."""
    return Row(name, fields, asks=0)


ROWS = (
    Row("ftal", {"epochs": 2, "batch": 16}),
    Row("ftll", {"epochs": 2, "batch": 16}),
    Row("rtal", {"epochs": 2, "batch": 16}),
    Row("rtll", {"epochs": 2, "batch": 16}),
    Row("ftal", {"epochs": 2, "batch": 16, "optimizer": "adam"}),
    Row("scratch", {"epochs": 2, "batch": 16}),
    Row("ft-smooth-labels", {"epochs": 2, "batch": 16}),
    Row("ft-adversarial", {"epochs": 1, "batch": 16, "steps": 2}),
    Row("ft-regularise", {"epochs": 1, "batch": 16, "phase": 1}, steps=2, epochs=2),
    Row("weight-shift", {"epochs": 1, "batch": 16}),
    Row("push-maps", {"epochs": 1, "batch": 16, "probes": 32, "each": 8}),
    Row("prune-ft", {"epochs": 1, "batch": 16, "sparsity": 0.4}),
    Row("fine-prune", {"epochs": 1, "batch": 16, "ratio": 0.3}),
    Row("gan-removal", {"epochs": 2, "batch": 16, "steps": 60, "rounds": 1}),
    Row("neural-cleanse", {"epochs": 2, "batch": 16, "steps": 60}),
    Row("neural-cleanse", {"mode": "prune", "ratio": 0.6, "steps": 60, "drop": 1.0}, steps=0, epochs=0),
    Row("laundering", {"epochs": 2, "batch": 16, "steps": 60}),
    Row("extract-l", {"epochs": 4}),
    Row("extract-p", {"epochs": 4}),
    Row("extract-p", {"epochs": 4, "temperature": 4.0}),
    Row("extract-adv", {"epochs": 1, "steps": 2}),
    Row("extract-cross", {"epochs": 2, "other": MLP}),
    Row("extract-smooth", {"epochs": 2, "copies": 3}, asks=3),
    Row("distil", {"epochs": 2}),
    Row("knockoff", {"epochs": 2}),
    Row("ensemble", {"fields": {"epochs": 1}, "count": 2}, asks=2, steps=2, epochs=1),
    Row("overwrite", {"fields": {"bits": 20, "epochs": 1, "batch": 16}}, epochs=1),
    Row("combined", {"steps": [["weight-shift", {"epochs": 1}], "permute", "wrap-blur"]}, steps=3, epochs=1),
    unasked("transfer", epochs=1, batch=16),
    unasked("bn-recalibrate", images=40, batch=10),
    unasked("weight-noise", sigma=0.1),
    unasked("permute"),
    unasked("rescale", octaves=2),
    unasked("dummy-channels"),
    unasked("shift-logits"),
    still("prune", sparsity=0.4),
    still("quantise", bits=4),
    still("cast", dtype="bfloat16"),
    still("fold-bn"),
    Row("undo-gradient", {"steps": 3, "points": 3}, random=False, steps=3),
    Row("reverse-lock", {"share": 0.02}, random=False),
    Row("reverse-lock", {"share": 0.02, "rule": "layer", "norms": False}, random=False),
    Row("reverse-lock", {"share": 0.02, "rule": "swap", "each": 4}, random=False),
    Row("fill-outliers", {"shares": [0.05]}, random=False),
    Row("equal-values", random=False, steps=1, epochs=0),  # the victim has no equal values
    Row("value-clusters", {"epochs": 2, "sizes": [2], "around": 2, "level": 0.9}),
    Row("nearest-sibling", {"epochs": 2, "share": 0.05, "sibling_epochs": 1}),
    Row("gradient-fill", {"share": 0.02}, random=False),
    Row("layer-ridge", {"cut": 2}, random=False),
    Row("clip-outliers", {"epochs": 2, "batch": 16, "keep": 0.9}),
    Row("head-surgery", {"how": "remap", "images": 64}, random=False),
    still("wrap-blur", kind="median"),
    still("wrap-jpeg", quality=50),
    still("wrap-levels", levels=10),
    still("wrap-squeeze", bits=4),
    still("wrap-noise", std=0.1),
    still("wrap-flip"),
    still("wrap-round", decimals=1),
    still("wrap-label"),
    Row("label-remap", {"images": 40}, random=False),
    unasked("wrap-reconstruct", coder_epochs=1),
    unasked("detect-reconstruction", coder_epochs=1),
    unasked("detect-divergence", coder_epochs=1),
    unasked("detect-ood", rule="energy", quantile=0.5),
    unasked("detect-duplicates", quantile=0.9),
)
OURS = {name: cls for name, cls in catalogue().items() if issubclass(cls, TheftMethod) and cls.__module__.startswith("modelward.")}
CASES = [pytest.param(row, id=f"{row.name}{number}") for number, row in enumerate(ROWS)]
every = pytest.mark.parametrize("row", CASES)
each_mode = pytest.mark.parametrize(
    ("row", "labels"),
    [
        pytest.param(row, labels, id=f"{row.name}{i}-{labels}")
        for i, row in enumerate(ROWS)
        if row.name in OURS
        for labels in OURS[row.name].labels
    ],
)


class BlindSet(ImageSet):
    """Images whose labels may not be looked at."""

    @property
    def labels(self) -> NoReturn:
        """Fail."""
        raise AssertionError("the true labels were read")


def blind(images: ImageSet) -> ImageSet:
    """Return ``images`` as a set whose labels raise."""
    made = object.__new__(BlindSet)
    for name in ("pixels", "classes", "name"):
        object.__setattr__(made, name, getattr(images, name))
    return made


def make(row: Row) -> TheftMethod:
    """Return the method of a row."""
    return OURS[row.name].configured(row.fields)


def needed(row: Row) -> Access:
    """Return the access that a row and every theft inside it needs."""
    return min((OURS[name].needs for name in (row.name, *make(row).inner) if name in OURS), key=ORDER.index)


def view(model: nn.Module, images: ImageSet, row: Row, labels: Labels | None = None, **more: Any) -> AttackerView:
    """Return an attacker's position; by default with stolen labels, or true ones where the method wants those."""
    usual = Labels.STOLEN if Labels.STOLEN in OURS[row.name].labels else Labels.TRUE
    return AttackerView.of_model(model, images, labels=labels or usual, **more)


@pytest.fixture(scope="module")
def few(parts: Study) -> ImageSet:
    """Return a thief's few images."""
    return parts.attacker.take(slice(64))


def test_every_registered_method_has_a_row() -> None:
    assert {row.name for row in ROWS} == set(OURS)


@each_mode
def test_a_theft_is_a_model_in_evaluation_mode_and_the_victim_is_untouched(
    row: Row, labels: Labels, scarred: Net, untouched: Callable[..., Any], few: ImageSet
) -> None:
    attacker = view(scarred, few, row, labels)
    with untouched(scarred):
        result = make(row).run(attacker, rng=generator(0))
    theft = result.value
    assert predict(theft.model, few.pixels[:5]).shape == (5, 3)
    assert not any(module.training for module in theft.model.modules())
    assert all(parameter.requires_grad for parameter in theft.model.parameters())
    assert state_digest(theft.model) != state_digest(scarred)
    if row.name.startswith(("wrap-", "detect-")):
        assert isinstance(theft.model, Assembly)
        assert state_digest(theft.model.parts[0]) == state_digest(scarred)
    assert not {p.data_ptr() for p in scarred.parameters()} & {p.data_ptr() for p in theft.model.parameters()}
    assert result.steps == (row.fields.get("epochs", 1) if row.steps is None else row.steps)
    assert result.seconds > 0
    assert theft.log["epochs"] == (row.fields.get("epochs", 0) if row.epochs is None else row.epochs)
    assert make(row).effort >= theft.log["epochs"]


@each_mode
def test_queries_are_counted(row: Row, labels: Labels, victim: Net, few: ImageSet) -> None:
    attacker = view(victim, few, row, labels)
    attacker.victim.queries = 7
    result = make(row).run(attacker, rng=generator(0))
    assert result.queries == (row.asks * len(few) if labels is Labels.STOLEN else 0)
    assert attacker.victim.queries == 7 + result.queries


@each_mode
def test_true_labels_are_read_in_true_mode_only(row: Row, labels: Labels, victim: Net, few: ImageSet) -> None:
    attacker = view(victim, blind(few), row, labels)
    if labels is Labels.TRUE and (row.asks or row.name == "transfer"):
        with pytest.raises(AssertionError, match="the true labels were read"):
            make(row).run(attacker, rng=generator(0))
    else:
        seen = make(row).steal(attacker, rng=generator(0))
        plain = make(row).steal(view(victim, few, row, labels), rng=generator(0))
        assert state_digest(seen.model) == state_digest(plain.model)


@every
def test_the_generator_decides(row: Row, victim: Net, few: ImageSet) -> None:
    first, again, other = (state_digest(make(row).steal(view(victim, few, row), rng=generator(seed)).model) for seed in (3, 3, 4))
    assert first == again
    assert (first != other) == row.random


@every
def test_more_access_than_needed_changes_nothing(row: Row, victim: Net, few: ImageSet) -> None:
    arch = None if needed(row) is Access.WEIGHTS else MLP
    allowed = ORDER[: ORDER.index(needed(row)) + 1]
    thefts = [make(row).steal(view(victim, few, row, access=access, arch=arch), rng=generator(0)) for access in allowed]
    assert len({state_digest(theft.model) for theft in thefts}) == 1


@every
def test_less_access_than_needed_is_refused_without_a_query(row: Row, victim: Net, few: ImageSet) -> None:
    for access in ORDER[ORDER.index(needed(row)) + 1 :]:
        attacker = view(victim, few, row, access=access, arch=MLP)
        with pytest.raises(AccessError):
            make(row).run(attacker, rng=generator(0))
        assert attacker.victim.queries == 0


@every
def test_labels_it_does_not_work_with_are_refused(row: Row, victim: Net, few: ImageSet) -> None:
    for labels in {*Labels} - {*make(row).labels}:
        with pytest.raises(UsageError, match=f"{row.name} works with labels"):
            make(row).run(view(victim, few, row, labels), rng=generator(0))


@every
def test_a_broken_victim_gives_no_theft(row: Row, victim: Net, few: ImageSet) -> None:
    broken = copy.deepcopy(victim)
    with torch.no_grad():
        next(broken.parameters())[0, 0] = float("nan")
    with pytest.raises(InputError):
        make(row).run(view(broken, few, row), rng=generator(0))
    assert make(row).run(view(victim, few, row), rng=generator(0)).flags == ()


@every
def test_settings_survive_json(row: Row) -> None:
    method = make(row)
    again = type(method).configured(json.loads(canonical_json(method.settings())))
    assert again == method
    assert again.fingerprint() == method.fingerprint()
    for name in row.fields:
        with pytest.raises(UsageError, match=rf"{row.name} has no setting '{name}x'; did you mean '{name}'\?"):
            type(method).configured({f"{name}x": 1})
