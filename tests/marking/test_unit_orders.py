"""The order of hidden units: copies that answer alike, thieves that keep it, strangers that do not, and orders that tell nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from crowds import Crowd, begun, blobs, kept, nets, trained
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.errors import InputError, Undecided, UsageError
from modelward.core.guard import predict
from modelward.core.rng import generator
from modelward.marking import unit_likeness
from modelward.marking.unit_conditions import diagonal_p, sorted_p, why_not
from modelward.marking.unit_likeness import UnitLikeness
from modelward.marking.unit_maps import answers_stay, in_order, paired, unit_maps, weights_of
from modelward.marking.unit_orders import order_test, same_start_p, unit_order
from modelward.models import build

LEVEL = 0.001  # of every binomial check below, fixed before it was run
SMALLEST = 1 / 10_001
ARCHES = ("lenet5", "cnn", "resnet8", "resnet20", "wrn16:width=1", "mobilenet", "mlp:width=32", "vit-tiny:depth=2")


def sized(arch: str, seed: int = 0) -> nn.Module:
    """Return a net of that architecture whose normalisations are not all alike."""
    net = build(arch, classes=10, channels=3, size=(32, 32), rng=generator(seed)).eval()
    rng = generator(seed + 100)
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if tensor.ndim == 1 and tensor.is_floating_point() and name.startswith("body."):
            tensor.data.add_(0.3 * torch.rand(tensor.shape, generator=rng))
    return net


@pytest.mark.parametrize("arch", ARCHES)
def test_every_drawn_copy_answers_as_the_net_and_is_scored_as_it_lies(arch: str, untouched: Callable[..., Any]) -> None:
    net, other = sized(arch), weights_of(sized(arch, 1))
    maps, pixels = unit_maps(net), torch.rand(8, 3, 32, 32, generator=generator(2))
    scored = UnitLikeness(maps, weights_of(net), other)
    drawn = maps.draw(3, rng=generator(3))
    likeness = scored.of(drawn)
    before = predict(net, pixels)
    with untouched(net):
        assert answers_stay(net, pixels, rng=generator(4))
        for index in range(3):
            clone = in_order(net, [order[index] for order in drawn])
            assert float((predict(clone, pixels) - before).abs().max()) <= 1e-5 * float(before.abs().max())
            moved = weights_of(clone)
            assert all(not torch.equal(moved[place.name], weights_of(net)[place.name]) for place in maps.tensors)
            assert float(UnitLikeness(maps, moved, other).own()) == pytest.approx(float(likeness[index]), abs=1e-6)
            assert float(naive(moved, other, [place.name for place in maps.tensors])) == pytest.approx(float(likeness[index]), abs=1e-6)


def naive(mine: dict[str, Tensor], theirs: dict[str, Tensor], names: list[str]) -> Tensor:
    """Return the likeness as the module's docstring writes it."""
    roots = torch.tensor([mine[name].numel() ** 0.5 for name in names])
    means = torch.stack([F.cosine_similarity(mine[name].flatten(1), theirs[name].flatten(1)).mean() for name in names])
    return (roots * means).sum() / roots.sum()


def test_inputs_and_classes_never_move() -> None:
    maps = unit_maps(build("lenet5", classes=10, rng=generator(0)))
    first, last = maps.tensors[0], maps.tensors[-1]
    assert (first.columns, last.rows) == (None, None)
    assert maps.units == (6, 16, 120, 84)
    assert [(place.rows, place.columns) for place in maps.tensors[1:4]] == [(1, 0), (2, 1), (3, 2)]


def test_one_residual_stream_is_one_group() -> None:
    maps = unit_maps(build("resnet8:width=8", classes=10, channels=3, size=(32, 32), rng=generator(0)))
    by_name = {place.name: place for place in maps.tensors}
    assert len(maps.units) == 6  # three streams, and one inner layer in each of three blocks
    assert by_name["body.0.weight"].rows == by_name["body.3.conv2.weight"].rows == by_name["body.3.conv1.weight"].columns


def test_orders_are_uniform() -> None:
    maps = unit_maps(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)))
    (orders,) = maps.draw(6_000, rng=generator(0))
    counts = torch.unique(orders, dim=0, return_counts=True)[1]
    assert len(counts) == 6
    assert float(((counts - 1000.0) ** 2 / 1000).sum()) < 20.5  # chi-squared, 5 degrees, .001


def pairs(crowd: Crowd, draws: int = 1_999) -> list[float | None]:
    """Return the p of the second of every two nets, judged by the first."""
    made = nets(crowd)
    return [unit_order(made[i], made[i + 1], rng=generator(i), draws=draws).p for i in range(0, len(made), 2)]


def check_uniform(found: list[float | None], draws: int = 1_999) -> None:
    """Check that small p come no more often than they should."""
    p = [value for value in found if value is not None]
    for bound in (0.05, 0.01, 1 / (draws + 1)):
        hits = sum(value <= bound for value in p)
        assert not p or binomtest(hits, len(p), bound, alternative="greater").pvalue > LEVEL, (bound, hits, len(p))


def test_forty_independent_nets_are_not_accused() -> None:
    found = pairs(trained(begun(80, 16, seed=1), seed=2))
    assert sum(value is not None for value in found) >= 38
    check_uniform(found)


def importance(crowd: Crowd, kind: str) -> list[Tensor]:
    """Return what pruning goes by, (N, C) for each hidden layer."""
    first, bias1, middle, bias2, last, _ = crowd
    if kind == "length":
        return [first.norm(dim=2), middle.norm(dim=2)]
    if kind == "read":
        return [middle.norm(dim=1), last.norm(dim=1)]
    x = blobs(5)[0].expand(len(first), -1, -1)
    one = torch.baddbmm(bias1[:, None], x, first.transpose(1, 2)).relu()
    return [one.mean(1), torch.baddbmm(bias2[:, None], one, middle.transpose(1, 2)).relu().mean(1)]


@pytest.mark.parametrize("kind", ["length", "read", "activation"])
def test_two_nets_sorted_or_pruned_by_one_rule_are_not_accused(kind: str) -> None:
    wide = trained(begun(40, 24, seed=3), seed=4)
    best = [values.topk(16, dim=1).indices for values in importance(wide, kind)]
    ordered = kept(wide, best)
    in_place = kept(wide, [units.sort(dim=1).values for units in best])
    found = pairs(ordered)
    assert sum(value is None for value in found) >= 16  # of 20: sorting is noticed
    check_uniform(found)
    found = pairs(in_place)
    assert sum(value is not None for value in found) >= 18  # what was dropped leaves the order of the rest alone
    check_uniform(found)


def thieves(net: nn.Module) -> dict[str, nn.Module]:
    """Return copies of a net with other weights and their units where they were."""
    made = {name: copy.deepcopy(net) for name in ("same", "noise", "prune", "quantise", "half", "scaled")}
    rng = generator(5)
    for name, model in made.items():
        for tensor in model.parameters():
            if name == "noise":
                tensor.data.add_(0.3 * tensor.data.std() * torch.randn(tensor.shape, generator=rng))
            elif name == "prune" and tensor.ndim > 1:
                tensor.data[tensor.abs() < tensor.abs().flatten().quantile(0.6)] = 0
            elif name == "quantise":
                step = tensor.abs().max() / 3
                tensor.data.copy_((tensor / step).round() * step)
            elif name == "half":
                tensor.data = tensor.data.half()
            elif name == "scaled":
                tensor.data.mul_(1000)
    return made


def test_thieves_reach_the_smallest_p_and_a_permuted_one_does_not() -> None:
    crowd = trained(begun(3, 16, seed=6), seed=7)
    tuned = nets(trained(crowd, seed=8, steps=200, lr=0.05))
    for index, net in enumerate(nets(crowd)):
        for name, thief in (*thieves(net).items(), ("tuned", tuned[index])):
            found = unit_order(net, thief, rng=generator(index))
            assert (found.p, found.reached, found.draws) == (SMALLEST, 0, 10_000), name
        hidden = in_order(net, [order[0] for order in unit_maps(net).draw(1, rng=generator(index))])
        found = unit_order(net, hidden, rng=generator(index))
        assert found.p is not None
        assert found.p > 0.01


@pytest.mark.parametrize("arch", ["lenet5:width=4", "resnet8:width=8"])
def test_convolutional_thieves_are_found(arch: str) -> None:
    net = sized(arch)
    for name, thief in thieves(net).items():
        assert unit_order(net, thief, rng=generator(0), draws=999).p == 0.001, name
    assert (unit_order(net, sized(arch, 1), rng=generator(0), draws=999).p or 0) > 0.01


def test_the_same_seed_gives_the_same_p_and_a_renamed_suspect_too() -> None:
    crowd = nets(trained(begun(2, 16, seed=9), seed=10))
    first = unit_order(crowd[0], crowd[1], rng=generator(0), draws=999)
    assert first == unit_order(crowd[0], crowd[1], rng=generator(0), draws=999)
    renamed = {f"layer{index}": tensor for index, tensor in enumerate(crowd[1].state_dict().values())}
    assert first == unit_order(crowd[0], renamed, rng=generator(0), draws=999)
    net = sized("cnn")
    state = {name.replace("body.", "net."): tensor for name, tensor in net.state_dict().items()}
    found = paired(weights_of(net), state)
    assert found is not None
    assert all(torch.equal(found[name], tensor) for name, tensor in weights_of(net).items())


def test_ties_count_against_the_owner() -> None:
    net = nets(begun(1, 16, seed=11))[0]
    for layer in (net[0], net[2]):
        layer.weight.data[:] = layer.weight.data[0].mean()
        layer.bias.data[:] = layer.bias.data[0]
    net[4].weight.data[:] = net[4].weight.data[:, :1]
    assert unit_order(net, net, rng=generator(0), draws=999).p == 1.0


def test_large_tensors_are_compared_at_evenly_spread_places(monkeypatch: pytest.MonkeyPatch) -> None:
    net = sized("resnet8:width=8")
    monkeypatch.setattr(unit_likeness, "ENTRIES", 500)
    monkeypatch.setattr(unit_likeness, "TABLE", 0)
    assert unit_order(net, thieves(net)["noise"], rng=generator(0), draws=999).p == 0.001
    assert (unit_order(net, sized("resnet8:width=8", 1), rng=generator(0), draws=999).p or 0) > 0.01


def test_orders_that_tell_nothing_say_why() -> None:
    net, other = nets(trained(begun(2, 16, seed=12), seed=13))
    rng = generator(0)

    def reason(owner: nn.Module, suspect: nn.Module, **more: bool) -> str:
        found = unit_order(owner, suspect, rng=rng, draws=99, **more)
        assert found.p is None
        return found.reason

    assert "initial weights" in reason(net, other, shared_start=True)
    assert "other shapes" in reason(net, nets(begun(1, 12, seed=0))[0])
    small = nets(begun(2, 4, seed=0))
    assert "fewer than 10,000 orders" in reason(*small)
    broken = copy.deepcopy(other)
    broken[0].weight.data[0, 0] = float("nan")
    assert "suspect's hidden units tells nothing: some of its weights are no numbers" in reason(net, broken)
    ordered = in_order(other, [other[0].weight.norm(dim=1).argsort(), torch.arange(16)])
    assert "suspect's hidden units tells nothing: its units are sorted" in reason(net, ordered)
    assert "owner's hidden units tells nothing: its units are sorted" in reason(ordered, net)
    assert "cannot be followed" in reason(Branching(), net)
    with pytest.raises(UsageError, match="draws must be at least 1"):
        unit_order(net, other, rng=rng, draws=0)


class Branching(nn.Module):
    """A net whose path depends on its input."""

    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.sum()) > 0 else -x


@pytest.mark.parametrize("kind", ["eye", "dirac"])
def test_initial_weights_that_tell_units_apart_are_noticed(kind: str) -> None:
    net = nets(begun(1, 16, seed=14))[0] if kind == "eye" else sized("cnn:width=8")
    for module in net.modules():
        if isinstance(module, nn.Linear if kind == "eye" else nn.Conv2d) and module.weight.shape[0] != 5:
            (nn.init.eye_ if kind == "eye" else nn.init.dirac_)(module.weight)
            module.weight.data.add_(0.1 * torch.randn(module.weight.shape, generator=generator(21)))
    maps = unit_maps(net)
    assert diagonal_p(maps, weights_of(net), rng=generator(0)) < 0.001
    assert unit_order(net, net, rng=generator(0), draws=99).p is None
    moved = in_order(net, [order[0] for order in maps.draw(1, rng=generator(1))])
    assert diagonal_p(maps, weights_of(moved), rng=generator(0)) > 0.001


def test_usual_initial_weights_are_seldom_called_sorted_or_diagonal() -> None:
    nothing = [why_not(unit_maps(net), weights_of(net), rng=generator(0)) for net in nets(trained(begun(40, 16, seed=15), seed=16))]
    assert sum(bool(reason) for reason in nothing) <= 2
    p = [sorted_p(unit_maps(net), weights_of(net)) for net in nets(trained(begun(60, 16, seed=17), seed=18))]
    assert binomtest(sum(value < 0.05 for value in p), 60, 0.15, alternative="greater").pvalue > LEVEL  # two groups and both together


def test_a_weight_that_serves_twice_cannot_be_followed() -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    net[2].weight = net[0].weight
    with pytest.raises(InputError, match="serves twice"):
        unit_maps(net)


def test_a_claim_to_a_start_of_ones_own_is_tried_against_a_public_net() -> None:
    starts = begun(4, 16, seed=19)
    done, public = nets(trained(starts, seed=20)), nets(starts)
    assert [same_start_p(net, start, rng=generator(0), draws=1_999) for net, start in zip(done, public, strict=True)] == [1 / 2_000] * 4
    other = [same_start_p(net, public[index - 1], rng=generator(0), draws=1_999) for index, net in enumerate(done)]
    assert min(other) > 0.001
    headed = copy.deepcopy(done[0])
    headed[4] = nn.Linear(16, 7)
    assert same_start_p(headed, public[0], rng=generator(0), draws=1_999) == 1 / 2_000
    assert order_test(unit_maps(headed), weights_of(headed), weights_of(public[0]), rng=generator(0)).p is None
    with pytest.raises(Undecided, match="public network's hidden units"):
        same_start_p(done[0], in_order(public[0], [public[0][0].weight.norm(dim=1).argsort(), torch.arange(16)]), rng=generator(0))
    with pytest.raises(Undecided, match="cannot be followed"):
        same_start_p(Branching(), public[0], rng=generator(0))
