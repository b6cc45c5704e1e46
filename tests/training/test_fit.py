from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core import progress
from modelward.core.errors import InputError, UsageError
from modelward.core.guard import state_digest
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.models import build, head
from modelward.training import Recipe, accuracy, fit

PLAIN = Recipe(epochs=3, batch=32, lr=0.05, precision="fp32")


def net(arch: str = "cnn:width=4") -> nn.Module:
    return build(arch, classes=2, size=(8, 8), rng=generator(3))


class Recorder:
    """A listener that keeps what it hears, and a copy of the model after every epoch."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.heard, self.states = model, [], []

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        self.heard.append((task, done, total, note))
        self.states.append(copy.deepcopy(self.model.state_dict()))


def test_it_learns_and_says_how_far_it_is(train: ImageSet, test: ImageSet) -> None:
    model = net()
    recorder = Recorder(model)
    with progress.listening(recorder):
        log = fit(model, train.pixels, train.labels, PLAIN, rng=generator(0), task="toy")
    assert accuracy(model, test) > 0.9
    assert [(epoch.number, epoch.accuracy) for epoch in log] == [(0, None), (1, None), (2, None)]
    assert log[-1].loss < log[0].loss
    assert recorder.heard == [("toy", i + 1, 3, f"loss {epoch.loss:.3f}") for i, epoch in enumerate(log)]
    assert not model.training


def test_one_step_is_plain_gradient_descent(train: ImageSet) -> None:
    recipe = Recipe(epochs=1, batch=96, lr=0.1, momentum=0.0, weight_decay=0.01, schedule="constant", precision="fp32")
    model = build("mlp:width=8", classes=2, size=(8, 8), rng=generator(3))
    by_hand = copy.deepcopy(model)
    loss = F.cross_entropy(by_hand(train.batch(slice(None))), train.labels)
    loss.backward()
    (epoch,) = fit(model, train.pixels, train.labels, recipe, rng=generator(0))
    assert epoch.loss == pytest.approx(loss.item(), rel=1e-5)
    for (name, got), (_, start) in zip(model.named_parameters(), by_hand.named_parameters(), strict=True):
        want = start - 0.1 * (start.grad + 0.01 * start)
        assert torch.allclose(got, want, atol=1e-6), name


def test_soft_targets_of_certainty_are_labels(train: ImageSet) -> None:
    hard, soft = net(), net()
    log = fit(hard, train.pixels, train.labels, PLAIN, rng=generator(0))
    again = fit(soft, train.pixels, F.one_hot(train.labels, 2).float(), PLAIN, rng=generator(0))
    assert [epoch.loss for epoch in again] == pytest.approx([epoch.loss for epoch in log], rel=1e-4)
    for one, other in zip(hard.parameters(), soft.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_soft_targets_are_approached(train: ImageSet) -> None:
    wanted = torch.tensor([0.3, 0.7]).expand(len(train), 2)
    model = net("mlp:width=8")
    log = fit(model, train.pixels, wanted, dataclasses.replace(PLAIN, epochs=20), rng=generator(0))
    assert torch.allclose(model(train.batch(slice(None))).softmax(1), wanted, atol=0.05)
    entropy = -(0.3 * math.log(0.3) + 0.7 * math.log(0.7))
    assert log[-1].loss == pytest.approx(entropy, abs=0.01)
    assert log[-1].loss >= entropy - 1e-5


def test_temperature_divides_the_logits(train: ImageSet) -> None:
    recipe = Recipe(epochs=1, batch=96, precision="fp32", temperature=4.0)
    model = net("mlp:width=8")
    want = F.cross_entropy(model(train.batch(slice(None))) / 4.0, train.labels).item()
    (epoch,) = fit(model, train.pixels, train.labels, recipe, rng=generator(0))
    assert epoch.loss == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("mix", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
@pytest.mark.parametrize("soft", [False, True])
def test_mixed_images_come_with_mixed_targets(mix: dict[str, float], soft: bool, train: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    real = F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", lambda logits, y, **more: seen.append((logits, y)) or real(logits, y, **more))
    pixels = torch.where(train.labels.bool(), 255, 0).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)  # brightness tells the class
    batches: list[Tensor] = []
    model = net("mlp:width=4")
    model.register_forward_pre_hook(lambda module, x: batches.append(x[0]) if module.training else None)
    targets = F.one_hot(train.labels, 2).float() if soft else train.labels
    fit(model, pixels, targets, dataclasses.replace(PLAIN, **mix), rng=generator(0))
    assert len(batches) == len(seen) == 9
    for x, (_, y) in zip(batches, seen, strict=True):
        assert y.shape == (32, 2)
        assert torch.allclose(y.sum(1), torch.ones(32))
        assert torch.allclose(x.mean((1, 2, 3)), y[:, 1], atol=1e-5)  # the share of bright pixels is the target
    assert any(bool(((y > 0.01) & (y < 0.99)).any()) for _, y in seen)


def test_with_both_each_batch_draws_one(train: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelward.training import loop

    drawn: list[str] = []
    for name in ("mixup", "cutmix_batch"):
        real = getattr(loop, name)
        monkeypatch.setattr(loop, name, lambda *a, real=real, name=name, **k: drawn.append(name) or real(*a, **k))
    fit(net("mlp:width=4"), train.pixels, train.labels, dataclasses.replace(PLAIN, batch=8, mixup=0.2, cutmix=1.0), rng=generator(0))
    assert len(drawn) == 36
    assert 8 <= drawn.count("mixup") <= 28  # a fair coin leaves this range once in 3,000


def test_flips_and_crops_move_pixels_only(train: ImageSet) -> None:
    batches: list[Tensor] = []
    model = net("mlp:width=4")
    model.register_forward_pre_hook(lambda module, x: batches.append(x[0]) if module.training else None)
    pixels = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8).expand(96, 1, 8, 8)
    fit(model, pixels, train.labels, dataclasses.replace(PLAIN, flip=True), rng=generator(0))
    image = pixels[:1].float() / 255
    same = torch.cat([(x == image).flatten(1).all(1) for x in batches])
    mirrored = torch.cat([(x == image.flip(3)).flatten(1).all(1) for x in batches])
    assert bool((same ^ mirrored).all())
    assert 110 <= int(same.sum()) <= 178  # 288 fair coins, four standard deviations
    batches.clear()
    fit(model, pixels, train.labels, dataclasses.replace(PLAIN, crop=2), rng=generator(0))
    padded = F.pad(image, (2, 2, 2, 2))[0, 0]
    windows = padded.unfold(0, 8, 1).unfold(1, 8, 1).reshape(25, 64)
    flat = torch.cat(batches).reshape(-1, 64)
    matches = (flat[:, None] == windows).all(2)
    assert bool((matches.sum(1) == 1).all())
    assert bool(matches.any(0).all())  # all 25 shifts occur among 288 draws


def test_early_stop_comes_back_to_the_best(train: ImageSet, test: ImageSet) -> None:
    wrong = dataclasses.replace(PLAIN, epochs=30, patience=3, lr=0.02, schedule="constant")
    noisy = ImageSet(test.pixels, torch.randint(0, 2, (len(test),), generator=generator(5)), test.classes, "coin tosses")
    model = net()
    recorder = Recorder(model)
    with progress.listening(recorder):
        log = fit(model, train.pixels, train.labels, wrong, rng=generator(0), validation=noisy)
    scores = [epoch.accuracy for epoch in log]
    best = scores.index(max(scores))
    assert len(log) == best + 1 + wrong.patience < wrong.epochs
    assert accuracy(model, noisy) == scores[best]
    assert all(torch.equal(tensor, recorder.states[best][name]) for name, tensor in model.state_dict().items())


def test_without_patience_validation_is_not_looked_at(train: ImageSet, test: ImageSet) -> None:
    one, other = net(), net()
    log = fit(one, train.pixels, train.labels, PLAIN, rng=generator(0), validation=test)
    assert {epoch.accuracy for epoch in log} == {None}
    fit(other, train.pixels, train.labels, PLAIN, rng=generator(0))
    assert state_digest(one) == state_digest(other)


def test_frozen_layers_stay_to_the_bit(train: ImageSet) -> None:
    model = net()
    _, layer = head(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in layer.parameters():
        parameter.requires_grad_(True)
    before = copy.deepcopy(model.state_dict())
    fit(model, train.pixels, train.labels, PLAIN, rng=generator(0))
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"body.14.weight", "body.14.bias"}  # running statistics of frozen batch norms stay too


def test_a_living_batch_norm_moves(train: ImageSet) -> None:
    model = net()
    for convolution in (model.body[0], model.body[4], model.body[8]):
        convolution.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    fit(model, train.pixels, train.labels, PLAIN, rng=generator(0))
    for name, tensor in model.state_dict().items():
        frozen = name in {"mean", "std", "body.0.weight", "body.4.weight", "body.8.weight"}
        assert torch.equal(tensor, before[name]) == frozen, name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_divergence_is_said(precision: str, train: ImageSet, tmp_path: Path) -> None:
    recipe = Recipe(epochs=8, batch=32, lr=1e20, schedule="constant", precision=precision)
    with pytest.raises(InputError, match=r"training diverged in epoch \d+ .*smaller learning rate than 1e\+20"):
        fit(net("mlp:width=8"), train.pixels, train.labels, recipe, rng=generator(0), checkpoint=tmp_path / "run")
    assert not (tmp_path / "run").exists() or "nan" not in (tmp_path / "run").read_bytes().decode("latin1").split("body")[0]


def test_images_and_targets_must_fit(train: ImageSet) -> None:
    for pixels, targets in ((train.pixels, train.labels[:-1]), (train.pixels[:0], train.labels[:0])):
        with pytest.raises(InputError, match="training needs at least one and as many of each"):
            fit(net(), pixels, targets, PLAIN, rng=generator(0))


def test_a_last_batch_of_one_is_left_out(train: ImageSet) -> None:
    sizes: list[int] = []
    model = net()
    model.register_forward_pre_hook(lambda module, x: sizes.append(len(x[0])) if module.training else None)
    fit(model, train.pixels[:65], train.labels[:65], PLAIN, rng=generator(0))
    assert sizes == [32, 32] * 3


def test_the_adversary_sees_every_batch(train: ImageSet) -> None:
    seen: list[tuple[float, float]] = []

    def grey(model: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        assert isinstance(model, nn.Module)
        assert len(x) == len(y)
        seen.append((float(x.min()), float(x.max())))
        return torch.full_like(x, 0.5) + 0 * torch.rand(1, generator=rng)

    model, batches = net(), []
    model.register_forward_pre_hook(lambda module, x: batches.append(x[0]) if module.training else None)
    fit(model, train.pixels, train.labels, dataclasses.replace(PLAIN, epochs=1), rng=generator(0), adversary=grey)
    assert len(seen) == 3
    assert all(0 <= low < high <= 1 for low, high in seen)
    assert bool((torch.cat(batches) == 0.5).all())


def test_no_epochs_change_nothing(train: ImageSet) -> None:
    model = net()
    digest = state_digest(model)
    assert fit(model, train.pixels, train.labels, dataclasses.replace(PLAIN, epochs=0), rng=generator(0)) == []
    assert state_digest(model) == digest


@pytest.mark.parametrize(
    "wrong",
    [
        *({"optimizer": "lion"}, {"schedule": "step"}, {"precision": "fp8"}, {"epochs": -1}, {"batch": 0}, {"lr": 0.0}, {"lr": math.nan}),
        *({"ema": 1.0}, {"label_smoothing": 1.0}, {"temperature": 0.0}, {"patience": -1}, {"crop": -1}, {"mixup": -0.1}, {"cutmix": -1.0}),
        *({"warmup": 1.5}, {"momentum": 1.0}, {"weight_decay": -1.0}),
    ],
    ids=str,
)
def test_recipes_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=rf"^{next(iter(wrong))} "):
        Recipe(**wrong)


@given(st.floats(1e-4, 10), st.integers(1, 200), st.floats(0, 1), st.sampled_from(["onecycle", "cosine", "constant"]))
def test_schedules(lr: float, steps: int, warmup: float, schedule: str) -> None:
    recipe = Recipe(lr=lr, warmup=warmup, schedule=schedule)
    rates = [recipe.rate(step, steps) for step in range(steps)]
    assert all(0 <= rate <= lr * (1 + 1e-15) for rate in rates)  # lr * n / n may round up
    assert max(rates) == pytest.approx(lr)
    if schedule == "constant":
        assert rates == [lr] * steps
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if schedule == "cosine":
        assert rates == pytest.approx([lr / 2 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)])


def test_optimizers_get_the_unfrozen_only() -> None:
    model = net()
    model.body[0].weight.requires_grad_(False)
    for name, kind in (("sgd", torch.optim.SGD), ("adam", torch.optim.Adam)):
        optimizer = Recipe(optimizer=name, momentum=0.8, lr=0.3, weight_decay=0.01).make_optimizer(model.parameters())
        assert isinstance(optimizer, kind)
        (group,) = optimizer.param_groups
        assert len(group["params"]) == len(list(model.parameters())) - 1
        assert (group["lr"], group["weight_decay"]) == (0.3, 0.01)
        assert group["momentum"] == 0.8 if name == "sgd" else group["betas"] == (0.8, 0.999)
