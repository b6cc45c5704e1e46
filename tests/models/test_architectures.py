from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelward.core.errors import InputError, UsageError
from modelward.core.guard import state_digest
from modelward.core.rng import generator
from modelward.models import ARCHITECTURES, build, describe, fresh_like, head, infer, reinitialise, weight_layers
from modelward.models.efficient import SameConv
from modelward.models.vit import Attention

LARGE = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
NAMES = [name for name in ARCHITECTURES if name not in LARGE]
SMALLEST = dict.fromkeys(NAMES, 4) | {"mlp": 1, "lenet5": 12, "cnn": 8}
FIXED_SIDE = ("mlp", "lenet5")  # the first linear layer tells the side

# counted by hand from the papers' layer tables, weights and biases, batch normalisation as scale and shift
PARAMETERS = {
    ("lenet5", 1, 28): 156 + 2_416 + 48_120 + 10_164 + 850,
    ("resnet8", 3, 32): 432 + 32 + (2 * 2_304 + 64) + (4_608 + 9_216 + 128 + 512 + 64) + (18_432 + 36_864 + 256 + 2_048 + 128) + 650,
    ("cnn", 3, 32): 432 + 32 + 4_608 + 64 + 18_432 + 128 + 650,
    ("mlp", 1, 28): 784 * 256 + 256 + 256 * 256 + 256 + 2_570,
    # two normalisations, two convolutions, a projection a stage
    ("wrn16", 3, 32): 432
    + (32 + 4_608 + 64 + 9_216 + 512 + 64 + 9_216 + 64 + 9_216)
    + (64 + 18_432 + 128 + 36_864 + 2_048 + 128 + 36_864 + 128 + 36_864)
    + (128 + 73_728 + 256 + 147_456 + 8_192 + 256 + 147_456 + 256 + 147_456)
    + (256 + 1_290),
    # widen, depthwise, narrow: inputs * t * inputs + 9 * t * inputs + t * inputs * outputs, two numbers a normalised channel
    ("mobilenet", 3, 32): (432 + 32)
    + (144 + 32 + 256 + 32)
    + sum(
        i * 4 * i + 9 * 4 * i + 4 * i * o + 2 * (4 * i + 4 * i + o) for i, o in ((16, 24), (24, 24), (24, 32), (32, 32), (32, 64), (64, 64))
    )
    + (64 * 128 + 256 + 1_290),
    # patches, class token, 65 positions; four layers of two norms, qkv, projection and perceptron; norm, head
    ("vit-tiny", 3, 32): (48 * 64 + 64 + 64 + 65 * 64)
    + 4 * (256 + 64 * 192 + 192 + 64 * 64 + 64 + 64 * 128 + 128 + 128 * 64 + 64)
    + (128 + 650),
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


@st.composite
def architectures(draw: st.DrawFn) -> tuple[str, dict[str, int]]:
    """Draw a name with all its arguments."""
    name = draw(st.sampled_from(NAMES))
    arguments = {"width": draw(st.integers(1 if name == "wrn16" else 2, 3 if name == "wrn16" else 24))}
    if name == "vit-tiny":
        heads = draw(st.integers(1, 4))
        arguments = {
            "patch": draw(st.integers(1, 5)),
            "width": heads * draw(st.integers(1, 6)),
            "depth": draw(st.integers(1, 3)),
            "heads": heads,
        }
    return name, arguments


def spelt(name: str, arguments: dict[str, int]) -> str:
    return f"{name}:{','.join(f'{option}={value}' for option, value in arguments.items())}"


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    arch=architectures(),
    classes=st.integers(1, 12),
    channels=st.sampled_from([1, 3]),
    extra=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    seed=st.integers(0, 2**32),
)
def test_infer_round_trip(arch: tuple[str, dict[str, int]], classes: int, channels: int, extra: tuple[int, int], seed: int) -> None:
    name, arguments = arch
    size = (SMALLEST[name] + extra[0], SMALLEST[name] + extra[1])
    net = build(spelt(name, arguments), classes=classes, channels=channels, size=size, rng=generator(seed))
    heads = f"{name}:heads={arguments['heads']}" if "heads" in arguments else name  # the one argument that no shape tells
    again = infer(heads, net.state_dict(), size)
    again.load_state_dict(net.state_dict())
    assert (again.classes, again.channels, again.size) == (classes, channels, size)
    assert describe(again.arch) == (name, {o: v for o, v in arguments.items() if v != ARCHITECTURES[name].defaults[o]})
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
    elif name == "vit-tiny":
        assert again.size == (-(-side // 4) * 4, -(-side // 4) * 4)  # patches are filled up
    else:
        assert again.size == (32, 32)  # global pooling: any size


@pytest.mark.parametrize("name", NAMES)
def test_what_weights_do_not_tell_the_images_do(name: str) -> None:
    state = build(name, classes=7, channels=3, size=(12, 16), rng=generator(0)).state_dict()
    bare = {key: tensor for key, tensor in state.items() if key not in {"mean", "std"}}
    if name in {"lenet5", "vit-tiny"}:  # their weights tell a square side, and fit no other
        assert infer(name, bare, (12, 16), like=(3, 12, 16)).channels == 3
        return
    found = infer(name, bare, like=(3, 12, 16))
    assert (found.channels, found.size) == (3, (12, 16))
    assert infer(name, bare, (12, 16), like=(3, 12, 16)).size == (12, 16)
    if name == "mlp":
        assert infer(name, bare, like=(3, 30, 16)).channels == 1  # other images than it was made for


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


@pytest.mark.parametrize(
    "arch", ["lenet", "lenet5:depth=3", "lenet5:width=", "lenet5:width=0", "lenet5:width=1025", "lenet5:width=-1", "lenet5:width=²", ""]
)
def test_odd_names_are_refused_in_words(arch: str) -> None:
    with pytest.raises(UsageError, match=r"there is no architecture|takes width=1\.\.1024"):
        build(arch, classes=2, rng=generator(0))


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("vit-tiny:width=30", "multiple of heads, got width=30, heads=4"),
        ("vit-tiny:patches=2", r"takes patch=1\.\.32, width=1\.\.1024, depth=1\.\.32, heads=1\.\.32, as in vit-tiny:patch=4"),
        ("wrn16:width=21", r"takes width=1\.\.20"),
        ("efficientnet-lite0:width=2", "takes no arguments"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_words(arch: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
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
    assert ARCHITECTURES[name].first in dict(net.named_parameters())
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


def test_attention_is_softmax_of_scaled_products() -> None:
    layer = Attention(8, 2)
    x = torch.rand(3, 5, 8, generator=generator(0))
    q, k, v = layer.qkv(x).split(8, 2)
    heads = [torch.nn.functional.scaled_dot_product_attention(q[..., c], k[..., c], v[..., c]) for c in (slice(0, 4), slice(4, 8))]
    assert torch.allclose(layer(x), layer.out(torch.cat(heads, 2)), atol=1e-6)


def test_tokens_know_their_place() -> None:
    net = build("vit-tiny:width=8,heads=2,depth=1", classes=3, size=(8, 8), rng=generator(0))
    x = torch.rand(4, 1, 8, 8, generator=generator(1))
    moved = x.roll(4, 3)  # the same patches elsewhere
    assert float((net(x) - net(moved)).abs().max().detach()) > 1e-6
    with torch.no_grad():
        net.body.tokens.position[:, 1:] = net.body.tokens.position[:, 1:2]
    assert torch.allclose(net(x), net(moved), atol=1e-5)


def test_new_weights_of_a_transformer_reach_its_positions() -> None:
    net = build("vit-tiny:width=8,heads=2,depth=1", classes=3, size=(8, 8), rng=generator(0))
    fresh = fresh_like(net, rng=generator(1))
    same = [name for name, value in fresh.named_parameters() if torch.equal(value, net.get_parameter(name))]
    assert all("norm" in name for name in same)  # born as ones and zeros


@pytest.mark.parametrize("name", ["wrn16", "mobilenet", "vit-tiny"])
def test_second_derivatives_flow(name: str) -> None:
    net = build(name, classes=3, size=(12, 12), rng=generator(0))
    x = torch.rand(1, 1, 12, 12, generator=generator(1)).requires_grad_()
    (first,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert float(second.abs().max()) > 0


def test_a_depthwise_filter_sees_one_channel() -> None:
    net = build("mobilenet:width=4", classes=3, size=(12, 12), rng=generator(0))
    depthwise = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.groups > 1]
    assert [m.groups for m in depthwise] == [m.in_channels for m in depthwise] == [4, 16, 24, 24, 32, 32, 64]


@pytest.mark.parametrize(
    ("name", "parameters", "side"), [(LARGE[0], 4_652_008, 224), (LARGE[1], 5_416_680, 240), (LARGE[2], 6_092_072, 260)]
)
def test_efficientnet_lite_has_the_published_size(name: str, parameters: int, side: int) -> None:
    with torch.device("meta"):
        body = ARCHITECTURES[name].make(3, (side, side), 1000)
    assert count(body) == parameters
    state = {f"body.{key}": tensor for key, tensor in body.state_dict().items()}
    assert body(torch.zeros(2, 3, side, side, device="meta")).shape == (2, 1000)
    found = infer(name, {key: torch.zeros(()).expand(tensor.shape) for key, tensor in state.items()})
    assert (found.classes, found.channels, found.size) == (1000, 3, (side, side))


@pytest.mark.parametrize(("side", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (8, 5, 2), (9, 5, 1), (1, 5, 2)])
def test_same_padding_keeps_every_stride(side: int, kernel: int, stride: int) -> None:
    conv = SameConv(1, 1, kernel, stride, bias=False)
    torch.nn.init.ones_(conv.weight)
    out = conv(torch.ones(1, 1, side, side + 1))
    assert out.shape[2:] == (-(-side // stride), -(-(side + 1) // stride))
    lack = max(0, (-(-side // stride) - 1) * stride + kernel - side)
    seen = [len(range(max(0, i * stride - lack // 2), min(side, i * stride - lack // 2 + kernel))) for i in range(-(-side // stride))]
    rows = out[0, 0, :, 0] / out[0, 0, 0, 0] * seen[0]
    assert torch.allclose(rows, torch.tensor(seen, dtype=torch.float32))
