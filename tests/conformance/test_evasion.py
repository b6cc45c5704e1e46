"""What every evasion method promises, tried on all of the catalogue: a new method adds one row to `ROWS`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modelward.core import devices
from modelward.core.canonical import canonical_json
from modelward.core.catalogue import catalogue
from modelward.core.errors import InputError, UsageError
from modelward.core.families import EvasionMethod
from modelward.core.guard import predict
from modelward.core.result import Result
from modelward.core.rng import generator
from modelward.data.study import Study
from modelward.models import Net

Change = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
BUDGETS = {"linf": 0.12, "l2": 1.5, "l1": 9.0}
STEPS = {"linf": 0.02, "l2": 0.3, "l1": 1.5}


@dataclasses.dataclass(frozen=True)
class Row:
    """A method with constructor arguments.

    ``random``: another generator gives other images; ``gradient``: uses the input gradient; ``universal``: one change for all images.
    """

    name: str
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    random: bool = False
    gradient: bool = True
    universal: bool = False


ROWS = (
    Row("fgsm"),
    Row("bim", {"steps": 8}),
    Row("pgd", {"steps": 8}, random=True),
    Row("pgd", {"steps": 8, "loss": "margin", "early_stop": False}, random=True),
    Row("pgd", {"steps": 8, "loss": "dlr", "restarts": 2}, random=True),
    Row("pgd", {"steps": 8, "fast": True}, random=True),
    Row("mim", {"steps": 8}),
    Row("mim", {"steps": 8, "loss": "dlr"}),
    Row("dim", {"steps": 8}, random=True),
    Row("tim", {"steps": 8, "kernel": 3}),
    Row("sim", {"steps": 8, "copies": 3}),
    Row("si-ti-dim", {"steps": 8, "kernel": 3, "copies": 2}, random=True),
    Row("deepfool", {"steps": 50}),
    Row("cw", {"steps": 40, "search_steps": 4, "rate": 0.05, "first": 0.1}),
    Row("uap", {"steps": 40, "batch": 16}, random=True, universal=True),
    Row("noise", random=True, gradient=False),
)
OURS = {name: cls for name, cls in catalogue().items() if issubclass(cls, EvasionMethod) and cls.__module__.startswith("modelward.")}


def make(row: Row, norm: str, **changes: Any) -> EvasionMethod:
    """Return the method of a row at the budget of ``norm``, with steps that fit it."""
    fields = {**row.fields, "norm": norm, "eps": BUDGETS[norm]}
    if "step" in {field.name for field in dataclasses.fields(OURS[row.name])} and not row.universal:
        fields["step"] = STEPS[norm]
    return OURS[row.name].configured(fields | changes)


every, gradient_only = (
    pytest.mark.parametrize(
        ("row", "norm"),
        [
            pytest.param(row, norm, id=f"{row.name}{number}-{norm}")
            for number, row in enumerate(ROWS)
            if row.name in OURS and (row.gradient or not only)
            for norm in OURS[row.name].norms
        ],
    )
    for only in (False, True)
)


@pytest.fixture(autouse=True)
def _native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``fast`` take its steps in bf16 on every machine: elsewhere it is the row without it."""
    monkeypatch.setattr(devices, "bf16_is_native", lambda: True)


class Counted(nn.Module):
    """A model that counts the images it is asked about."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.images = 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        logits: Tensor = self.inner(x)
        return logits


def sizes(delta: Tensor, norm: str) -> Tensor:
    """Measure each change in double precision, on its own account."""
    flat = delta.double().flatten(1)
    return {"linf": flat.abs().max(1).values, "l2": (flat**2).sum(1) ** 0.5, "l1": flat.abs().sum(1)}[norm]


def test_every_registered_method_has_a_row() -> None:
    assert {row.name for row in ROWS} == set(OURS)


@every
def test_output_is_an_image_batch_within_the_budget(row: Row, norm: str, victim: Net, batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    for targeted in (False, True):
        for eps in (0.0, 0.25 * BUDGETS[norm], BUDGETS[norm]):
            out = make(row, norm, eps=eps, targeted=targeted).perturb(victim, x, y, rng=generator(0))
            assert out.shape == x.shape
            assert out.dtype == torch.float32
            assert not out.requires_grad
            assert float(out.min()) >= 0
            assert float(out.max()) <= 1
            assert float(sizes(out - x, norm).max()) <= eps + 1e-6 * (1 + eps)


@every
def test_the_model_is_untouched(row: Row, norm: str, scarred: Net, untouched: Callable[..., Any], batch: tuple[Tensor, Tensor]) -> None:
    with untouched(scarred):
        make(row, norm).perturb(scarred, *batch, rng=generator(0))


@gradient_only
def test_a_model_that_fails_is_put_back_too(
    row: Row, norm: str, scarred: Net, untouched: Callable[..., Any], batch: tuple[Tensor, Tensor]
) -> None:
    with untouched(scarred), pytest.raises(InputError):
        make(row, norm).perturb(scarred, batch[0][:, :, :6], batch[1], rng=generator(0))


@every
def test_the_callers_images_and_labels_are_untouched(row: Row, norm: str, victim: Net, batch: tuple[Tensor, Tensor]) -> None:
    for form in (torch.contiguous_format, torch.channels_last):
        x, y = batch[0].clone(memory_format=form).requires_grad_(), batch[1].clone()
        out = make(row, norm).perturb(victim, x, y, rng=generator(0))
        assert torch.equal(x, batch[0])
        assert torch.equal(y, batch[1])
        assert x.requires_grad
        assert x.grad is None
        assert out.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()


@every
def test_pixels_outside_the_mask_never_change(row: Row, norm: str, victim: Net, batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    mask = torch.zeros(len(x), 1, 8, 8)
    mask[:24, :, 2:] = 1
    mask[24:, :, :, 3:] = 1
    mask = mask[:1] if row.universal else mask
    method = make(row, norm)
    if not method.masks:
        with pytest.raises(UsageError, match="it takes no mask"):
            method.perturb(victim, x, y, rng=generator(4), mask=mask)
        return
    out = method.perturb(victim, x, y, rng=generator(4), mask=mask)
    changed = (out != x).any(1, keepdim=True)
    assert not bool((changed & (mask == 0)).any())
    assert bool((changed & (mask == 1)).any())
    assert torch.equal(method.perturb(victim, x, y, rng=generator(4), mask=torch.zeros(())), x)
    if row.gradient:  # the pixels that are left are used as well as they can be
        right = [
            int((predict(victim, attack.perturb(victim, x, y, rng=generator(0), mask=mask)).argmax(1) == y).sum())
            for attack in (method, OURS["noise"].configured({"norm": norm, "eps": BUDGETS[norm]}))
        ]
        assert right[0] < right[1]
    for wrong in (torch.full((), 0.5), torch.ones(2, 3, 8, 8), torch.tensor(float("nan"))):
        with pytest.raises(InputError, match="mask"):
            method.perturb(victim, x, y, rng=generator(0), mask=wrong)


@every
def test_the_generator_decides(row: Row, norm: str, victim: Net, batch: tuple[Tensor, Tensor]) -> None:
    method = make(row, norm)
    first, again, other = (method.perturb(victim, *batch, rng=generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert torch.equal(first, other) != row.random


@every
def test_the_mode_of_the_model_does_not_matter(row: Row, norm: str, victim: Net, scarred: Net, batch: tuple[Tensor, Tensor]) -> None:
    method = make(row, norm)
    assert torch.equal(method.perturb(victim, *batch, rng=generator(1)), method.perturb(scarred, *batch, rng=generator(1)))


@every
def test_no_image_and_one_image(row: Row, norm: str, victim: Net, batch: tuple[Tensor, Tensor]) -> None:
    method = make(row, norm)
    empty = method.run(victim, batch[0][:0], batch[1][:0], rng=generator(0))
    assert empty.value.shape == (0, 3, 8, 8)
    assert (empty.steps, empty.queries, empty.flags) == (0, 0, ())
    assert method.perturb(victim, batch[0][:1], batch[1][:1], rng=generator(0)).shape == (1, 3, 8, 8)


@every
def test_run_counts_what_was_asked(row: Row, norm: str, victim: Net, batch: tuple[Tensor, Tensor]) -> None:
    method, counted = make(row, norm), Counted(victim)
    result = method.run(counted, *batch, rng=generator(3))
    assert isinstance(result, Result)
    assert torch.equal(result.value, method.perturb(victim, *batch, rng=generator(3)))
    assert result.queries == counted.images
    assert (result.queries > 0) == row.gradient
    rounds = row.fields.get("restarts", 1) * row.fields.get("search_steps", 1)
    assert 1 <= result.steps <= row.fields.get("steps", 1) * rounds
    assert result.seconds > 0
    assert result.flags == ()


@gradient_only
def test_the_attack_beats_noise_of_its_size(row: Row, norm: str, victim: Net, parts: Study) -> None:
    x, y = parts.test.batch(slice(200)), parts.test.labels[:200]
    method, noise = make(row, norm), OURS["noise"].configured({"norm": norm, "eps": BUDGETS[norm]})
    right = [int((predict(victim, attack.perturb(victim, x, y, rng=generator(0))).argmax(1) == y).sum()) for attack in (method, noise)]
    assert right[0] < right[1]


@gradient_only
def test_a_target_is_reached_more_often_than_by_noise(row: Row, norm: str, victim: Net, parts: Study) -> None:
    x, wanted = parts.test.batch(slice(200)), (parts.test.labels[:200] + 1) % 3
    wanted = torch.zeros_like(wanted) if row.universal else wanted  # one change cannot move every image to a class of its own
    noise = OURS["noise"].configured({"norm": norm, "eps": BUDGETS[norm]})
    hits = [
        int((predict(victim, attack.perturb(victim, x, wanted, rng=generator(0))).argmax(1) == wanted).sum())
        for attack in (make(row, norm, targeted=True), noise)
    ]
    assert hits[0] > hits[1]


def nan_pixel(x: Tensor) -> Tensor:
    """Return ``x`` with one NaN."""
    x = x.clone()
    x[1, 0, 2, 2] = float("nan")
    return x


BAD: dict[str, Change] = {
    "NaN": lambda x, y: (nan_pixel(x), y),
    "infinite": lambda x, y: (x / 0, y),
    "255": lambda x, y: (255 * x, y),
    "negative": lambda x, y: (x - 0.5, y),
    "uint8": lambda x, y: ((255 * x).to(torch.uint8), y),
    "one image without batch": lambda x, y: (x[0], y[:1]),
    "flat": lambda x, y: (x.flatten(1), y),
    "float labels": lambda x, y: (x, y.float()),
    "int32 labels": lambda x, y: (x, y.int()),
    "one-hot labels": lambda x, y: (x, torch.eye(3, dtype=torch.int64)[y]),
    "too few labels": lambda x, y: (x, y[:-1]),
    "negative label": lambda x, y: (x, y - 1),
}
NEEDS_MODEL: dict[str, Change] = {
    "label beyond the classes": lambda x, y: (x, y + 1),
    "two channels": lambda x, y: (x[:, :2], y),
    "another size": lambda x, y: (x[:, :, :7, :7], y),
}


@every
@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused(row: Row, norm: str, what: str, victim: Net, batch: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError):
        make(row, norm).perturb(victim, *BAD[what](*batch), rng=generator(0))


@gradient_only
@pytest.mark.parametrize("what", NEEDS_MODEL)
def test_what_does_not_fit_the_model_is_refused(row: Row, norm: str, what: str, victim: Net, batch: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError):
        make(row, norm).perturb(victim, *NEEDS_MODEL[what](*batch), rng=generator(0))


@every
def test_settings_survive_json(row: Row, norm: str) -> None:
    method = make(row, norm, targeted=True)
    again = type(method).configured(json.loads(canonical_json(method.settings())))
    assert again == method
    assert hash(again) == hash(method)
    assert again.fingerprint() == method.fingerprint() != make(row, norm).fingerprint()


@pytest.mark.parametrize("name", OURS)
def test_bad_settings_are_named(name: str) -> None:
    method = OURS[name]
    with pytest.raises(UsageError, match=rf"{name} has no setting 'epz'; did you mean 'eps'\?"):
        method.configured({"epz": 0.1})
    for wrong in ({"norm": "l0"}, {"eps": -0.1}, {"eps": float("nan")}):
        with pytest.raises(UsageError):
            method.configured(wrong)


@pytest.mark.parametrize("name", OURS)
def test_a_card_says_who_and_what(name: str) -> None:
    method = OURS[name]
    assert method.card.name == name
    assert method.family == "evasion"
    assert method.card.title
    assert method.card.paper
    assert method.card.cost
    with pytest.raises(dataclasses.FrozenInstanceError):
        method().eps = 0.5  # type: ignore[misc]
