"""Each sign of masked gradients is raised by a network broken in that way, and none by a healthy one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.attacks.evasion import PGD, RandomNoise
from modelward.attacks.evasion.flags import FLAGS, black_box_wins, masking_flags
from modelward.core.guard import predict, state_digest
from modelward.core.rng import generator
from modelward.data import load_data
from modelward.models import ARCHITECTURES, build
from modelward.models.embedded import embedded_model


@pytest.fixture(scope="module")
def lenet() -> nn.Module:
    return embedded_model().model


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    test = load_data("fashion-mini").test.take(slice(0, 64))
    return test.batch(slice(None)), test.labels


class Wrapped(nn.Module):
    """A network around the embedded one."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("seen", torch.zeros(()))


class RandomDropout(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(F.dropout(x, 0.2, training=True))


class Softmax(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).softmax(1)


class Saturated(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * 1e6


class Rounded(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.net((x * 7).round() / 7)


class Detached(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.detach()) + 0 * x.sum()


class Purifier(Wrapped):
    """Cleans its input by a gradient step before it answers."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (grad,) = torch.autograd.grad(self.net(leaf).logsumexp(1).sum(), leaf)
        return self.net(x - 0.01 * grad)


class BackwardPurifier(Wrapped):
    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            self.net(leaf).logsumexp(1).sum().backward()
        return self.net(x - 0.01 * leaf.grad)


class Counting(Wrapped):
    """Changes its own state while it answers."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        return self.net(x)


BROKEN = {
    RandomDropout: {"randomised"},
    Softmax: {"softmax"},
    Saturated: {"zero-gradient", "loss-decides"},
    Rounded: {"zero-gradient"},
    Detached: {"zero-gradient"},
    Purifier: {"inference-optimisation"},
    BackwardPurifier: {"inference-optimisation"},
    Counting: {"inference-optimisation"},
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_network_raises_its_flag_and_no_other(kind: type[Wrapped], lenet: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    found = masking_flags(kind(lenet), *batch)
    assert set(found) == BROKEN[kind]
    assert all(found.values())


def test_every_flag_is_explained() -> None:
    assert set().union(*BROKEN.values()) | {"black-box-wins", "batch-dependent"} == set(FLAGS)


def test_a_healthy_network_raises_none(lenet: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    assert masking_flags(lenet, *batch) == {}
    strong, weak = (
        predict(lenet, attack.perturb(lenet, *batch, rng=generator(0))).argmax(1) == batch[1] for attack in (PGD(), RandomNoise())
    )
    assert black_box_wins(strong, weak) is None


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_untrained_networks_in_training_mode_raise_none(name: str, batch: tuple[Tensor, Tensor]) -> None:
    net = nn.Sequential(build(name, classes=10, rng=generator(0)), nn.Dropout(0.5)).train()  # off when the network is evaluated
    assert masking_flags(net, *batch) == {}


def test_looking_leaves_the_model_and_torch_alone(lenet: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    real, digest = (torch.autograd.grad, torch.autograd.backward), state_digest(lenet)
    masking_flags(lenet, *batch)
    with pytest.raises(RuntimeError, match="no answer"):
        masking_flags(Failing(), *batch)
    assert (torch.autograd.grad, torch.autograd.backward) == real
    assert state_digest(lenet) == digest
    assert all(parameter.requires_grad for parameter in lenet.parameters())


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("no answer" + str(x.shape))


class PartlyBlind(nn.Module):
    """Gives the first ``dead`` images of a batch no gradient."""

    def __init__(self, dead: int) -> None:
        super().__init__()
        self.dead, self.linear = dead, build("mlp:width=8", classes=2, size=(4, 4), rng=generator(0))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.linear(x)
        return torch.cat([logits[: self.dead].detach(), logits[self.dead :]])


@pytest.mark.parametrize(("dead", "flagged"), [(0, False), (2, False), (3, True), (19, True)])
def test_the_share_without_gradient_decides(dead: int, flagged: bool) -> None:
    net, x = PartlyBlind(dead), torch.rand(20, 1, 4, 4, generator=generator(0))
    y = net(x).argmax(1)
    want = {"zero-gradient": f"{dead} of 20 images have no input gradient at all"} if flagged else {}  # more than one in ten
    assert masking_flags(net, x, y) == want
    assert masking_flags(net, x, 1 - y) == {}  # misclassified images need no attack and are not counted


@settings(deadline=None)
@given(st.integers(1, 300), st.data())
def test_black_box_wins_by_hand(n: int, data: st.DataObject) -> None:
    strong = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    weak = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    missed = sum(s and not w for s, w in zip(strong.tolist(), weak.tolist(), strict=True))
    found = black_box_wins(strong, weak)
    if missed <= 2 or missed <= 0.02 * n - 1:
        assert found is None
    elif missed > 0.02 * n + 1 and missed > 2:
        assert found == f"{missed} of {n} images fall to the weaker attack only"
    assert black_box_wins(strong, strong) is None


def test_black_box_wins_over_masked_gradients(lenet: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    masked = Rounded(lenet)
    strong, weak = (
        predict(masked, attack.perturb(masked, *batch, rng=generator(0))).argmax(1) == batch[1]
        for attack in (PGD(eps=0.25, random_start=False), RandomNoise(eps=0.25))
    )
    assert black_box_wins(strong, weak) is not None


def test_no_images_raise_no_flag(lenet: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    assert masking_flags(lenet, batch[0][:0], batch[1][:0]) == {}
