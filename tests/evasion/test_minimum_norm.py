"""DeepFool and Carlini-Wagner: nets whose distance to the boundary is known, what a cap does, what is left alone."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modelward.attacks.evasion import PGD, CarliniWagner, DeepFool
from modelward.core.canonical import canonical_json
from modelward.core.errors import UsageError
from modelward.core.families import MinimumNormMethod
from modelward.core.guard import predict
from modelward.core.rng import generator
from modelward.data import load_data
from modelward.data.study import Study
from modelward.models.embedded import embedded_model

QUICK = {"steps": 60, "search_steps": 5, "first": 0.3, "rate": 0.03}


@pytest.fixture(scope="module")
def lenet() -> nn.Module:
    return embedded_model().model


@pytest.fixture(scope="module")
def right(lenet: nn.Module) -> tuple[Tensor, Tensor]:
    test = load_data("fashion-mini").test.take(slice(0, 60))
    chosen = (predict(lenet, test.pixels).argmax(1) == test.labels).nonzero().squeeze(1)[:24]
    return test.batch(chosen), test.labels[chosen]


@pytest.fixture(scope="module")
def small(victim: nn.Module, parts: Study) -> tuple[Tensor, Tensor]:
    """Small images that the victim classifies correctly."""
    x, y = parts.test.batch(slice(40)), parts.test.labels[:40]
    chosen = predict(victim, x).argmax(1) == y
    return x[chosen][:20], y[chosen][:20]


def linear(seed: int, classes: int) -> nn.Module:
    """A linear net over 1x3x3 whose classes change nothing but small scores, so that boundaries are near grey."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, classes))
    rng = generator(seed)
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(classes, 9, generator=rng))
        net[1].bias.copy_(0.05 * torch.randn(classes, generator=rng) - net[1].weight.sum(1) / 2)
    return net


def distances(net: nn.Module, x: Tensor, y: Tensor, norm: str) -> Tensor:
    """The exact distance to the nearest boundary of a linear net, far from the box."""
    weight, bias = net[1].weight.detach().double(), net[1].bias.detach().double()
    scores = x.flatten(1).double() @ weight.T + bias
    found = []
    for score, label in zip(scores, y.tolist(), strict=True):
        others = [k for k in range(len(score)) if k != label]
        slopes = [(weight[k] - weight[label]).norm(p=2 if norm == "l2" else 1) for k in others]
        found.append(min(float((score[label] - score[k]) / slope) for k, slope in zip(others, slopes, strict=True)))
    return torch.tensor(found, dtype=torch.float64)


def sizes(delta: Tensor, norm: str) -> Tensor:
    return delta.flatten(1).norm(dim=1) if norm == "l2" else delta.flatten(1).abs().amax(1)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(2, 6), st.sampled_from(["l2", "linf"]))
def test_deepfool_is_exact_on_a_linear_net(seed: int, classes: int, norm: str) -> None:
    net, x = linear(seed, classes), torch.full((1, 1, 3, 3), 0.5)
    y = predict(net, x).argmax(1)
    want = distances(net, x, y, norm)
    found = DeepFool(norm=norm, candidates=None).run(net, x, y, rng=generator(0))
    assert bool((net(found.value).argmax(1) != y).all())
    assert torch.allclose(sizes(found.value - x, norm).double(), want * 1.02, rtol=0.02, atol=2e-4)
    assert found.steps == 1


def test_carlini_wagner_comes_close_on_a_linear_net() -> None:
    net, x = linear(3, 4), 0.5 + 0.05 * torch.randn(12, 1, 3, 3, generator=generator(1))
    y = predict(net, x).argmax(1)
    found = CarliniWagner(steps=300, first=0.1).perturb(net, x, y, rng=generator(0))
    assert bool((predict(net, found).argmax(1) != y).all())
    share = sizes(found - x, "l2").double() / distances(net, x, y, "l2")
    assert float(share.min()) > 0.999  # nothing is nearer than the boundary
    assert float(share.median()) < 1.05


def test_the_smallest_changes_lie_below_a_fixed_budget_that_works(lenet: nn.Module, right: tuple[Tensor, Tensor]) -> None:
    x, y = right[0][:16], right[1][:16]
    radius = 1.0
    fell = predict(lenet, PGD(norm="l2", eps=radius, step=0.1, steps=40).perturb(lenet, x, y, rng=generator(0))).argmax(1) != y
    found = {}
    for attack, share in (
        (DeepFool(), 0.75),
        (CarliniWagner(steps=150, search_steps=6, first=1.0), 0.9),
    ):  # DeepFool is an upper bound, not the distance
        value = attack.perturb(lenet, x, y, rng=generator(0))
        assert bool((predict(lenet, value).argmax(1) != y).all())
        found[attack.card.name] = sizes(value - x, "l2")
        assert int((found[attack.card.name][fell] <= radius).sum()) >= share * int(fell.sum())
    assert int(fell.sum()) > 10
    assert float(found["cw"].median()) < 1.2 * float(found["deepfool"].median())


@pytest.mark.parametrize("attack", [DeepFool(norm="linf"), DeepFool(), CarliniWagner(**QUICK)], ids=lambda attack: attack.card.name)
def test_a_cap_leaves_the_far_images_unchanged(attack: MinimumNormMethod, victim: nn.Module, small: tuple[Tensor, Tensor]) -> None:
    x, y = small
    free = attack.perturb(victim, x, y, rng=generator(0))
    cap = float(sizes(free - x, attack.norm).median())
    capped = type(attack)(**{**attack.settings(), "eps": cap}).perturb(victim, x, y, rng=generator(0))
    near = sizes(free - x, attack.norm) <= cap
    assert 0 < int(near.sum()) < len(x)
    assert torch.equal(capped[near], free[near])
    assert torch.equal(capped[~near], x[~near])
    assert bool((predict(victim, capped[~near]).argmax(1) == y[~near]).all())  # they count as robust


@pytest.mark.parametrize("kind", [DeepFool, CarliniWagner])
def test_no_cap_survives_json_and_the_shell(kind: type[MinimumNormMethod]) -> None:
    method = kind()
    assert method.eps == math.inf
    told = json.loads(canonical_json(method.settings()))
    assert told["eps"] is None
    assert kind.configured(told) == kind.configured({"eps": "inf"}) == method
    assert kind.configured({"eps": 0.5}).fingerprint() != method.fingerprint()
    for wrong in ({"eps": "far"}, {"eps": -1.0}, {"eps": [1]}, {"eps": float("nan")}):
        with pytest.raises(UsageError, match="eps"):
            kind.configured(wrong)


@pytest.mark.parametrize("attack", [DeepFool(), CarliniWagner(**QUICK)], ids=lambda attack: attack.card.name)
def test_what_is_misclassified_needs_no_change(attack: MinimumNormMethod, victim: nn.Module, small: tuple[Tensor, Tensor]) -> None:
    x, y = small[0][:8], (small[1][:8] + 1) % 3
    result = attack.run(victim, x, y, rng=generator(0))
    assert torch.equal(result.value, x)
    assert result.queries == 8


@pytest.mark.parametrize("attack", [DeepFool(steps=60, targeted=True), CarliniWagner(**QUICK, targeted=True)], ids=lambda a: a.card.name)
def test_targets_are_reached(attack: MinimumNormMethod, victim: nn.Module, small: tuple[Tensor, Tensor]) -> None:
    x, wanted = small[0][:8], (small[1][:8] + 2) % 3
    assert (predict(victim, attack.perturb(victim, x, wanted, rng=generator(0))).argmax(1) == wanted).float().mean() >= 0.9


def test_finished_samples_cost_nothing(victim: nn.Module, small: tuple[Tensor, Tensor]) -> None:
    x, y = small
    whole = DeepFool().run(victim, x, y, rng=generator(0))
    alone = [DeepFool().run(victim, x[i : i + 1], y[i : i + 1], rng=generator(0)).queries for i in range(len(x))]
    assert abs(whole.queries - sum(alone)) <= 2  # the batch pays for each image what it pays alone, but for rounding
    assert max(alone) > min(alone)
    lazy, keen = (CarliniWagner(**QUICK, abort_early=early).run(victim, x[:8], y[:8], rng=generator(0)) for early in (True, False))
    assert keen.queries == 8 * (60 * 5 + 1)
    assert lazy.queries < 0.9 * keen.queries
    assert float(sizes(lazy.value - x[:8], "l2").median()) < 1.05 * float(sizes(keen.value - x[:8], "l2").median())


@pytest.mark.parametrize("targeted", [False, True])
def test_confidence_is_a_lead_of_logits(targeted: bool, victim: nn.Module, small: tuple[Tensor, Tensor]) -> None:
    x, y = small[0][:8], small[1][:8]
    y = (y + 1) % 3 if targeted else y
    near, sure = (CarliniWagner(**QUICK, confidence=k, targeted=targeted).perturb(victim, x, y, rng=generator(0)) for k in (0, 3))
    logits = predict(victim, sure)
    own = logits.gather(1, y[:, None]).squeeze(1)
    lead = logits.scatter(1, y[:, None], -torch.inf).amax(1) - own
    assert bool(((-lead if targeted else lead) >= 3 - 1e-3).all())
    assert bool((sizes(sure - x, "l2") > sizes(near - x, "l2")).all())


def test_more_candidates_are_never_farther_at_the_first_step(victim: nn.Module, small: tuple[Tensor, Tensor]) -> None:
    x, y = small
    one, ten, every = (DeepFool(candidates=count, steps=1, overshoot=0).perturb(victim, x, y, rng=generator(0)) for count in (2, 10, None))
    assert torch.equal(ten, every)  # there are three classes
    both = (ten != x).flatten(1).any(1) & (one != x).flatten(1).any(1)
    assert bool((sizes(ten - x, "l2")[both] <= sizes(one - x, "l2")[both] + 1e-4).all())


def test_a_net_without_gradient_is_flagged(victim: nn.Module, small: tuple[Tensor, Tensor]) -> None:
    class Blind(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return victim(x.detach()) + 0 * x.sum()

    x, y = small[0][:6], small[1][:6]
    result = DeepFool().run(Blind(), x, y, rng=generator(0))
    assert torch.equal(result.value, x)
    assert any(flag.startswith("zero gradient on 6 of 6") for flag in result.flags)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"search_steps": 0}, {"rate": 0.0}, {"first": 0.0}, {"confidence": -1.0}, {"norm": "linf"}], ids=str
)
def test_settings_of_carlini_wagner_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        CarliniWagner(**wrong)


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"candidates": 1}, {"overshoot": -0.1}, {"norm": "l1"}], ids=str)
def test_settings_of_deepfool_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        DeepFool(**wrong)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_what_deepfool_fooled_stays_fooled_in_another_layout_and_batch(norm: str) -> None:
    model, images = embedded_model().model, load_data("fashion-mini").test.take(slice(0, 128))
    x = images.batch(slice(None))
    y = predict(model, x).argmax(1)
    found = DeepFool(norm=norm).perturb(model, x, y, rng=generator(0)).contiguous()
    assert bool((predict(model, found).argmax(1) != y).all())
    assert bool((predict(model, found, batch=7).argmax(1) != y).all())
