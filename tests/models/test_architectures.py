from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelward.core.errors import InputError, UsageError
from modelward.core.guard import state_digest
from modelward.core.rng import generator
from modelward.models import ARCHITECTURES, build, describe, fresh_like, head, infer, reinitialise, weight_layers

SMALLEST = {"mlp": 1, "lenet5": 12, "cnn": 8, "resnet8": 4, "resnet14": 4, "resnet20": 4}
NAMES = list(ARCHITECTURES)
FIXED_SIDE = ("mlp", "lenet5")  # the first linear layer tells the side

# counted by hand from the papers' layer tables, weights and biases, batch normalisation as scale and shift
PARAMETERS = {
    ("lenet5", 1, 28): 156 + 2_416 + 48_120 + 10_164 + 850,
    ("resnet8", 3, 32): 432 + 32 + (2 * 2_304 + 64) + (4_608 + 9_216 + 128 + 512 + 64) + (18_432 + 36_864 + 256 + 2_048 + 128) + 650,
    ("cnn", 3, 32): 432 + 32 + 4_608 + 64 + 18_432 + 128 + 650,
    ("mlp", 1, 28): 784 * 256 + 256 + 256 * 256 + 256 + 2_570,
}


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("case", PARAMETERS)
def test_parameter_counts(case: tuple[str, int, int]) -> None:
    name, channels, side = case
    assert count(build(name, classes=10, channels=channels, size=(side, side), rng=generator(0))) == PARAMETERS[case]


def test_the_published_counts() -> None:
    assert count(build("lenet5", classes=10, rng=generator(0))) == 61_706
    assert count(build("resnet8", classes=10, channels=3, size=(32, 32), rng=generator(0))) == 78_042


@pytest.mark.parametrize("blocks", [2, 3])
def test_deeper_residual_networks_add_identity_blocks(blocks: int) -> None:
    more = sum(2 * 9 * width**2 + 4 * width for width in (16, 32, 64))
    small, large = (build(f"resnet{6 * n + 2}", classes=10, channels=3, size=(32, 32), rng=generator(0)) for n in (1, blocks))
    assert count(large) - count(small) == (blocks - 1) * more
    assert sum(1 for name, _ in weight_layers(large) if "shortcut" not in name) == 6 * blocks + 2


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(NAMES),
    width=st.integers(2, 24),
    classes=st.integers(1, 12),
    channels=st.sampled_from([1, 3]),
    extra=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    seed=st.integers(0, 2**32),
)
def test_infer_round_trip(name: str, width: int, classes: int, channels: int, extra: tuple[int, int], seed: int) -> None:
    size = (SMALLEST[name] + extra[0], SMALLEST[name] + extra[1])
    net = build(f"{name}:width={width}", classes=classes, channels=channels, size=size, rng=generator(seed))
    again = infer(name, net.state_dict(), size)
    again.load_state_dict(net.state_dict())
    assert (again.classes, again.channels, again.size) == (classes, channels, size)
    assert describe(again.arch) == (name, {} if width == ARCHITECTURES[name].width else {"width": width})
    x = torch.rand(2, channels, *size, generator=generator(seed))
    assert net(x).shape == (2, classes)
    assert torch.equal(again(x), net(x))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", [12, 28, 32, 33, 40])
def test_a_square_side_is_read_from_the_weights(name: str, side: int) -> None:
    net = build(name, classes=7, channels=3, size=(side, side), rng=generator(0))
    again = infer(name, net.state_dict())
    again.load_state_dict(net.state_dict())
    assert (again.arch, again.classes, again.channels) == (name, 7, 3)
    x = torch.rand(2, 3, *again.size, generator=generator(1))
    assert again(x).shape == (2, 7)
    if name == "mlp":
        assert again.size == (side, side)
    elif name == "lenet5":
        assert again.size == (side // 4 * 4, side // 4 * 4)  # pooling twice forgets the remainder


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("other", NAMES)
def test_every_pair_of_architectures_is_told_apart(name: str, other: str) -> None:
    state = build(name, classes=10, size=(28, 28), rng=generator(0)).state_dict()
    if name == other:
        assert infer(other, state, (28, 28)).arch == name
        return
    with pytest.raises((InputError, RuntimeError)) as caught:
        infer(other, state, (28, 28)).load_state_dict(state)
    if isinstance(caught.value, InputError):
        assert "known: mlp lenet5 cnn" in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_images_are_refused_in_words(name: str) -> None:
    net = build(name, classes=10, channels=1, size=(28, 28), rng=generator(0))
    for shape in ((2, 3, 28, 28), (2, 1, 32, 32), (2, 1, 28, 27)):
        with pytest.raises(InputError, match=r"takes images of shape \(1, 28, 28\), got"):
            net(torch.zeros(shape))


@pytest.mark.parametrize("name", ["lenet5", "cnn"])
def test_images_that_are_too_small_are_refused(name: str) -> None:
    side = SMALLEST[name]
    assert build(name, classes=2, size=(side, side), rng=generator(0))(torch.zeros(1, 1, side, side)).shape == (1, 2)
    with pytest.raises(UsageError, match=f"at least {side}x{side}"):
        build(name, classes=2, size=(side, side - 1), rng=generator(0))


@pytest.mark.parametrize("arch", ["lenet", "lenet5:depth=3", "lenet5:width=", "lenet5:width=0", "lenet5:width=1025", "lenet5:width=-1", ""])
def test_odd_names_are_refused_in_words(arch: str) -> None:
    with pytest.raises(UsageError, match=r"there is no architecture|takes width=1\.\.1024"):
        build(arch, classes=2, rng=generator(0))


def test_building_draws_from_its_generator_alone() -> None:
    before = torch.get_rng_state()
    one, other = (build("cnn", classes=3, rng=generator(5)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert state_digest(one) == state_digest(other) != state_digest(build("cnn", classes=3, rng=generator(6)))
    assert not one.training


def test_normalisation_lives_inside() -> None:
    x = torch.rand(4, 3, 8, 8, generator=generator(0))
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    inside = build("mlp:width=8", classes=3, channels=3, size=(8, 8), rng=generator(1), mean=mean, std=std)
    outside = build("mlp:width=8", classes=3, channels=3, size=(8, 8), rng=generator(1), mean=[0.0] * 3, std=[1.0] * 3)
    shifted = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.allclose(inside(x), outside(shifted))
    assert {"mean", "std"} <= set(inside.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_the_head_gives_the_logits(name: str) -> None:
    net = build(name, classes=7, rng=generator(0))
    place, layer = head(net)
    assert layer.weight.shape[0] == 7
    assert f"{place}.weight" == ARCHITECTURES[name].last
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.arange(7.0))
    assert torch.equal(net(torch.rand(1, 1, 28, 28)), torch.arange(7.0)[None])


def test_a_network_without_a_head_is_refused() -> None:
    with pytest.raises(InputError, match="no linear head"):
        head(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)))
    with_conv_head = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Conv2d(2, 5, 1))
    assert head(with_conv_head)[0] == "1"


def test_fresh_weights_leave_the_source_alone() -> None:
    net = build("resnet8", classes=3, rng=generator(0))
    net.body[1].running_mean.fill_(3.0)
    digest, state = state_digest(net), torch.get_rng_state()
    fresh, again = (fresh_like(net, rng=generator(1)) for _ in range(2))
    assert state_digest(net) == digest
    assert torch.equal(torch.get_rng_state(), state)
    assert state_digest(fresh) == state_digest(again) != digest
    assert float(fresh.body[1].running_mean.abs().max()) == 0.0
    reinitialise(head(fresh)[1], rng=generator(2))
    changed = [key for key, tensor in fresh.state_dict().items() if not torch.equal(tensor, again.state_dict()[key])]
    assert changed == ["body.8.weight", "body.8.bias"]
