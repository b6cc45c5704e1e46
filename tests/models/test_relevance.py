"""Relevance maps: conserved, non-negative, equal to a calculation by hand and to another implementation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.attacks.theft import FoldNorm, PermuteNeurons, RescaleNeurons
from modelward.core.errors import InputError, UsageError
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.core.view import AttackerView
from modelward.models import Net, build
from modelward.models.relevance import Relevance
from modelward.models.relevance_rules import RULES, Rule

SIDE = 16
ARCHES = ("mlp:width=16", "lenet5", "cnn:width=4", "resnet8:width=4", "resnet14:width=2", "wrn16:width=1")


def net_for(arch: str, *, seed: int = 0, bias: bool = False) -> Net:
    """Return a net with normalisation statistics of its own, and no bias anywhere unless ``bias``."""
    net = build(arch, classes=5, channels=3, size=(SIDE, SIDE), mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.25], rng=generator(seed)).eval()
    rng = generator(seed + 1)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 2, generator=rng)
                module.weight.uniform_(0.5, 1.5, generator=rng)
                for tensor in (module.bias, module.running_mean):
                    tensor.uniform_(-0.2 * bias, 0.2 * bias, generator=rng) if bias else tensor.zero_()
            elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None and not bias:
                module.bias.zero_()
    return net


@pytest.fixture(scope="module")
def x() -> Tensor:
    """Return six images, some pixels at the ends of the range."""
    return torch.rand(6, 3, SIDE, SIDE, generator=generator(3)).mul(1.4).sub(0.2).clamp(0, 1)


def explained(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the predicted classes and their logits."""
    with torch.no_grad():
        top = net(x).max(1)
    return top.indices, top.values


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("rule", RULES)
def test_relevance_is_conserved_without_bias(arch: str, rule: str, x: Tensor) -> None:
    net = net_for(arch)
    classes, logits = explained(net, x)
    exact = Rule(None, eps=1e-12) if rule == "epsilon" else rule  # a larger eps absorbs, as it is meant to
    maps = Relevance(net).maps(x, classes, rule=exact)
    bound = 1e-3 if rule == "epsilon" else 1e-4  # its terms cancel in float32
    assert maps.shape == x.shape
    assert float(((maps.flatten(1).sum(1) - logits) / logits).abs().max()) < bound
    if rule not in {"epsilon", "alpha2-beta1"}:
        assert bool((maps * logits.sign().view(-1, 1, 1, 1) >= 0).all())


@pytest.mark.parametrize("arch", ["lenet5", "cnn:width=4", "resnet8:width=4"])
def test_z_plus_gives_biases_nothing(arch: str, x: Tensor) -> None:
    net = net_for(arch, bias=True)
    classes, _ = explained(net, x)
    sums = Relevance(net).maps(x, classes, start="one").flatten(1).sum(1)
    assert torch.allclose(sums, torch.ones(len(x)), atol=1e-4)


def test_two_layers_by_hand() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[1.0, -2.0], [2.0, 1.0]]))
        net[3].weight.copy_(torch.tensor([[3.0, 1.0], [-1.0, 1.0]]))
    x, zero = torch.tensor([[[[0.75, 0.25]]]]), torch.tensor([0])
    # hidden: (.75 - .5, 1.5 + .25) = (.25, 1.75); logit 0: .75 + 1.75 = 2.5, all of it positive: relevance (.75, 1.75)
    maps = {rule: Relevance(net).maps(x, zero, rule=rule).flatten().tolist() for rule in RULES}
    # zB: (x - 0) w+ + (x - 1) w-: neuron 0 (.75, 1.5) of 2.25; neuron 1 (1.5, .25) of 1.75
    assert maps["dtd"] == pytest.approx([0.75 * 0.75 / 2.25 + 1.5, 0.75 * 1.5 / 2.25 + 0.25])
    # w^2: neuron 0 (1, 4) of 5; neuron 1 (4, 1) of 5
    assert maps["w2"] == pytest.approx([0.75 / 5 + 1.75 * 4 / 5, 0.75 * 4 / 5 + 1.75 / 5])
    # epsilon: neuron 0 (.75, -.5) of .25; neuron 1 (1.5, .25) of 1.75
    assert maps["epsilon"] == pytest.approx([2.25 + 1.5, -1.5 + 0.25], rel=1e-4)
    # alpha 2, beta 1: neuron 0 gives 2 x .75 to pixel 0 and takes .75 from pixel 1; neuron 1 has no negative contribution
    assert maps["alpha2-beta1"] == pytest.approx([1.5 + 1.5, -0.75 + 0.25])
    assert maps["alpha1-beta0"] == pytest.approx([0.75 + 1.5, 0.25])


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    channels=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    groups=st.sampled_from([1, 3]),
)
def test_any_convolution_conserves_and_stays_above_zero(seed: int, channels: int, stride: int, padding: int, groups: int) -> None:
    rng = generator(seed)
    torch_net = nn.Sequential(
        nn.Conv2d(3, 3 * channels, 3, stride, padding, groups=groups, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.LazyLinear(3, bias=False)
    )  # fmt: skip
    x = torch.rand(2, 3, 9, 9, generator=rng)
    with torch.no_grad():
        torch_net(x)
        for parameter in torch_net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
        logits = torch_net(x)
    maps = Relevance(torch_net).maps(x, torch.tensor([0, 1]), start="one")
    reachable = logits.new_tensor([bool((torch_net[:4](x)[n] * torch_net[4].weight[n] > 0).any()) for n in range(2)])
    assert bool((maps >= 0).all())
    assert torch.allclose(maps.flatten(1).sum(1), reachable, atol=1e-4)


class Branches(nn.Module):
    """Two branches that are concatenated, a residual sum, a functional pool, a mean over places."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, o, 3, padding=1, bias=False) for i, o in ((3, 4), (3, 4), (8, 8)))
        self.dropout, self.head = nn.Dropout(0.5), nn.Linear(8, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 5)."""
        joined = torch.cat([self.a(x).relu(), F.relu(self.b(x))], 1)
        both = F.relu(self.c(joined) + joined)
        pooled = F.max_pool2d(self.dropout(both), 2).mean((2, 3))
        return self.head(pooled.view(pooled.size(0), -1))


@pytest.mark.parametrize("rule", ["dtd", "w2", "alpha2-beta1"])
def test_branches_sums_and_functions_are_followed(rule: str, x: Tensor) -> None:
    net = Branches().train()  # maps are those of eval mode whatever the mode
    classes, logits = explained(copy.deepcopy(net).eval(), x)
    maps = Relevance(net).maps(x, classes, rule=rule)
    assert float(((maps.flatten(1).sum(1) - logits) / logits).abs().max()) < 1e-4
    assert net.training


class ByHand(nn.Module):
    """A network that shifts and scales its images in its own forward pass, by a buffer and by a number."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.body = copy.deepcopy(net.body)
        self.register_buffer("middle", net.mean.clone())
        self.scale = (1 / net.std).flatten().tolist()[0]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.body((x - self.middle) * self.scale)


@pytest.mark.parametrize("rule", RULES)
def test_what_is_done_to_pixels_by_hand_is_as_what_a_net_does_to_them(rule: str, x: Tensor) -> None:
    net = net_for("cnn:width=4", bias=True)
    net.std.fill_(0.25)
    classes, _ = explained(net, x)
    expected = Relevance(net).maps(x, classes, rule=rule)
    assert torch.allclose(Relevance(ByHand(net)).maps(x, classes, rule=rule), expected, rtol=1e-4, atol=1e-6)


class Shifted(nn.Module):
    """A network that shifts and scales hidden units, and leaves its pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 6, bias=False), nn.Linear(6, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.b(2 * self.a(x.flatten(1)).relu() + 1)


class Divided(Shifted):
    """A network that divides by a hidden unit."""

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.b(1 / (1 + self.a(x.flatten(1)).relu()))


def test_what_is_added_to_a_hidden_unit_takes_its_share_by_the_epsilon_rule_alone() -> None:
    net, x = Shifted().eval(), torch.rand(5, 1, 2, 2, generator=generator(1))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.uniform_(0.1, 1, generator=generator(2))
        hidden = 2 * net.a(x.flatten(1))
        expected = (hidden * net.b.weight[0]).sum(1)
    classes = torch.zeros(5, dtype=torch.int64)
    own = Relevance(net).maps(x, classes, rule="epsilon").flatten(1).sum(1)
    assert torch.allclose(own, expected, rtol=1e-3)
    all_of_it = Relevance(net).maps(x, classes, rule="alpha1-beta0").flatten(1).sum(1)
    assert torch.allclose(all_of_it, explained(net, x)[1] * 0 + net(x)[:, 0], rtol=1e-3)


class Gated(Branches):
    """A network with a product of two activations."""

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        gate = self.a(x).sigmoid()
        return self.head(torch.cat([gate * self.b(x), gate], 1).mean((2, 3)))


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Gated(), r"'mul' \(mul\)"),
        (Divided(), r"'truediv' \(truediv\)"),
        (build("vit-tiny", classes=5, rng=generator(0)), r"'tokens' \(Tokens\)"),
    ],
)
def test_a_node_without_a_rule_is_named(net: nn.Module, words: str) -> None:
    with pytest.raises(InputError, match=f"no relevance rule is known for {words}"):
        Relevance(net)


def test_wrong_rules_classes_and_sizes_are_one_sentence(x: Tensor) -> None:
    found = Relevance(net_for("cnn:width=4"))
    with pytest.raises(UsageError, match="there is no relevance rule 'epsilom'; did you mean 'epsilon'"):
        found.maps(x, torch.zeros(6, dtype=torch.long), rule="epsilom")
    with pytest.raises(InputError, match="class 5 is to be explained, and this model has 5 logits"):
        found.maps(x, torch.full((6,), 5))
    with pytest.raises(InputError, match="takes images of shape"):
        found.maps(x[:, :1], torch.zeros(6, dtype=torch.long))


@pytest.mark.parametrize("theft", [RescaleNeurons(), PermuteNeurons(), FoldNorm()])
@pytest.mark.parametrize("rule", ["dtd", "alpha2-beta1"])
def test_maps_stay_where_weights_change_and_the_function_does_not(theft: Any, rule: str, x: Tensor) -> None:
    net = net_for("resnet8:width=4", bias=True)
    images = ImageSet((x * 255).to(torch.uint8), torch.zeros(6, dtype=torch.long), tuple("abcde"), "random")
    copied = theft.steal(AttackerView.of_model(net, images, labels="none"), rng=generator(1)).model
    classes, _ = explained(net, x)
    before, after = (Relevance(model).maps(x, classes, rule=rule) for model in (net, copied))
    assert not torch.equal(net.body[0].weight, copied.body[0].weight)
    assert torch.allclose(before, after, atol=1e-5 * float(before.abs().max()) + 1e-9)


def test_contrast_does_not_see_what_is_added_to_all_logits(x: Tensor) -> None:
    net = net_for("lenet5", bias=True)
    shifted = copy.deepcopy(net)
    with torch.no_grad():
        shifted.body[-1].weight.add_(torch.randn(shifted.body[-1].weight.shape[1], generator=generator(0)))
        shifted.body[-1].bias.sub_(50)
    classes, _ = explained(net, x)
    plain, contrast = (
        [Relevance(model, contrast=how).maps(x, classes, start="one") for model in (net, shifted)] for how in (False, True)
    )  # fmt: skip
    assert torch.allclose(*contrast, atol=1e-5)
    assert not torch.allclose(*plain, atol=1e-5)


def test_images_come_back_in_their_own_order_of_channels(x: Tensor) -> None:
    net = net_for("cnn:width=4")
    turned = Net(net.body, net.arch, classes=5, size=net.size, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.25], order=(2, 0, 1)).eval()
    classes = torch.zeros(6, dtype=torch.long)
    maps, other = Relevance(net).maps(x, classes), Relevance(turned).maps(x[:, [1, 2, 0]], classes)
    assert torch.allclose(turned(x[:, [1, 2, 0]]), net(x))
    assert torch.allclose(other, maps[:, [1, 2, 0]])


def test_maps_have_gradients_to_the_weights(x: Tensor) -> None:
    net = net_for("cnn:width=4").double()
    x, classes = x[:2].double(), torch.tensor([0, 1])
    weight, at = net.body[0].weight, (1, 2, 0, 1)

    def score() -> Tensor:
        return Relevance(net).maps(x, classes, start="one", differentiable=True).square().sum()

    (slope,) = torch.autograd.grad(score(), weight)
    values = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            weight[at] += step
        values.append(float(score().detach()))
    assert float(slope[at]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-3)
    assert weight.grad is None


def test_the_model_is_left_as_it_was(scarred: Net, batch: tuple[Tensor, Tensor], untouched: Callable[..., Any]) -> None:
    with untouched(scarred):
        Relevance(scarred).maps(*batch)


def plain_net(seed: int) -> nn.Sequential:
    """Return a bias-free network whose flattening is a function, as captum wants it."""

    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)

    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, bias=False), nn.ReLU(), Flat(),
        nn.Linear(150, 8, bias=False), nn.ReLU(), nn.Linear(8, 5, bias=False),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(seed)) / parameter[0].numel() ** 0.5)
    return net.eval()


@pytest.fixture
def oracle() -> tuple[Any, Any]:
    """Return captum's module of rules."""
    pytest.importorskip("captum", reason="captum is not installed")
    from captum.attr import LRP
    from captum.attr._utils import lrp_rules

    return LRP, lrp_rules


@pytest.mark.parametrize("rule", ["epsilon", "alpha1-beta0"])
@pytest.mark.filterwarnings("ignore")
def test_captum_finds_the_same(rule: str, oracle: tuple[Any, Any], x: Tensor) -> None:
    lrp, rules = oracle

    class Functional(nn.Module):
        def __init__(self, net: nn.Sequential) -> None:
            super().__init__()
            self.front, self.back = nn.Sequential(*net[:5]), nn.Sequential(*net[6:])

        def forward(self, x: Tensor) -> Tensor:
            return self.back(self.front(x).flatten(1))

    net = plain_net(5)
    classes, _ = explained(net, x)
    theirs = Functional(copy.deepcopy(net))
    for module in theirs.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.rule = rules.EpsilonRule(1e-6) if rule == "epsilon" else rules.Alpha1_Beta0_Rule()
    wanted = lrp(theirs).attribute(x.clone(), target=classes)
    found = Relevance(net).maps(x, classes, rule=rule)
    assert torch.allclose(found, wanted.detach(), atol=1e-4 * float(wanted.abs().max()))
