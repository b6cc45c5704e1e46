"""The thefts that change weights without training: exact sparsity, levels, noise, formats; and those that change no answer at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.attacks.theft import (
    CastWeights,
    FoldNorm,
    PermuteNeurons,
    Prune,
    Quantise,
    RecalibrateNorm,
    RescaleNeurons,
    WeightNoise,
)  # fmt: skip
from modelward.core.errors import InputError, UsageError
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.core.view import AttackerView
from modelward.models import ARCHITECTURES, Net, build, weight_layers
from modelward.models.channels import groups

NORMED = {"cnn", "resnet8", "resnet14", "resnet20", "wrn16", "mobilenet"}
SMALL = sorted(name for name in ARCHITECTURES if not name.startswith("efficientnet"))  # they are covered by mobilenet's kinds of layers


def moved(arch: str, seed: int, side: int = 12) -> tuple[Net, ImageSet]:
    """Return a net whose batch statistics and affine parameters are no longer the initial ones, and images."""
    rng = generator(seed)
    narrow = {"vit-tiny": "width=16,depth=2", "wrn16": "width=1"}.get(arch, "width=4")
    net = build(f"{arch}:{narrow}", classes=5, channels=3, size=(side, side), rng=rng).train()
    images = ImageSet(
        torch.randint(0, 256, (24, 3, side, side), generator=rng, dtype=torch.uint8), torch.arange(24) % 5, tuple("abcde"), "noise"
    )
    with torch.no_grad():
        for _ in range(3):
            net(images.batch(slice(None)))
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng), alpha=0.05)
    return net.eval(), images


def unlabelled(net: nn.Module, images: ImageSet) -> AttackerView:
    return AttackerView.of_model(net, images, labels="none")


def gap(first: nn.Module, second: nn.Module, images: ImageSet) -> float:
    return float((predict(first, images.pixels) - predict(second, images.pixels)).abs().max())


@settings(deadline=None, max_examples=15)
@given(st.sampled_from(SMALL), st.integers(0, 1000))
def test_permuted_and_rescaled_networks_give_the_same_logits(arch, seed):
    net, images = moved(arch, seed)
    for method in (PermuteNeurons(), RescaleNeurons(octaves=3)):
        if arch == "vit-tiny" and method.scaling:
            with pytest.raises(InputError, match="can be rescaled"):
                method.steal(unlabelled(net, images), rng=generator(seed))
            continue
        theft = method.steal(unlabelled(net, images), rng=generator(seed))
        assert gap(theft.model, net, images) <= 1e-5
        differ = [name for name, tensor in net.state_dict().items() if not torch.equal(tensor, theft.model.state_dict()[name])]
        hidden = [f"{name}.weight" for name, _ in weight_layers(net)]
        assert len(set(hidden) & set(differ)) >= {"vit-tiny": 4, "mobilenet": 15}.get(
            arch, len(hidden) - 1
        )  # where activations saturate, not all are free


def test_a_permutation_really_is_one(mlp_victim, few):
    copy = PermuteNeurons().steal(unlabelled(mlp_victim, few), rng=generator(0)).model
    old, new = mlp_victim.body[1], copy.body[1]
    assert {tuple(row.tolist()) for row in new.weight} == {tuple(row.tolist()) for row in old.weight}
    order = [next(i for i, row in enumerate(old.weight) if torch.equal(row, wanted)) for wanted in new.weight]
    assert torch.equal(new.bias, old.bias[order])
    assert order != sorted(order)


class Shared(nn.Module):
    """One layer used twice: its neurons cannot be renamed on one side alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.last = nn.Linear(12, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.twice(F.relu(self.twice(F.relu(self.first(x.flatten(1))))))))


class Biased(nn.Module):
    """A parameter of its own is added to the hidden neurons: their names matter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.shift = nn.Linear(12, 6), nn.Linear(6, 3), nn.Parameter(torch.arange(6.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x.flatten(1)) + self.shift))


class Choosing(nn.Module):
    """Its path depends on the values of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(12, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.first(x.flatten(1)))
        return self.last(hidden if float(x.sum()) > 0 else -hidden)


class Deceiving(nn.Linear):
    """A layer that is not what it says: it reads its inputs in reverse order of size."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input * torch.arange(1.0, input.shape[1] + 1))


@pytest.mark.parametrize("method", [PermuteNeurons(), RescaleNeurons()])
@pytest.mark.parametrize("make", [Shared, Biased, Choosing])
def test_networks_that_cannot_be_followed_are_refused_and_left_alone(method, make):
    rng = generator(0)
    net = make().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
    images = ImageSet(
        torch.randint(0, 256, (8, 3, 2, 2), generator=rng, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64), ("a",), "tiny"
    )
    before = state_digest(net)
    with pytest.raises(InputError):
        method.steal(unlabelled(net, images), rng=generator(0))
    assert state_digest(net) == before


def test_a_layer_that_lies_is_found_out_by_its_answers():
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), Deceiving(6, 3)).eval()
    images = ImageSet(torch.randint(0, 256, (8, 3, 2, 2), generator=generator(0), dtype=torch.uint8), torch.zeros(8).long(), ("a",), "tiny")
    with pytest.raises(InputError, match="would change the answers"):
        PermuteNeurons().steal(unlabelled(net, images), rng=generator(0))
    assert len(groups(net)) == 1


@pytest.mark.parametrize("arch", SMALL)
def test_folding_keeps_the_answers_and_needs_something_to_fold(arch):
    net, images = moved(arch, 3)
    if arch not in NORMED:
        for method in (FoldNorm(), RecalibrateNorm()):
            with pytest.raises(InputError, match="nothing to"):
                method.steal(unlabelled(net, images), rng=generator(0))
        return
    theft = FoldNorm().steal(unlabelled(net, images), rng=generator(0))
    assert gap(theft.model, net, images) <= 1e-4
    folded = [module for module in theft.model.modules() if isinstance(module, nn.BatchNorm2d) and not bool(module.running_mean.any())]
    assert len(folded) == theft.log["folded"] >= 3
    assert all(torch.allclose(norm.weight, torch.tensor(1 + norm.eps).sqrt()) for norm in folded)


def test_recalibration_measures_the_thiefs_images(victim, parts, changed):
    theft = RecalibrateNorm(images=256, batch=256).steal(unlabelled(victim, parts.attacker), rng=generator(0))
    first = theft.model.body[1]
    seen = victim.body[0]((parts.attacker.batch(slice(None)) - victim.mean) / victim.std).detach()
    assert torch.allclose(first.running_mean, seen.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(first.running_var, seen.var((0, 2, 3)), rtol=1e-3)
    assert first.momentum == victim.body[1].momentum
    assert {name.rpartition(".")[2] for name in changed(theft.model, victim)} == {"running_mean", "running_var", "num_batches_tracked"}


def test_recalibration_heals_spoilt_statistics(victim, parts):
    spoilt = RecalibrateNorm(images=256).steal(unlabelled(victim, parts.attacker), rng=generator(0)).model
    for norm in (module for module in spoilt.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.add_(5)
    healed = RecalibrateNorm(images=256).steal(unlabelled(spoilt, parts.attacker), rng=generator(0)).model

    def right(model: nn.Module) -> float:
        return float((predict(model, parts.test.pixels).argmax(1) == parts.test.labels).float().mean())

    assert right(spoilt) < 0.6 < right(victim) - 0.05 <= right(healed)


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.3])
def test_weight_noise_has_the_size_it_says(sigma, mlp_victim, few, changed):
    copy = WeightNoise(sigma=sigma).steal(unlabelled(mlp_victim, few), rng=generator(0)).model
    for (_, old), (_, new) in zip(weight_layers(mlp_victim), weight_layers(copy), strict=True):
        noise = (new.weight - old.weight).detach()
        assert float(noise.std()) == pytest.approx(sigma * float(old.weight.detach().std(correction=0)), rel=0.25)
    assert changed(copy, mlp_victim) == ({f"{name}.weight" for name, _ in weight_layers(mlp_victim)} if sigma else set())


@pytest.mark.parametrize(("dtype", "bits"), [("float16", 11), ("bfloat16", 8)])
def test_a_cast_keeps_so_many_bits(dtype, bits, victim, few):
    copy = CastWeights(dtype=dtype).steal(unlabelled(victim, few), rng=generator(0)).model
    for old, new in zip(victim.parameters(), copy.parameters(), strict=True):
        assert new.dtype == torch.float32
        assert torch.equal(new, new.to(getattr(torch, dtype)).float())
        assert bool(((new - old).abs() <= old.abs() * 2.0**-bits + 2.0**-25).all())


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.37, 0.5, 0.9, 1.0])
def test_pruning_reaches_the_exact_sparsity_with_the_smallest_weights(scope, sparsity, victim, few, changed):
    theft = Prune(sparsity=sparsity, scope=scope).steal(unlabelled(victim, few), rng=generator(0))
    before, after = ([layer.weight.detach().flatten() for _, layer in weight_layers(m)] for m in (victim, theft.model))
    if scope == "global":
        before, after = [torch.cat(before)], [torch.cat(after)]
    zeroed = 0
    for old, new in zip(before, after, strict=True):
        gone = new == 0
        assert not bool((old == 0).any())
        assert int(gone.sum()) == round(sparsity * len(old))
        assert torch.equal(new[~gone], old[~gone])
        assert not bool(gone.any() and (~gone).any()) or float(old[gone].abs().max()) <= float(old[~gone].abs().min())
        zeroed += int(gone.sum())
    assert theft.log["zeroed"] == zeroed
    assert theft.log["sparsity"] == zeroed / sum(map(len, before))
    assert changed(theft.model, victim) <= {f"{name}.weight" for name, _ in weight_layers(victim)}


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_quantisation_leaves_so_many_levels_and_rounds_to_the_nearest(bits, victim, few, changed):
    theft = Quantise(bits=bits).steal(unlabelled(victim, few), rng=generator(0))
    for (_, old), (_, new) in zip(weight_layers(victim), weight_layers(theft.model), strict=True):
        low, high = (float(value) for value in old.weight.detach().aminmax())
        step = (high - low) / (2**bits - 1)
        assert len(new.weight.unique()) <= min(2**bits, old.weight.numel())
        assert float((new.weight - old.weight).detach().abs().max()) <= step / 2 + 1e-6 * (high - low)
        ranks = (new.weight.detach().double() - low) / step
        assert float((ranks - ranks.round()).abs().max()) <= 1e-6 * 2**bits
    assert changed(theft.model, victim) <= {f"{name}.weight" for name, _ in weight_layers(victim)}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Prune, {"sparsity": 1.1}), (Prune, {"sparsity": -0.1}), (Prune, {"scope": "net"}), (Quantise, {"bits": 0}), (Quantise, {"bits": 17}),
        (WeightNoise, {"sigma": -0.1}), (CastWeights, {"dtype": "int8"}), (RescaleNeurons, {"octaves": 0}), (RecalibrateNorm, {"images": 1}),
        (RecalibrateNorm, {"batch": 1}),
    ],
)  # fmt: skip
def test_bad_settings_are_refused(kind: type, fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        kind.configured(fields)
