"""The logit ratio, restarts and masks: what they see, what they cost, what they leave alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from modelward.attacks.evasion import FGSM, MIM, PGD
from modelward.attacks.evasion.descent import LOSSES, attack_loss, logit_ratio
from modelward.attacks.evasion.flags import loss_decides
from modelward.core.errors import InputError, UsageError
from modelward.core.guard import predict
from modelward.core.rng import generator
from modelward.data import load_data
from modelward.models.embedded import embedded_model


@pytest.fixture(scope="module")
def lenet() -> nn.Module:
    return embedded_model().model


@pytest.fixture(scope="module")
def right(lenet: nn.Module) -> tuple[Tensor, Tensor]:
    test = load_data("fashion-mini").test.take(slice(0, 100))
    chosen = (predict(lenet, test.pixels).argmax(1) == test.labels).nonzero().squeeze(1)[:64]
    return test.batch(chosen), test.labels[chosen]


class Scaled(nn.Module):
    """The same decisions with larger logits."""

    def __init__(self, net: nn.Module, factor: float) -> None:
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x) * self.factor
        return logits


def ratio_by_hand(logits: list[float], label: int, *, targeted: bool) -> float:
    best = sorted(logits, reverse=True)
    other = max(value for k, value in enumerate(logits) if k != label)
    if targeted:
        return (logits[label] - other) / (best[0] - (best[2] + best[min(3, len(best) - 1)]) / 2)
    return (other - logits[label]) / (best[0] - best[2])


@given(st.integers(0, 2**32), st.integers(3, 7), st.booleans())
def test_logit_ratio_by_hand(seed: int, classes: int, targeted: bool) -> None:
    logits = torch.randn(4, classes, generator=generator(seed))
    y = torch.randint(0, classes, (4,), generator=generator(seed))
    want = [ratio_by_hand(values, label, targeted=targeted) for values, label in zip(logits.tolist(), y.tolist(), strict=True)]
    assert logit_ratio(logits, y, targeted=targeted).tolist() == pytest.approx(want, rel=1e-3, abs=1e-4)
    assert float(attack_loss(logits, y, "dlr", targeted=targeted)) == pytest.approx(sum(want), rel=1e-3, abs=1e-3)
    moved = logit_ratio(30 * logits + 5, y, targeted=targeted)
    assert moved.tolist() == pytest.approx(want, rel=1e-2, abs=1e-3)  # neither scale nor shift matters


def test_logit_ratio_needs_three_classes() -> None:
    net, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.full((1, 1, 2, 2), 0.5)
    with pytest.raises(InputError, match="use loss='margin'"):
        PGD(loss="dlr").perturb(net, x, torch.tensor([0]), rng=generator(0))


def test_cross_entropy_misreads_a_saturated_net(lenet: nn.Module, right: tuple[Tensor, Tensor]) -> None:
    x, y = right
    stands = {}
    for factor in (1, 300):
        for loss in LOSSES:
            attack = PGD(eps=0.06, step=0.015, steps=12, random_start=False, loss=loss)
            stands[factor, loss] = predict(lenet, attack.perturb(Scaled(lenet, factor), x, y, rng=generator(0))).argmax(1) == y
    robust = {key: int(value.sum()) for key, value in stands.items()}
    assert robust[300, "ce"] > robust[1, "ce"] + 15  # "robust" by a factor that changes no decision
    assert abs(robust[300, "dlr"] - robust[1, "dlr"]) <= 1
    assert abs(robust[300, "margin"] - robust[1, "margin"]) <= 1
    assert loss_decides(stands[300, "ce"], stands[300, "dlr"]) == (
        f"{robust[300, 'ce']} of {len(x)} images stand on the cross-entropy, {robust[300, 'dlr']} on the logit ratio"
    )
    assert loss_decides(stands[1, "ce"], stands[1, "dlr"]) is None


@pytest.mark.parametrize("attack", [FGSM(eps=0.05, loss="dlr"), MIM(eps=0.05, step=0.01, loss="dlr")])
def test_other_attacks_take_the_losses(attack: FGSM | MIM, lenet: nn.Module, right: tuple[Tensor, Tensor]) -> None:
    x, y = right
    small, large = (attack.perturb(Scaled(lenet, factor), x, y, rng=generator(0)) for factor in (1, 256))
    assert torch.allclose(small, large, atol=0.03)
    assert int((predict(lenet, small).argmax(1) != y).sum()) > 10


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_restarts_try_again_what_still_stands(norm: str, lenet: nn.Module, right: tuple[Tensor, Tensor]) -> None:
    x, y = right
    eps, step = (0.05, 0.025) if norm == "linf" else (7.0, 1.5)
    once, again = (PGD(norm=norm, eps=eps, step=step, steps=4, restarts=n).run(lenet, x, y, rng=generator(0)) for n in (1, 5))
    stood, stands = (predict(lenet, result.value).argmax(1) == y for result in (once, again))
    assert not bool((stands & ~stood).any())  # the first descent is the same: what fell has fallen
    assert 0 < int(stands.sum()) < int(stood.sum())
    assert torch.equal(again.value[~stood], once.value[~stood])
    assert 4 < again.steps <= 20
    left = int(stood.sum())
    assert again.queries <= once.queries + len(x) + 4 * 5 * left  # at most four steps and one look for each that stood


def test_restarts_are_checked() -> None:
    for wrong in ({"restarts": 0}, {"restarts": 2, "random_start": False}):
        with pytest.raises(UsageError, match="restarts"):
            PGD(**wrong)


def test_a_mask_costs_success_and_saves_the_budget(lenet: nn.Module, right: tuple[Tensor, Tensor]) -> None:
    x, y = right
    half = torch.zeros(1, 1, 28, 28)
    half[..., 14:] = 1
    whole, part = (PGD(norm="l2", eps=1.0, step=0.2).perturb(lenet, x, y, rng=generator(1), mask=mask) for mask in (None, half))
    fell = [int((predict(lenet, value).argmax(1) != y).sum()) for value in (whole, part)]
    assert fell[0] > fell[1] > 10
    assert torch.equal(part[..., :14], x[..., :14])
    assert float((part - x).flatten(1).norm(dim=1).max()) > 0.5  # the ball is that of the pixels that are left


def test_a_mask_that_hides_everything_but_one_image(lenet: nn.Module, right: tuple[Tensor, Tensor]) -> None:
    x, y = right[0][:6], right[1][:6]
    mask = torch.zeros(6, 1, 1, 1, dtype=torch.bool)
    mask[2] = True
    x_adv = PGD(eps=0.2, step=0.05, restarts=2).perturb(lenet, x, y, rng=generator(0), mask=mask)
    assert (x_adv != x).flatten(1).any(1).tolist() == [False, False, True, False, False, False]
