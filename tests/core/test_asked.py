"""What a model may do to the images that it is handed, and what it has to answer with."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from modelward.attacks.evasion import BIM, FGSM, PGD, CarliniWagner, DeepFool
from modelward.attacks.evasion.flags import masking_flags
from modelward.core.errors import InputError
from modelward.core.guard import predict
from modelward.core.rng import generator


class InPlace(nn.Module):
    """A network that normalises its input where it lies."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        x /= 0.25
        return self.body(x)


class Answers(nn.Module):
    """A network that answers with something else than logits."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.body, self.what = InPlace().body, what

    def forward(self, x: Tensor) -> object:
        logits = self.body(x)
        return {"tuple": (logits, logits), "dict": {"logits": logits}, "one number": logits[:, 0], "map": logits[:, :, None, None]}[
            self.what
        ]


X = torch.rand(20, 3, 4, 4, generator=generator(0))
Y = torch.arange(20) % 4
ATTACKS = (FGSM(), PGD(), DeepFool(), CarliniWagner(steps=5, search_steps=1))


def test_images_are_lent_as_copies() -> None:
    net, kept = InPlace().eval(), X.clone()
    first = predict(net, X)
    assert torch.equal(first, predict(net, X))
    assert torch.equal(X, kept)
    assert torch.allclose(first, net.body((X - 0.5) / 0.25), atol=1e-5)
    for attack in ATTACKS:
        made = attack.perturb(net, X, predict(net, X).argmax(1), rng=generator(0))
        assert torch.equal(X, kept)
        assert not torch.equal(made, X)
    assert not net._forward_pre_hooks
    assert not net._forward_hooks


@pytest.mark.parametrize("what", ["tuple", "dict", "one number", "map"])
def test_odd_answers_are_one_sentence(what: str) -> None:
    net = Answers(what).eval()
    with pytest.raises(InputError, match=r"the model answers with a .*; logits \(N, K\) are asked for"):
        predict(net, X)
    for attack in ATTACKS:
        with pytest.raises(InputError, match="logits"):
            attack.perturb(net, X, Y, rng=generator(0))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.card.name)
def test_attacks_work_in_inference_mode_and_on_float64(attack) -> None:
    net = InPlace().eval()
    right = predict(net, X).argmax(1)
    expected = attack.perturb(net, X, right, rng=generator(0))
    with torch.inference_mode():
        assert torch.equal(attack.perturb(net, X, right, rng=generator(0)), expected)
        made_there = X.clone()
    assert torch.equal(attack.perturb(net, made_there, right, rng=generator(0)), expected)
    double = attack.perturb(net, X.double(), right, rng=generator(0))
    assert double.dtype == torch.float64
    assert torch.allclose(double.float(), expected, atol=1e-5)
    with pytest.raises(InputError, match="images of type float16 are too coarse"):
        attack.perturb(net, X.half(), right, rng=generator(0))


@pytest.mark.parametrize(
    "attack", [PGD(norm="l2", eps=1.5, step=0.3, steps=20, random_start=False), BIM(norm="l2", eps=1.5, step=0.3, steps=20)]
)
def test_the_smallest_gradients_move_an_image_as_far_as_others(attack) -> None:
    net = InPlace().eval()
    with torch.no_grad():
        net.body[1].weight.copy_(30 * torch.randn(4, 48, generator=generator(3)))
        net.body[1].bias.zero_()
    drawn = torch.rand(200, 3, 4, 4, generator=generator(4))
    logits = predict(net, drawn)
    top = logits.topk(2, 1).values
    sure = (top[:, 0] - top[:, 1] > 60) & (top[:, 0] - top[:, 1] < 85)  # gradients of 1e-26 to 1e-36
    assert int(sure.sum()) >= 3
    x, y = drawn[sure], logits.argmax(1)[sure]
    moved = (attack.perturb(net, x, y, rng=generator(0)) - x).flatten(1).norm(dim=1)
    assert float(moved.min()) > 0.2  # one step of .3 turns them


def test_a_net_that_looks_at_its_neighbours_is_flagged() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4)]
    whole, alone = (nn.Sequential(body[0], nn.BatchNorm2d(8, track_running_stats=tracked), *body[1:]).eval() for tracked in (False, True))
    x = X * torch.rand(20, 1, 1, 1, generator=generator(1))
    assert "batch-dependent" in masking_flags(whole, x, Y)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(48, 4), nn.BatchNorm1d(4, track_running_stats=False)).eval()
    assert "fails on a single image" in masking_flags(flat, x, Y)["batch-dependent"]
    assert "batch-dependent" not in masking_flags(alone, x, Y)
