"""Gradient attacks on networks whose best attack is known by hand, and on the embedded LeNet-5."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modelward.attacks.evasion import BIM, FGSM, PGD, RandomNoise
from modelward.attacks.evasion.descent import attack_loss, fooled
from modelward.core import devices
from modelward.core.errors import UsageError
from modelward.core.families import EvasionMethod
from modelward.core.guard import predict, state_digest
from modelward.core.result import Trace
from modelward.core.rng import generator
from modelward.data import load_data
from modelward.models import build
from modelward.models.embedded import embedded_model

ATTACKS = (FGSM, BIM, PGD, RandomNoise)


@pytest.fixture(scope="module")
def lenet() -> nn.Module:
    return embedded_model().model


@pytest.fixture(scope="module")
def right(lenet: nn.Module) -> tuple[Tensor, Tensor]:
    """The first 64 test images that the network classifies correctly."""
    test = load_data("fashion-mini").test.take(slice(0, 120))
    chosen = (predict(lenet, test.pixels).argmax(1) == test.labels).nonzero().squeeze(1)[:64]
    return test.batch(chosen), test.labels[chosen]


def linear(w: Tensor, b: float = 0.0) -> nn.Module:
    """Two classes: the score of the second is w x + b, of the first 0."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(w.numel(), 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([torch.zeros_like(w.flatten()), w.flatten()]))
        net[1].bias.copy_(torch.tensor([0.0, b]))
    return net


def size(delta: Tensor, norm: str) -> Tensor:
    return delta.flatten(1).abs().amax(1) if norm == "linf" else delta.flatten(1).double().norm(dim=1)


@settings(deadline=None, max_examples=60)
@given(
    attack=st.sampled_from(ATTACKS),
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.floats(0, 3),
    seed=st.integers(0, 2**32),
    hard=st.booleans(),
)
def test_the_budget_is_kept(attack: type[EvasionMethod], norm: str, eps: float, seed: int, hard: bool) -> None:
    rng = generator(seed)
    x = torch.rand(4, 2, 5, 6, generator=rng)
    x = x.round() if hard else x  # many pixels at 0 and 1
    net = build("mlp:width=8", classes=3, channels=2, size=(5, 6), rng=rng)
    before = x.clone()
    x_adv = attack(norm=norm, eps=eps).perturb(net, x, torch.tensor([0, 1, 2, 0]), rng=rng)
    assert torch.equal(x, before)
    assert (x_adv.shape, x_adv.dtype) == (x.shape, x.dtype)
    assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1
    assert bool((size(x_adv - x, norm) <= eps * (1 + 1e-5) + 1e-6).all())


@pytest.mark.parametrize("attack", [FGSM(eps=0.1), PGD(eps=0.1, step=0.03, early_stop=False), BIM(eps=0.1, step=0.03, early_stop=False)])
def test_linf_on_a_linear_net_is_the_sign_of_its_weights(attack: EvasionMethod) -> None:
    w = torch.randn(1, 4, 4, generator=generator(1))
    x = torch.full((3, 1, 4, 4), 0.5)
    x_adv = attack.perturb(linear(w), x, torch.tensor([0, 1, 0]), rng=generator(0))
    direction = torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1, 1)
    assert torch.allclose(x_adv, x + 0.1 * direction * w.sign(), atol=1e-6)


@pytest.mark.parametrize(
    "attack",
    [FGSM(norm="l2", eps=0.1), *(kind(norm="l2", eps=0.1, step=0.05, steps=40, early_stop=False) for kind in (PGD, BIM))],
)
def test_l2_on_a_linear_net_is_the_direction_of_its_weights(attack: EvasionMethod) -> None:
    w = torch.randn(1, 4, 4, generator=generator(1))
    x = torch.full((3, 1, 4, 4), 0.5)
    x_adv = attack.perturb(linear(w), x, torch.tensor([0, 1, 0]), rng=generator(0))
    direction = torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1, 1)
    assert torch.allclose(x_adv, x + 0.1 * direction * w / w.norm(), atol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_pgd_succeeds_exactly_where_a_linear_net_can_be_fooled(norm: str, loss: str) -> None:
    w = torch.randn(1, 4, 4, generator=generator(2))
    reach = float(w.abs().sum() if norm == "linf" else w.norm())  # largest change of the score per eps, by duality
    for share, falls in ((0.97, False), (1.03, True)):
        eps = 0.05
        x = torch.full((5, 1, 4, 4), 0.5)
        net = linear(w, reach * eps / share - float((w * 0.5).sum()))
        y = torch.ones(5, dtype=torch.int64)  # the score is reach * eps / share > 0
        x_adv = PGD(norm=norm, eps=eps, step=eps / 4, steps=80, loss=loss).perturb(net, x, y, rng=generator(3))
        assert (net(x_adv).argmax(1) != y).tolist() == [falls] * 5


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("targeted", [False, True])
def test_early_stop_loses_no_success(norm: str, loss: str, targeted: bool, lenet: nn.Module, right: tuple[Tensor, Tensor]) -> None:
    x, y = right
    wanted = (y + 1) % 10 if targeted else y
    eps, step = (0.06, 0.015) if norm == "linf" else (1.0, 0.25)
    settings = {"norm": norm, "eps": eps, "step": step, "steps": 12, "loss": loss, "targeted": targeted}
    early, whole = (PGD(**settings, early_stop=stop).run(lenet, x, wanted, rng=generator(4)) for stop in (True, False))
    hit, hit_whole = (fooled(predict(lenet, result.value), wanted, targeted=targeted) for result in (early, whole))
    assert bool(hit[hit_whole].all())  # image by image: what falls without early stop falls with it
    assert hit.sum() - hit_whole.sum() <= 1  # and it finds no more than an image that wanders back over the boundary
    assert 0 < int(hit.sum()) < len(x)
    assert early.queries < whole.queries == 12 * len(x)
    assert whole.steps == 12


@pytest.mark.parametrize("early_stop", [True, False])
def test_pgd_goes_on_from_its_start_only_where_needed(early_stop: bool, lenet: nn.Module, right: tuple[Tensor, Tensor]) -> None:
    x, y = right
    wrong = (y + 1) % 10  # counts as misclassified from the start
    result = BIM(eps=0.1, early_stop=early_stop).run(lenet, x, wrong, rng=generator(0))
    assert torch.equal(result.value, x) == early_stop
    assert result.queries == len(x) * (1 if early_stop else 10)


@dataclass(frozen=True, kw_only=True)
class Watched(PGD):
    """PGD that checks each success at the moment it is believed."""

    def _beaten(self, model: nn.Module, x_adv: Tensor, y: Tensor, logits: Tensor, trace: Trace) -> Tensor:
        hit = super()._beaten(model, x_adv, y, logits, trace)
        with torch.no_grad():
            assert bool(fooled(model(x_adv).float(), y, targeted=self.targeted)[hit].all())
        trace.notes["believed"] = trace.notes.get("believed", 0) + int(hit.sum())
        return hit


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this processor multiply bf16 by itself, whatever it really does."""
    monkeypatch.setattr(devices, "bf16_is_native", lambda: True)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fast_successes_hold_in_fp32(norm: str, lenet: nn.Module, right: tuple[Tensor, Tensor]) -> None:
    x, y = right
    eps, step = (0.06, 0.015) if norm == "linf" else (1.0, 0.25)
    fast = Watched(norm=norm, eps=eps, step=step, steps=12, fast=True).perturb(lenet, x, y, rng=generator(4))
    slow = PGD(norm=norm, eps=eps, step=step, steps=12).perturb(lenet, x, y, rng=generator(4))
    hits = [int((predict(lenet, value).argmax(1) != y).sum()) for value in (fast, slow)]
    assert hits[0] > 0
    assert abs(hits[0] - hits[1]) <= 2  # bf16 gradients point almost the same way


class Liar(nn.Module):
    """Errs on everything in bf16, and on what it is trained for in fp32."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits = self.net(x)
        return -logits if torch.is_autocast_enabled("cpu") else logits


class Noted(nn.Module):
    """Notes in what precision it was asked."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.cast: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.cast.append(torch.is_autocast_enabled("cpu"))
        logits: Tensor = self.net(x)
        return logits


@pytest.mark.parametrize("native", [True, False])
def test_fast_is_exact_where_bf16_is_only_emulated(
    native: bool, lenet: nn.Module, right: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "bf16_is_native", lambda: native)
    x, y = right
    nets = [Noted(lenet), Noted(lenet)]
    fast, exact = (
        PGD(eps=0.06, step=0.015, steps=6, fast=fast).run(net, x, y, rng=generator(4))
        for net, fast in zip(nets, (True, False), strict=True)
    )
    assert any(nets[0].cast) is native
    assert not any(nets[1].cast)
    if native:
        assert fast.queries > exact.queries  # successes were asked for again in fp32
    else:
        assert torch.equal(fast.value, exact.value)
        assert (fast.steps, fast.queries) == (exact.steps, exact.queries)


@pytest.mark.usefixtures("native")
def test_fast_believes_no_success_that_fp32_denies() -> None:
    w = torch.ones(1, 4, 4)
    net, x = Liar(linear(w, -4.0)), torch.full((3, 1, 4, 4), 0.5)  # score 4 for the second class
    result = BIM(eps=0.3, step=0.02, steps=15, fast=True).run(net, x, torch.ones(3, dtype=torch.int64), rng=generator(0))
    assert result.steps == 15  # the first "success", at the image itself, is a bf16 artefact
    assert result.queries == 3 * 15 * 2


def test_targeted_attacks_reach_the_class(lenet: nn.Module, right: tuple[Tensor, Tensor]) -> None:
    x, y = right[0][:16], right[1][:16]
    wanted = (y + 3) % 10
    x_adv = PGD(eps=0.5, step=0.03, steps=60, targeted=True).perturb(lenet, x, wanted, rng=generator(0))
    assert int((lenet(x_adv).argmax(1) == wanted).sum()) >= 15
    noise = RandomNoise(eps=0.5, targeted=True).perturb(lenet, x, wanted, rng=generator(0))
    assert int((lenet(noise).argmax(1) == wanted).sum()) <= 8  # the null control


def test_margin_does_not_vanish_on_saturated_nets(lenet: nn.Module, right: tuple[Tensor, Tensor]) -> None:
    x, y = right

    class Sharp(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return lenet(x) * 1e4

    settings = {"eps": 0.1, "step": 0.02, "steps": 10, "random_start": False}
    blind, seeing = (PGD(**settings, loss=loss).run(Sharp(), x, y, rng=generator(0)) for loss in ("ce", "margin"))
    still = [int((predict(lenet, result.value).argmax(1) == y).sum()) for result in (blind, seeing)]
    assert still[1] < still[0] - 20
    assert any(flag.startswith("zero gradient on ") and "loss='margin'" in flag for flag in blind.flags)
    assert seeing.flags == ()


@pytest.mark.parametrize("method", [kind(eps=0.1, norm=norm) for kind in ATTACKS for norm in ("linf", "l2")], ids=repr)
def test_attacks_are_pure(method: EvasionMethod, lenet: nn.Module, right: tuple[Tensor, Tensor]) -> None:
    x, y = right[0][:6], right[1][:6]
    digest, state = state_digest(lenet), torch.get_rng_state()
    one, other = (method.perturb(lenet, x, y, rng=generator(9)) for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert state_digest(lenet) == digest
    assert all(parameter.requires_grad and parameter.grad is None for parameter in lenet.parameters())
    assert not one.requires_grad
    assert method.perturb(lenet, x[:0], y[:0], rng=generator(0)).shape == (0, 1, 28, 28)
    if method.card.name in {"fgsm", "bim"}:  # one image at a time gives the same picture
        alone = torch.cat([method.perturb(lenet, x[i : i + 1], y[i : i + 1], rng=generator(i)) for i in range(len(x))])
        assert torch.allclose(alone, one, atol=1e-3)


def test_random_noise_has_the_whole_size() -> None:
    x, y = torch.full((50, 1, 6, 6), 0.5), torch.zeros(50, dtype=torch.int64)
    signs = RandomNoise(eps=0.2).perturb(nn.Flatten(), x, y, rng=generator(0)) - x
    assert torch.allclose(signs.abs(), torch.full_like(x, 0.2), atol=1e-6)
    assert 780 <= int((signs > 0).sum()) <= 1020  # 1,800 fair coins, five standard deviations and a bit
    ball = RandomNoise(norm="l2", eps=0.7).perturb(nn.Flatten(), x, y, rng=generator(0)) - x
    assert torch.allclose(ball.flatten(1).norm(dim=1), torch.full((50,), 0.7), atol=1e-5)


@given(st.integers(0, 2**32), st.integers(2, 6))
def test_margin_loss_by_hand(seed: int, classes: int) -> None:
    logits = torch.randn(3, classes, generator=generator(seed))
    y = torch.randint(0, classes, (3,), generator=generator(seed))
    by_hand = sum(
        max(v for k, v in enumerate(row) if k != label) - row[label] for row, label in zip(logits.tolist(), y.tolist(), strict=True)
    )
    assert float(attack_loss(logits, y, "margin", targeted=False)) == pytest.approx(by_hand, abs=1e-5)
    assert float(attack_loss(logits, y, "margin", targeted=True)) == pytest.approx(-by_hand, abs=1e-5)


@pytest.mark.parametrize(
    "wrong", [{"norm": "l0"}, {"eps": -0.1}, {"eps": float("nan")}, {"steps": -1}, {"step": -0.1}, {"loss": "mse"}], ids=str
)
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        PGD(**wrong)
