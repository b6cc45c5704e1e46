"""Where AdvParams lands: nobody finds the entries by their values, with the old landing at the band's edge as the control that is found."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp
from torch import Tensor, nn

from modelward.attacks.theft import ClipOutliers, EqualValues, GradientFill, LayerRidge, NearestSibling, ValueClusters
from modelward.attacks.theft.clip_outliers import ends
from modelward.attacks.theft.equal_values import repeated
from modelward.attacks.theft.filling import FILLS, Filling, fill_flagged, only
from modelward.attacks.theft.nearest_sibling import deviations
from modelward.attacks.theft.value_clusters import heaped
from modelward.core.errors import UsageError
from modelward.core.guard import state_digest
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.core.view import AttackerView
from modelward.data.study import Study
from modelward.locks import AdvParams
from modelward.marking.saliency import Saliency, bits_of, lockable
from modelward.marking.swaps import by_swap
from modelward.models import Net
from modelward.models.assembly import pack, unpack
from modelward.reproduce.advparams_look import found_by_chance
from modelward.training import accuracy

TRIES = 20
SWAP, EDGE = (AdvParams(share=0.02, images=48, landing=landing) for landing in ("swap", "edge"))
CLUSTERS, EQUALS = ValueClusters(), EqualValues(most=1.0)
finders = pytest.mark.parametrize("thief", [EQUALS, CLUSTERS], ids=lambda thief: thief.card.name)


def places(key: Key) -> dict[str, Tensor]:
    return {name: key.tensors[f"index/{number}"] for number, name in enumerate(key.facts["names"])}


def chance(thief: Filling, locked: nn.Module, key: Key) -> float:
    """Return the chance that whoever flags as many entries of each tensor blindly hits as many moved ones."""
    return found_by_chance(thief.flag(lockable(locked, statistics=True)), places(key))[1]


def tries(method: AdvParams, model: nn.Module, parts: Study) -> list[tuple[nn.Module, Key]]:
    """Return the locks of twenty secrets."""
    return [method.lock(model, parts.owner, secret=bytes([number]) * 32, rng=generator(number)) for number in range(TRIES)]


@pytest.fixture(scope="module")
def swapped(mlp_victim: Net, parts: Study) -> list[tuple[nn.Module, Key]]:
    return tries(SWAP, mlp_victim, parts)


@pytest.fixture(scope="module")
def edged(mlp_victim: Net, parts: Study) -> list[tuple[nn.Module, Key]]:
    return tries(EDGE, mlp_victim, parts)


@finders
def test_exchanged_entries_are_found_no_better_than_by_chance(thief: Filling, swapped: list[tuple[nn.Module, Key]]) -> None:
    assert sum(chance(thief, locked, key) > 0.05 for locked, key in swapped) >= 19


@finders
def test_entries_at_the_edge_are_found(thief: Filling, edged: list[tuple[nn.Module, Key]]) -> None:
    assert all(chance(thief, locked, key) < 1e-6 for locked, key in edged)


def test_entries_near_the_edge_are_found_by_their_heap_alone(edged: list[tuple[nn.Module, Key]]) -> None:
    for number, (locked, key) in enumerate(edged):
        blurred = copy.deepcopy(locked)
        for name, where in places(key).items():
            flat = lockable(blurred, statistics=True)[name].detach().view(-1)
            flat[where] *= 1 - 1e-2 * torch.rand(len(where), generator=generator(number))  # no two are equal now
        assert chance(EQUALS, blurred, key) > 1e-4  # but for rounding that makes two equal
        assert chance(CLUSTERS, blurred, key) < 1e-6


def test_natural_repeats_of_sixteen_bits_do_not_tell(mlp_victim: Net, parts: Study) -> None:
    coarse = copy.deepcopy(mlp_victim).bfloat16()
    found = [chance(EQUALS, *SWAP.lock(coarse, parts.owner, secret=bytes([number]) * 32, rng=generator(number))) for number in range(TRIES)]
    assert repeated(next(coarse.parameters())).float().mean() > 0.5
    assert sum(value > 0.05 for value in found) >= 19


def test_every_tensor_holds_the_values_it_held(swapped: list[tuple[nn.Module, Key]], mlp_victim: Net) -> None:
    before = lockable(mlp_victim, statistics=True)
    for locked, key in swapped:
        after = lockable(locked, statistics=True)
        assert key.facts["entries"] % 2 == 0
        for name, tensor in after.items():
            one, other = (each.detach().reshape(-1).sort().values for each in (before[name], tensor))
            assert torch.equal(bits_of(one), bits_of(other))
            assert ks_2samp(one.numpy(), other.numpy()).statistic == 0
        assert state_digest(SWAP.unlock(locked, key)) == state_digest(mlp_victim)


def test_the_edge_spends_the_same_budget_and_opens_too(edged: list[tuple[nn.Module, Key]], mlp_victim: Net) -> None:
    for locked, key in edged:
        assert state_digest(EDGE.unlock(locked, key)) == state_digest(mlp_victim)
    sizes = {method.landing: method.budget(mlp_victim) for method in (SWAP, EDGE)}
    assert sizes["swap"] == sizes["edge"] - sizes["edge"] % 2
    assert dataclasses.replace(SWAP, share=1e-9).budget(mlp_victim) == 2


def test_both_landings_lock(swapped: list[tuple[nn.Module, Key]], edged: list[tuple[nn.Module, Key]], parts: Study) -> None:
    for locked, _ in (*swapped[:5], *edged[:5]):
        assert accuracy(locked, parts.test) < 0.45


def test_other_landings_are_refused() -> None:
    with pytest.raises(UsageError, match="landing must be swap or edge, got 'middle'"):
        AdvParams(landing="middle")


def test_the_first_exchange_is_the_one_that_promises_most(mlp_victim: Net, parts: Study) -> None:
    net = copy.deepcopy(mlp_victim).requires_grad_()
    saliency = Saliency(net, parts.owner.batch(slice(64)), parts.owner.labels[:64])
    tensors = {name: tensor for name, tensor in net.named_parameters() if tensor.numel() <= 128}
    _, grads = saliency.gradients(0)
    best = -1.0
    for name, tensor in tensors.items():
        values, slopes = tensor.detach().reshape(-1).double(), grads[name].reshape(-1).double()
        best = max(best, float(((values[None] - values[:, None]) * (slopes[:, None] - slopes[None])).max()))
    before = {name: tensor.detach().clone().reshape(-1).double() for name, tensor in tensors.items()}
    moves = by_swap(tensors, saliency)
    one, other = next(moves), next(moves)
    j, k, values, slopes = one.place, other.place, before[one.name], grads[one.name].reshape(-1).double()
    assert one.name == other.name
    assert float((values[k] - values[j]) * (slopes[j] - slopes[k])) == pytest.approx(best)
    assert [float(tensors[one.name].detach().view(-1)[place]) for place in (j, k)] == [float(values[k]), float(values[j])]


def test_an_exchange_ends_where_nothing_is_left(mlp_victim: Net, parts: Study) -> None:
    net = copy.deepcopy(mlp_victim)
    saliency = Saliency(net, parts.owner.batch(slice(32)), parts.owner.labels[:32])
    name = min(dict(net.named_parameters()), key=lambda known: dict(net.named_parameters())[known].numel())
    tensor = dict(net.named_parameters())[name]
    barred = torch.zeros(tensor.numel(), dtype=torch.bool)
    barred[0] = True
    moves = list(by_swap({name: tensor}, saliency, barred={name: barred}))
    assert len(moves) <= tensor.numel() - 1
    assert len({move.place for move in moves}) == len(moves)
    assert 0 not in {move.place for move in moves}


@given(st.integers(0, 10_000), st.sampled_from(["normal", "uniform", "laplace"]))
@settings(max_examples=40, deadline=None)
def test_smooth_values_have_no_heaps(seed: int, kind: str) -> None:
    rng = generator(seed)
    values = torch.randn(2000, generator=rng) if kind == "normal" else torch.rand(2000, generator=rng)
    if kind == "laplace":
        values = values.log() * torch.where(torch.rand(2000, generator=rng) < 0.5, 1, -1)
    assert int(heaped(values, sizes=(3, 7, 15, 63), around=6, level=1e-4).sum()) == 0
    heap = torch.cat([values, values.max() * 0.8 + 1e-4 * torch.rand(20, generator=rng)])
    assert bool(heaped(heap, sizes=(3, 7, 15, 63), around=6, level=1e-4)[2000:].all())


@pytest.mark.parametrize("fill", FILLS)
def test_a_fill_touches_what_is_flagged_alone(fill: str) -> None:
    values = torch.randn(5, 8, generator=generator(0))
    before, flagged = values.clone(), torch.rand(40, generator=generator(1)) < 0.3
    fill_flagged({"w": values}, {"w": flagged}, fill)
    assert torch.equal(values.view(-1)[~flagged], before.view(-1)[~flagged])
    assert not bool((values.view(-1)[flagged] == before.view(-1)[flagged]).any())
    fill_flagged({"w": values}, {"w": torch.ones(40, dtype=torch.bool)}, fill)  # nothing ordinary is left to fill it with
    assert torch.equal(values.view(-1)[~flagged], before.view(-1)[~flagged])


def test_training_touches_the_flagged_entries_alone(edged: list[tuple[nn.Module, Key]], parts: Study) -> None:
    locked, key = edged[0]
    thief = EqualValues(epochs=3, images=64)
    theft = thief.steal(AttackerView.of_model(locked, parts.attacker), rng=generator(0))
    flags, after, before = (
        thief.flag(lockable(locked, statistics=True)),
        dict(theft.model.named_parameters()),
        dict(locked.named_parameters()),
    )
    for name, tensor in after.items():
        kept = ~flags[name] if name in flags else torch.ones(tensor.numel(), dtype=torch.bool)
        assert torch.equal(tensor.detach().view(-1)[kept], before[name].detach().view(-1)[kept])
    assert theft.log["flagged"] == sum(int(found.sum()) for found in flags.values()) >= key.facts["entries"] // 2
    net = copy.deepcopy(locked)
    with only(net, {}):
        net(parts.test.batch(slice(4))).sum().backward()
        assert all(not bool(parameter.grad.any()) for parameter in net.parameters() if parameter.grad is not None)


def test_equal_values_open_the_edge_and_not_the_exchange(
    swapped: list[tuple[nn.Module, Key]], edged: list[tuple[nn.Module, Key]], parts: Study
) -> None:
    reached = {
        name: [accuracy(EqualValues(images=60).steal(AttackerView.of_model(locked, parts.attacker), rng=generator(0)).model, parts.test)
               for locked, _ in found[:4]]
        for name, found in (("swap", swapped), ("edge", edged))
    }  # fmt: skip
    assert min(reached["edge"]) > 0.7
    assert max(reached["swap"]) < 0.45


def test_clipping_leaves_the_middle(mlp_victim: Net, parts: Study) -> None:
    theft = ClipOutliers(keep=0.9, epochs=0).steal(AttackerView.of_model(mlp_victim, parts.attacker), rng=generator(0))
    for name, tensor in theft.model.named_parameters():
        before = dict(mlp_victim.named_parameters())[name].detach()
        low, high = ends(before, 0.9) if before.ndim >= 2 else (before.min(), before.max())
        assert torch.equal(tensor.detach(), before.clamp(low, high))


def test_a_gradient_fills_what_does_harm(mlp_victim: Net, parts: Study) -> None:
    spoilt = copy.deepcopy(mlp_victim)
    with torch.no_grad():
        next(spoilt.parameters()).view(-1)[[5, 100, 700]] = 8.0
    view = AttackerView.of_model(spoilt, parts.attacker)
    theft = GradientFill(share=0.002, each=1, images=0).steal(view, rng=generator(0))
    low, high, got = (accuracy(model, parts.test) for model in (spoilt, mlp_victim, theft.model))
    assert got > low + 0.5 * (high - low)
    assert theft.log["loss_after"] < theft.log["loss_before"]


def test_random_features_do_not_look_at_the_victim(victim: Net, parts: Study) -> None:
    control = LayerRidge(cut=2, images=0, untrained=True)
    other = copy.deepcopy(victim)
    for parameter in other.parameters():
        parameter.data.zero_()
    made = [control.steal(AttackerView.of_model(net, parts.attacker), rng=generator(0)).model for net in (victim, other)]
    assert len({state_digest(model) for model in made}) == 1


@pytest.mark.parametrize("cut", [1, 2, 9])
def test_a_reader_of_features_is_stored_with_them(cut: int, victim: Net, parts: Study) -> None:
    theft = LayerRidge(cut=cut, images=0).steal(AttackerView.of_model(victim, parts.attacker), rng=generator(0)).model
    again = unpack(*pack(theft))
    x = parts.test.batch(slice(8))
    assert torch.allclose(theft(x), again(x), atol=1e-6)  # sums in another layout of the memory
    assert accuracy(theft, parts.test) > 0.5


def trained_alike(model: nn.Module) -> nn.Module:
    """Return a network that differs from ``model`` by a little everywhere."""
    sibling, rng = copy.deepcopy(model), generator(4)
    for parameter in sibling.parameters():
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=rng)
    return sibling


def test_a_sibling_tells_a_gross_change(mlp_victim: Net, parts: Study, untouched: Callable[[nn.Module], object]) -> None:
    spoilt = copy.deepcopy(mlp_victim)
    wanted = [3, 400, 1500]
    with torch.no_grad():
        next(spoilt.parameters()).view(-1)[wanted] = 8.0
    name = next(iter(dict(spoilt.named_parameters())))
    scores: Mapping[str, Tensor] = deviations(spoilt, trained_alike(mlp_victim))
    assert set(scores[name].topk(3).indices.tolist()) == set(wanted)
    with untouched(spoilt):  # type: ignore[attr-defined]
        theft = NearestSibling(share=0.002, epochs=2, sibling_epochs=2, images=64).steal(
            AttackerView.of_model(spoilt, parts.attacker), rng=generator(0)
        )
    assert accuracy(theft.model, parts.test) > accuracy(spoilt, parts.test)
