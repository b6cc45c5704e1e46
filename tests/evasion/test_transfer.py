"""Momentum and its successors: the sums of their papers, and that what fools one net fools another."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.attacks.evasion import DIM, FGSM, MIM, SIM, SITIDIM, TIM, RandomNoise
from modelward.attacks.evasion.views import blur, diversify, gaussian
from modelward.core.errors import UsageError
from modelward.core.guard import predict
from modelward.core.rng import generator
from modelward.data.study import Study

FAMILY = (MIM, DIM, TIM, SIM, SITIDIM)


class Quadratic(nn.Module):
    """Two classes whose lead is a quadratic of the image: its gradient is known by hand."""

    def forward(self, x: Tensor) -> Tensor:
        score = (x * x).flatten(1).sum(1)
        return torch.stack([torch.zeros_like(score), score], 1)


def by_hand(x: Tensor, steps: int, decay: float, step: float, copies: int) -> Tensor:
    """Momentum against the margin of `Quadratic` for class 1, whose gradient is -2 x / 4^i for copy i."""
    start, direction = x, torch.zeros_like(x)
    for _ in range(steps):
        grad = -sum(2 * x / 4**i for i in range(copies)) / copies
        direction = decay * direction + grad / grad.abs().mean((1, 2, 3), keepdim=True)
        x = torch.maximum(torch.minimum(x + step * direction.sign(), start + 0.3), start - 0.3).clamp(0, 1)
    return x


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_momentum_by_hand(decay: float, copies: int) -> None:
    x = torch.rand(3, 1, 4, 4, generator=generator(0)) * 0.5 + 0.2
    attack = MIM(eps=0.3, step=0.03, steps=6, decay=decay, copies=copies, loss="margin")
    found = attack.run(Quadratic(), x, torch.ones(3, dtype=torch.int64), rng=generator(0))
    assert torch.allclose(found.value, by_hand(x, 6, decay, 0.03, copies), atol=1e-6)
    assert found.queries == 3 * 6 * copies


def test_without_momentum_one_step_is_the_fast_gradient(victim: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    one, other = MIM(eps=0.1, step=0.1, steps=1), FGSM(eps=0.1)
    assert torch.equal(one.perturb(victim, x, y, rng=generator(0)), other.perturb(victim, x, y, rng=generator(0)))


def test_the_names_are_defaults_of_one_method() -> None:
    for kind, fields in {DIM: {"probability": 0.5}, TIM: {"kernel": 15}, SIM: {"copies": 5}}.items():
        base, own = MIM().settings(), kind().settings()
        assert {name: value for name, value in own.items() if base[name] != value} == fields
    combined = SITIDIM()
    assert (combined.probability, combined.kernel, combined.copies) == (0.7, 7, 5)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.integers(3, 33), st.integers(3, 33), st.floats(0.3, 1))
def test_a_diversified_view_is_the_whole_image_made_smaller(seed: int, height: int, width: int, shrink: float) -> None:
    seen = diversify(torch.ones(2, 1, height, width), shrink, rng=generator(seed))
    assert seen.shape == (2, 1, height, width)
    rows, columns = (seen[0, 0] != 0).any(1).nonzero().flatten(), (seen[0, 0] != 0).any(0).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == len(rows)  # one rectangle of ones, zeros around it
    assert int(columns[-1] - columns[0]) + 1 == len(columns)
    assert float(seen.sum()) == pytest.approx(2 * len(rows) * len(columns), rel=1e-5)
    assert min(height - 1, int(shrink * height)) <= len(rows) <= height


def test_small_images_are_diversified_too() -> None:
    x = torch.rand(1, 1, 8, 8, generator=generator(0))
    views = [diversify(x, 0.9, rng=generator(seed)) for seed in range(12)]
    assert 2 <= len({tuple(view.flatten().tolist()) for view in views}) <= 5  # 8 rows, or 7 at one of four places


@pytest.mark.parametrize("side", [1, 3, 7, 15])
def test_smoothing_is_a_gaussian_average(side: int) -> None:
    weight = gaussian(side)
    assert float(weight.sum()) == pytest.approx(1, abs=1e-6)
    assert torch.equal(weight, weight.flip(0))
    grad = torch.randn(2, 3, 20, 20, generator=generator(1))
    whole = F.conv2d(grad.reshape(6, 1, 20, 20), torch.outer(weight, weight)[None, None], padding=side // 2).view_as(grad)
    assert torch.allclose(blur(grad, weight), whole, atol=1e-5)


@pytest.fixture(scope="module")
def rates(parts: Study, victim: nn.Module, mlp_victim: nn.Module) -> dict[str, int]:
    """How many of the images that another net classifies correctly each attack on the victim turns there."""
    x, y = parts.test.batch(slice(300)), parts.test.labels[:300]
    right = predict(mlp_victim, x).argmax(1) == y
    x, y = x[right], y[right]
    attacks = [kind(eps=0.15, step=0.02, **({"kernel": 3} if kind in {TIM, SITIDIM} else {})) for kind in FAMILY]
    return {
        attack.card.name: int((predict(mlp_victim, attack.perturb(victim, x, y, rng=generator(0))).argmax(1) != y).sum())
        for attack in (*attacks, RandomNoise(eps=0.15))
    }


@pytest.mark.parametrize("name", [kind.card.name for kind in FAMILY])
def test_what_fools_one_net_fools_another(name: str, rates: dict[str, int]) -> None:
    assert rates[name] >= 2 * rates["noise"] + 5  # the null control: noise of the same size on the same images


@pytest.mark.parametrize(
    "wrong", [{"kernel": 4}, {"kernel": 0}, {"copies": 0}, {"probability": 1.5}, {"shrink": 0.0}, {"decay": -1.0}, {"steps": -1}], ids=str
)
def test_settings_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"mim: {next(iter(wrong))} must be"):
        MIM(**wrong)
