"""AdvParams: what it changes and by how much, on every kind of network; what parts of a key, wrong keys and users' keys are worth."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modelward.attacks.theft import FillOutliers, ReverseLock, UndoGradient
from modelward.core.errors import InputError, ModelwardError
from modelward.core.guard import state_digest
from modelward.core.key import Key
from modelward.core.locking import issued_to
from modelward.core.rng import generator
from modelward.core.view import AttackerView
from modelward.data.study import Study
from modelward.io.age import Secret
from modelward.keys import read_key, write_key
from modelward.locks import AdvParams
from modelward.marking.moves import by_worth
from modelward.marking.saliency import Saliency, band, bits_of, every_class, lockable, put_bits
from modelward.models import Net
from modelward.training import accuracy

SECRET, OTHER = b"0" * 32, b"1" * 32
HARDENED = AdvParams(share=0.02, images=64)
PAPER = AdvParams(variant="paper", layers=25, beta=0.1, per_layer=10, images=64, target=1e6, step=1.0)
both = pytest.mark.parametrize("method", [HARDENED, PAPER], ids=lambda method: method.variant)


class Tied(nn.Module):
    """A network whose second and third layer are one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third, self.last = nn.Linear(192, 16), nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        self.third.weight = self.second.weight

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.last(torch.relu(self.third(torch.relu(self.second(torch.relu(self.first(x.flatten(1))))))))


def positions(key: Key) -> set[tuple[str, int]]:
    return {(name, int(j)) for number, name in enumerate(key.facts["names"]) for j in key.tensors[f"index/{number}"]}


def drawn(model: nn.Module) -> nn.Module:
    """Fill a network with numbers that no global generator drew."""
    rng = generator(3)
    for parameter in model.parameters():
        parameter.data = 0.2 * torch.randn(parameter.shape, generator=rng)
    return model.eval()


def kinds(victim: Net, mlp: Net) -> dict[str, nn.Module]:
    """Return networks of every kind that a lock may meet."""
    return {
        "float32": victim, "float64": copy.deepcopy(victim).double(), "bfloat16": copy.deepcopy(victim).bfloat16(),
        "float16": copy.deepcopy(mlp).half(), "no batch normalisation": mlp, "tied": drawn(Tied()),
    }  # fmt: skip


@both
@pytest.mark.parametrize("kind", ["float32", "float64", "bfloat16", "float16", "no batch normalisation", "tied"])
def test_every_change_lies_in_the_band_is_in_the_key_and_comes_back_bit_for_bit(
    method: AdvParams, kind: str, victim: Net, mlp_victim: Net, parts: Study
) -> None:
    model = kinds(victim, mlp_victim)[kind]
    locked, key = method.lock(model, parts.owner, secret=SECRET, rng=generator(0))
    before, after = lockable(model, statistics=True), lockable(locked, statistics=True)
    changed = {(name, int(j)) for name in before for j in torch.nonzero(bits_of(before[name]).ne(bits_of(after[name])).any(1))}
    assert changed == positions(key)
    assert len(changed) == key.facts["entries"] > 0
    for name, place in changed:
        low, high = band(before[name], 0.0 if method.variant == "hardened" else method.inset)
        assert low <= float(after[name].detach().reshape(-1)[place]) <= high
    if method.variant == "hardened":
        assert len(changed) <= max(1, int(method.share * sum(tensor.numel() for tensor in model.parameters())))
    assert [t.dtype for t in locked.state_dict().values()] == [t.dtype for t in model.state_dict().values()]
    assert state_digest(method.unlock(locked, key)) == state_digest(model)


def test_what_no_lock_can_be_put_on_is_said_in_a_sentence(victim: Net, parts: Study) -> None:
    quantised = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    for name in ("weight", "bias"):
        value = getattr(quantised[1], name).detach().mul(10).to(torch.int8)
        delattr(quantised[1], name)
        quantised[1].register_buffer(name, value)
    with pytest.raises(InputError, match="no floating-point weights"):
        HARDENED.lock(quantised, parts.owner, rng=generator(0))
    with pytest.raises(InputError, match="fewer than there are classes, 3"):
        AdvParams(images=2).lock(victim, parts.owner, rng=generator(0))
    with pytest.raises(InputError, match="of class 'blue' there is none"):
        HARDENED.lock(victim, parts.owner.take(parts.owner.labels < 2), rng=generator(0))


def test_images_that_come_class_by_class_show_every_class(parts: Study) -> None:
    ordered = parts.owner.take(parts.owner.labels.argsort(stable=True))
    counts = ordered.labels[every_class(ordered, 31)].bincount()
    assert counts.sum() == 31
    assert counts.max() - counts.min() <= 1
    assert len(every_class(ordered, 10_000)) == len(ordered)


@given(st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]), st.floats(0, 0.49), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_a_band_is_rounded_inwards(dtype: torch.dtype, beta: float, seed: int) -> None:
    tensor = torch.randn(7, generator=generator(seed)).to(dtype)
    low, high = (float(end) for end in tensor.aminmax())
    ends = band(tensor, beta)
    cut = beta * (high - low)
    assert low + cut <= ends[0]
    assert ends[1] <= high - cut
    assert all(float(torch.tensor(end, dtype=dtype)) == end for end in ends)


def test_the_first_move_is_the_one_that_promises_most(mlp_victim: Net, parts: Study) -> None:
    net = copy.deepcopy(mlp_victim).requires_grad_()
    x, y = parts.owner.batch(slice(64)), parts.owner.labels[:64]
    wanted, best = ("", -1), -float("inf")
    torch.nn.functional.cross_entropy(net(x), y).backward()
    for name, tensor in net.named_parameters():
        low, high = band(tensor, 0.1 if tensor.ndim >= 2 else 0.0)
        for j, (value, slope) in enumerate(zip(tensor.detach().flatten().tolist(), tensor.grad.flatten().tolist(), strict=True)):
            worth = ((high if slope > 0 else low) - value) * slope
            if worth > best:
                wanted, best = (name, j), worth
    move = next(by_worth(dict(net.named_parameters()), Saliency(net, x, y), beta=0.1))
    assert (move.name, move.place) == wanted


def exact(saliency: Saliency) -> float:
    """Return the loss in double."""
    with torch.no_grad():
        return float(torch.nn.functional.cross_entropy(saliency.model(saliency.x), saliency.y))


def test_gradients_of_running_statistics_are_those_of_differences(victim: Net, parts: Study) -> None:
    net = copy.deepcopy(victim).double().eval()
    saliency = Saliency(net, parts.owner.batch(slice(32)), parts.owner.labels[:32], statistics=True)
    _, grads = saliency.gradients(0)
    state, step, seen = net.state_dict(), 1e-6, 0
    for name in (name for name in grads if name.endswith(("running_mean", "running_var"))):
        kept, losses = float(state[name][0]), []
        for shift in (-step, step):
            state[name][0] = kept + shift
            losses.append(exact(saliency))
        state[name][0] = kept
        assert (losses[1] - losses[0]) / (2 * step) == pytest.approx(float(grads[name].reshape(-1)[0]), rel=1e-3, abs=1e-7)
        seen += 1
    assert seen >= 4


def test_a_smaller_budget_makes_the_first_moves_of_a_larger_one(victim: Net, parts: Study) -> None:
    large = HARDENED.trail(victim, parts.owner, rng=generator(5))
    small = dataclasses.replace(HARDENED, share=0.008).trail(victim, parts.owner, rng=generator(5))
    assert small.moves == large.moves[: len(small.moves)]
    assert len(small.moves) < len(large.moves)


def test_chosen_places_do_the_work_not_the_size_of_the_moves(mlp_victim: Net, parts: Study) -> None:
    method = AdvParams(variant="paper", per_layer=4, images=64, target=1e6, step=1.0, beta=0.0)
    locked, key = method.lock(mlp_victim, parts.owner, rng=generator(0))
    ends, reached = lockable(locked, statistics=True), []
    for draw in range(5):
        moved, rng = copy.deepcopy(mlp_victim), generator(draw)
        for number, name in enumerate(key.facts["names"]):
            flat, places = lockable(moved, statistics=True)[name].detach().view(-1), key.tensors[f"index/{number}"]
            flat[torch.randperm(len(flat), generator=rng)[: len(places)]] += ends[name].detach().reshape(-1)[places] - flat[places]
        reached.append(accuracy(moved, parts.test))
    assert accuracy(locked, parts.test) < sum(reached) / 5 - 0.15


def test_builds_of_other_secrets_share_few_places_and_their_keys_open_nothing(victim: Net, parts: Study) -> None:
    (one, key), (two, other) = (HARDENED.lock(victim, parts.owner, secret=secret, rng=generator(0)) for secret in (SECRET, OTHER))
    assert len(positions(key) & positions(other)) < 0.5 * len(positions(key))
    with pytest.raises(InputError, match="another build"):
        HARDENED.unlock(one, other)
    forced = dataclasses.replace(other, model_digest=state_digest(one))
    with pytest.raises(InputError, match="lacks entries, or holds others"):
        HARDENED.unlock(one, forced)
    again = HARDENED.lock(victim, parts.owner, secret=SECRET, rng=generator(0))
    assert state_digest(again[0]) == state_digest(one) != state_digest(two)


def part_of(locked: nn.Module, key: Key, share: float) -> nn.Module:
    """Open a model with the first entries of its key alone, past every check."""
    opened, left = copy.deepcopy(locked), round(share * key.facts["entries"])
    state = opened.state_dict()
    for number, name in enumerate(key.facts["names"]):
        index, bits = key.tensors[f"index/{number}"][:left], key.tensors[f"bits/{number}"][:left]
        put_bits(state[name], index, bits)
        left -= len(index)
    return opened


@both
def test_half_a_key_opens_half_at_most(method: AdvParams, victim: Net, parts: Study) -> None:
    locked, key = method.lock(victim, parts.owner, secret=SECRET, rng=generator(0))
    none, half, whole = (accuracy(part_of(locked, key, share), parts.test) for share in (0.0, 0.5, 1.0))
    assert none == accuracy(locked, parts.test)
    assert whole == accuracy(victim, parts.test)
    assert half < (whole + max(none, 1 / 3)) / 2 + 0.1
    number = max(range(len(key.facts["names"])), key=lambda n: len(key.tensors[f"index/{n}"]))
    index, bits = f"index/{number}", f"bits/{number}"
    missing = {index: key.tensors[index][1:], bits: key.tensors[bits][1:]}
    shuffled = {bits: key.tensors[bits].roll(1, 0)}
    for wrong in (missing, shuffled):
        with pytest.raises(InputError, match="lacks entries, or holds others"):
            method.unlock(locked, dataclasses.replace(key, tensors={**key.tensors, **wrong}))


def test_users_keys_open_the_one_build_and_name_their_user(victim: Net, parts: Study, tmp_path: Path) -> None:
    locked, key = HARDENED.lock(victim, parts.owner, secret=SECRET, rng=generator(0))
    keys = {user: HARDENED.issue(locked, key, user, secret=user.encode() * 16, rng=generator(0)) for user in ("ann", "bob")}
    holders = {user: pyrage.x25519.Identity.generate() for user in keys}
    for user, issued in keys.items():
        write_key(tmp_path / f"{user}.mw", issued, recipients=[str(holders[user].to_public())])
        read = read_key(tmp_path / f"{user}.mw", passphrase=Secret(str(holders[user])))
        assert issued_to(read, user.encode() * 16) == user
        assert state_digest(HARDENED.unlock(locked, read)) == state_digest(victim)
        assert user.encode() not in (tmp_path / f"{user}.mw").read_bytes()
    with pytest.raises(ModelwardError, match="cannot be opened"):
        read_key(tmp_path / "ann.mw", passphrase=Secret(str(holders["bob"])))
    with pytest.raises(InputError, match="its tag does not fit"):
        issued_to(keys["ann"], b"bob" * 16)


def tampered(key: Key) -> dict[str, Key]:
    """Return a user's key with one thing changed."""
    name = next(name for name in key.tensors if name.startswith("bits/"))
    bits = key.tensors[name].clone()
    bits[0, 0] ^= 1
    return {
        "name": dataclasses.replace(key, facts={**key.facts, "user": "bob"}),
        "entry": dataclasses.replace(key, tensors={**key.tensors, name: bits}),
        "tag": dataclasses.replace(key, tensors={**key.tensors, "tag": key.tensors["tag"] ^ 1}),
        "build": dataclasses.replace(key, model_digest="f" * 64),
        "fact": dataclasses.replace(key, facts={**key.facts, "entries": 1}),
    }


@pytest.mark.parametrize("what", ["name", "entry", "tag", "build", "fact"])
def test_a_users_key_that_was_changed_names_nobody(what: str, victim: Net, parts: Study) -> None:
    locked, key = PAPER.lock(victim, parts.owner, secret=SECRET, rng=generator(0))
    issued = PAPER.issue(locked, key, "ann", secret=b"ann" * 16, rng=generator(0))
    assert issued_to(issued, b"ann" * 16) == "ann"
    with pytest.raises(InputError, match="its tag does not fit"):
        issued_to(tampered(issued)[what], b"ann" * 16)
    with pytest.raises(InputError, match="issued to 'ann'"):
        PAPER.issue(locked, issued, "bob", secret=b"bob" * 16, rng=generator(0))


@pytest.fixture(scope="module")
def pinched(mlp_victim: Net, parts: Study) -> tuple[nn.Module, Key]:
    """Return a network that the four most telling weights were moved in."""
    method = AdvParams(variant="paper", per_layer=2, layers=2, images=128, target=1e6, step=1.0, beta=0.0)
    return method.lock(mlp_victim, parts.owner, rng=generator(1))


@pytest.mark.parametrize(
    ("theft", "gain"), [(UndoGradient(steps=12), 0.6), (ReverseLock(share=0.01), 0.3), (FillOutliers(shares=(0.001, 0.002, 0.005)), 0.1)],
    ids=["undo-gradient", "reverse-lock", "fill-outliers"],
)  # fmt: skip
def test_a_few_moved_weights_are_undone(
    theft: Any, gain: float, pinched: tuple[nn.Module, Key], mlp_victim: Net, parts: Study, untouched: Callable[..., Any]
) -> None:
    locked, _ = pinched
    with untouched(locked):
        found = theft.steal(AttackerView.of_model(locked, parts.attacker), rng=generator(0))
    low, high, got = (accuracy(model, parts.test) for model in (locked, mlp_victim, found.model))
    assert low < high - 0.2
    assert got - low > gain * (high - low)
    assert found.log["loss_after"] < found.log["loss_before"]


def test_an_open_network_is_not_made_worse_by_looking_for_a_lock(mlp_victim: Net, parts: Study) -> None:
    for theft in (UndoGradient(steps=3, points=5), ReverseLock(share=0.002), FillOutliers(shares=(0.01,))):
        found = theft.steal(AttackerView.of_model(mlp_victim, parts.attacker), rng=generator(0))
        assert found.log["loss_after"] <= found.log["loss_before"]
        assert accuracy(found.model, parts.test) > accuracy(mlp_victim, parts.test) - 0.1


def test_stealth_is_the_chance_to_tell_an_entry_from_another(victim: Net, parts: Study) -> None:
    locked, key = PAPER.lock(victim, parts.owner, rng=generator(0))
    told = PAPER.stealth(victim, locked, key, parts.test)["auc"]
    assert 0.5 < told <= 1
    assert PAPER.stealth(victim, victim, key, parts.test)["auc"] < told
