"""Uchida, DeepMarks and passports: bits that are found again, bits that are not there, codes that name users, keys that only fit."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelward.attacks.theft import PermuteNeurons, RescaleNeurons
from modelward.attacks.theft.collude import WAYS, collude
from modelward.attacks.theft.overwrite import Overwrite
from modelward.core.errors import FormatError, InputError, UsageError
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.ownership import Observation
from modelward.core.rng import generator
from modelward.core.suspect import Access
from modelward.core.view import AttackerView
from modelward.data.study import Study
from modelward.marking.alignment import aligned
from modelward.marking.codebooks import codebook, colluders, plane
from modelward.marking.passports import conv_of, find_gates, norm_of, patch_means, scales
from modelward.marking.weights import KINDS, BitPenalty, bits_of, filter_mean, find_layer, message_bits, projection, text_of
from modelward.models import Net, build
from modelward.models.assembly import pack, unpack
from modelward.models.parts import weight_layers
from modelward.ownership import DeepMarks, Passport, Uchida
from modelward.ownership.passport_forging import reversed_scales, solved_passport
from modelward.training import Recipe

SECRET, OTHER = b"0" * 32, b"5" * 32
SMALL = Uchida(bits=24, lam=0.5, epochs=6, batch=32)
DEEP = DeepMarks(users=31, epochs=6, batch=32)


@pytest.fixture(scope="module")
def marked(victim: Net, parts: Study) -> tuple[nn.Module, object]:
    return SMALL.protect(victim, parts.owner, secret=SECRET, rng=generator(0))


@pytest.fixture(scope="module")
def copies(victim: Net, parts: Study) -> tuple[list[nn.Module], object]:
    made = [dataclasses.replace(DEEP, number=n).protect(victim, parts.owner, secret=b"4" * 32, rng=generator(0)) for n in range(6)]
    return [model for model, _ in made], made[0][1]


def view(model: nn.Module, images: ImageSet) -> AttackerView:
    return AttackerView.of_model(model, images, labels="none")


# weights


@given(st.text(max_size=12))
def test_a_text_survives_its_bits(text: str) -> None:
    assert text_of(bits_of(text)) == text


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(UsageError, match="24 bits, 16 are embedded"):
        message_bits("abc", 16, SECRET)
    with pytest.raises(UsageError, match="text must be"):
        Uchida(bits=16, text="abc")


@given(st.sampled_from(KINDS), st.integers(1, 12), st.integers(24, 60))
def test_projections_come_from_the_secret_alone(kind: str, bits: int, width: int) -> None:
    x = projection(SECRET, bits, width, kind)
    assert x.shape == (bits, width)
    assert torch.equal(x, projection(SECRET, bits, width, kind))
    assert not torch.equal(x, projection(b"1" * 32, bits, width, kind))
    assert torch.linalg.matrix_rank(x) == bits
    if kind == "direct":
        assert torch.equal(x @ x.T, torch.eye(bits))
    if kind == "diff":
        assert x.sum(1).tolist() == [0] * bits


def test_the_same_secret_gives_the_same_projection_in_another_process() -> None:
    code = "from modelward.marking.weights import projection; print(projection(b'0' * 32, 4, 20).double().sum().item())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) == projection(SECRET, 4, 20).double().sum().item()


def test_a_message_needs_filters_of_twice_its_length() -> None:
    net = build("lenet5", classes=10, rng=generator(0))
    assert find_layer(net, bits=75)[0] == "body.3"
    assert find_layer(net, bits=76)[0] == "body.7"  # a linear layer of 400 weights a filter
    with pytest.raises(InputError, match="embed 75 bits or take another layer"):
        find_layer(net, "body.3", bits=76)
    with pytest.raises(InputError, match=r"no linear or convolutional layer 'body\.99'"):
        find_layer(net, "body.99", bits=4)


def test_a_network_without_a_head_is_told_what_a_mark_needs() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match="a head that is linear") as told:
        find_layer(net, bits=8)
    assert "its layers are AdaptiveAvgPool2d, Conv2d, Flatten, ReLU; name one of its hidden layers yourself, as in layer=0" in str(
        told.value
    )
    assert "retraining" not in str(told.value)
    assert find_layer(net, "0", bits=8)[0] == "0"


def test_a_layer_whose_weights_serve_twice_is_refused() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)
            self.b.weight = self.a.weight

    with pytest.raises(InputError, match="serve in two places"):
        find_layer(Tied(), "a", bits=4)


def test_the_gradient_of_the_penalty_is_that_of_the_formula() -> None:
    net = build("mlp:width=8", classes=3, channels=1, size=(4, 4), rng=generator(0)).double()
    mark = BitPenalty("body.1", projection(SECRET, 5, 16), message_bits("", 5, SECRET), 0.3)
    mark(net).backward()
    w = net.body[1].weight.detach().float().mean(0)
    slope = 0.3 * mark.matrix.T @ (torch.sigmoid(mark.matrix @ w) - mark.bits.float()) / 8
    assert torch.allclose(net.body[1].weight.grad.float(), slope.expand(8, -1), atol=1e-6)


# alignment


@pytest.mark.parametrize("arch", ["lenet5:width=3", "cnn:width=4", "resnet8:width=4"])
def test_renamed_and_rescaled_neurons_come_back(arch: str) -> None:
    net = build(arch, classes=3, channels=3, size=(12, 12), rng=generator(1))
    images = ImageSet(
        torch.randint(0, 256, (8, 3, 12, 12), generator=generator(2), dtype=torch.uint8), torch.zeros(8, dtype=torch.int64), ("a",), "x"
    )
    thief = RescaleNeurons().steal(view(PermuteNeurons().steal(view(net, images), rng=generator(3)).model, images), rng=generator(4)).model
    back = aligned(thief, dict(net.named_parameters()))
    assert torch.allclose(predict(back, images.pixels), predict(thief, images.pixels), atol=1e-4)
    for (_, was), (name, now), (_, then) in zip(weight_layers(thief), weight_layers(back), weight_layers(net), strict=True):
        assert torch.allclose(now.weight, then.weight, atol=2e-3), name
        assert name.endswith(".0") or not torch.allclose(was.weight, then.weight, atol=2e-3)
    assert state_digest(aligned(net, dict(net.named_parameters()))) == state_digest(net)


def test_a_network_of_other_shapes_comes_back_as_it_is(victim: Net, mlp_victim: Net) -> None:
    assert state_digest(aligned(mlp_victim, dict(victim.named_parameters()))) == state_digest(mlp_victim)


# uchida


def test_bits_are_found_in_the_marked_model_alone(marked: tuple[nn.Module, object], victim: Net, parts: Study) -> None:
    model, key = marked
    assert SMALL.verify(model, key).statistic == 0
    assert SMALL.verify(victim, key).statistic > 0.2
    spent = dataclasses.replace(SMALL, lam=0.0)
    model, key = spent.protect(victim, parts.owner, secret=SECRET, rng=generator(0))
    assert spent.verify(model, key).statistic > 0.2  # the control: what is not embedded is not found


def test_other_projections_find_nothing(marked: tuple[nn.Module, object], victim: Net, parts: Study) -> None:
    rates = []
    for number in range(30):
        key = SMALL.claim(victim, parts.owner, secret=bytes([number]) * 32, rng=generator(0))
        method = dataclasses.replace(SMALL, variant="paper")
        settings_ = {**key.facts, "settings": method.settings()}
        rates.append(method.verify(marked[0], dataclasses.replace(key, facts=settings_)).statistic)
    assert sum(rates) / 30 == pytest.approx(0.5, abs=4 * 0.5 / (30 * 24) ** 0.5)


def test_inverted_bits_count_in_the_hardened_variant(marked: tuple[nn.Module, object]) -> None:
    model, key = copy.deepcopy(marked[0]), marked[1]
    layer = dict(weight_layers(model))[key.facts["layer"]]
    with torch.no_grad():
        layer.weight.sub_(2 * layer.weight.mean(0, keepdim=True))
    observed = Observation(Access.WEIGHTS, {"mean": filter_mean(model, key.facts["layer"]).detach()})  # as it stands, in no order
    assert SMALL._finding(observed, key).statistic == 0
    paper = dataclasses.replace(SMALL, variant="paper")
    brought = {**key.tensors, "matrix": SMALL._matrix(key.tensors, key.facts["width"])}
    assert paper._finding(observed, dataclasses.replace(key, tensors=brought)).statistic == 1


def test_a_text_is_read_back(victim: Net, parts: Study) -> None:
    method = dataclasses.replace(SMALL, text="me!")
    model, key = method.protect(victim, parts.owner, secret=SECRET, rng=generator(0))
    assert method.message(model, key).startswith("me!")
    assert not method.message(victim, key).startswith("me!")


def test_a_matrix_is_solved_for_and_only_the_papers_variant_takes_it(victim: Net, parts: Study) -> None:
    paper = dataclasses.replace(SMALL, variant="paper")
    forged = paper.forge(victim, parts.owner, secret=b"7" * 32, rng=generator(0))
    assert paper.verify(victim, forged).statistic == 0
    hard = dataclasses.replace(forged, facts={**forged.facts, "settings": SMALL.settings()})
    with pytest.raises(InputError, match="a matrix of its own"):
        SMALL.verify(victim, hard)
    guessed = SMALL.verify(victim, SMALL.forge(victim, parts.owner, secret=b"7" * 32, rng=generator(0))).statistic
    assert 0 < guessed < SMALL.verify(victim, SMALL.claim(victim, parts.owner, secret=b"7" * 32, rng=generator(0))).statistic


def test_suspects_and_keys_that_do_not_fit_are_refused(marked: tuple[nn.Module, object], mlp_victim: Net, parts: Study) -> None:
    key = marked[1]
    with pytest.raises(InputError, match="no linear or convolutional layer"):
        SMALL.verify(mlp_victim, key)
    for damage in ({"seed": torch.zeros(3)}, {"bits": torch.full((24,), 7, dtype=torch.uint8)}, {"bits": torch.ones(4, dtype=torch.uint8)}):
        with pytest.raises(FormatError):
            SMALL.verify(marked[0], dataclasses.replace(key, tensors={**key.tensors, **damage}))
    with pytest.raises(InputError, match="embed 36 bits"):
        Uchida(bits=64).protect(build("cnn:width=4", classes=3, channels=3, size=(8, 8), rng=generator(0)), parts.owner, rng=generator(0))


# deepmarks


@pytest.mark.parametrize("order", [2, 3, 5, 7, 11])
def test_planes_are_designs(order: int) -> None:
    blocks = plane(order).int()
    length = order**2 + order + 1
    common = blocks @ blocks.T
    assert blocks.shape == (length, length)
    assert torch.equal(common, torch.ones(length, length, dtype=torch.int32) + order * torch.eye(length, dtype=torch.int32))


@pytest.mark.parametrize("length", [7, 13, 21, 31])
def test_ands_of_up_to_three_codewords_are_distinct(length: int) -> None:
    code = codebook(length)
    size = int((code[0] == 0).sum())
    weights = 2 ** torch.arange(length)
    seen: set[int] = set()
    for count in range(1, min(3, size - 1) + 1):
        for group in itertools.combinations(range(length), count):
            word = int((code[list(group)].prod(0).long() * weights).sum())
            assert word not in seen
            seen.add(word)


@settings(max_examples=60)
@given(st.sampled_from([31, 57, 100]), st.integers(1, 5), st.integers(0, 10**6))
def test_means_of_codewords_name_their_users(users: int, count: int, seed: int) -> None:
    code = codebook(users)[:users]
    group = torch.randperm(users, generator=generator(seed))[:count]
    assert colluders(0.3 * (2.0 * code[group] - 1).mean(0), code) == sorted(group.tolist())


def test_levels_of_no_copy_name_nobody() -> None:
    code, rng = codebook(31), generator(0)
    assert not any(colluders(torch.randn(31, generator=rng), code) for _ in range(500))


def test_copies_and_colluders_are_named(copies: tuple[list[nn.Module], object], victim: Net) -> None:
    models, key = copies
    assert [DEEP.trace(model, key).users for model in models] == [(number,) for number in range(6)]
    assert DEEP.trace(victim, key).users == ()
    for way, group in itertools.product(("average", "median"), ((0, 3), (1, 2, 5))):
        mixed = collude([models[user] for user in group], way, rng=generator(0))
        assert DEEP.trace(mixed, key).users == group
    for way in WAYS:  # whatever they do, no innocent of the six is named alone
        named = DEEP.trace(collude(models[:2], way, rng=generator(1)), key).users
        assert not named or set(named) & {0, 1}


def test_the_key_of_one_user_does_not_fit_the_copy_of_another(copies: tuple[list[nn.Module], object]) -> None:
    models, key = copies
    assert DEEP.verify(models[0], key).matches
    assert not DEEP.verify(models[1], key).matches


def test_copies_that_do_not_fit_each_other_cannot_collude(victim: Net, mlp_victim: Net) -> None:
    for group in ([victim], [victim, mlp_victim]):
        with pytest.raises(InputError, match="two or more copies"):
            collude(group, rng=generator(0))
    with pytest.raises(UsageError, match="not by 'sum'"):
        collude([victim, victim], "sum", rng=generator(0))


# passports


@pytest.fixture(scope="module")
def gated(victim: Net, parts: Study) -> Callable[[int], tuple[Passport, nn.Module, object]]:
    made = {}

    def get(scheme: int) -> tuple[Passport, nn.Module, object]:
        if scheme not in made:
            method = Passport(scheme=scheme, epochs=10 if scheme == 3 else 6, batch=32, checks=100, triggers=30)
            made[scheme] = (method, *method.protect(victim, parts.owner, secret=OTHER, rng=generator(0)))
        return made[scheme]

    return get


def right(model: nn.Module, images: ImageSet) -> float:
    return float((predict(model, images.pixels).argmax(1) == images.labels).double().mean())


@pytest.mark.parametrize("scheme", [1, 2, 3])
def test_passports_work_and_others_do_not(
    scheme: int, gated: Callable[[int], tuple[Passport, nn.Module, object]], victim: Net, parts: Study
) -> None:
    method, model, key = gated(scheme)
    verdict = method.verify(model, key)
    assert verdict.statistic < 0.1
    assert method.verify(victim, key).statistic > 0.3
    assert right(method.unlock(model, key), parts.test) > right(victim, parts.test) - 0.1
    assert all(bool((norm_of(model, gate).weight == 1).all()) for gate in find_gates(model, 2)) == (scheme == 1)
    assert (right(model, parts.test) < right(method.unlock(model, key), parts.test)) or scheme > 1
    claimed = [method.claim(model, parts.owner, secret=bytes([n]) * 32, rng=generator(n)) for n in range(4)]
    assert sum(right(method.unlock(model, other), parts.test) for other in claimed) / 4 < 0.6  # three classes
    assert set(model.state_dict()) == set(victim.state_dict())  # nothing of the passports is shipped
    again = unpack(*pack(model))
    assert torch.equal(predict(again, parts.test.pixels), predict(model, parts.test.pixels))
    if scheme == 3:
        hits, count, p = method.remote(model, key)
        assert hits > 0.6 * count
        assert p < 1e-3
        assert method.remote(victim, key)[2] > 0.05


def test_passports_are_solved_for_exactly_and_only_the_papers_variant_takes_them(victim: Net, parts: Study) -> None:
    paper = Passport(variant="paper", kind="random", checks=100)
    forged = paper.forge(victim, parts.attacker, secret=b"9" * 32, rng=generator(0))
    assert paper.verify(victim, forged).statistic < 0.05
    hard = Passport(checks=100)
    with pytest.raises(InputError, match="passports of its own"):
        hard.verify(victim, dataclasses.replace(forged, facts={**forged.facts, "settings": hard.settings()}))
    gate = find_gates(victim, 1)[0]
    conv, wanted = conv_of(victim, gate), torch.linspace(-2, 2, conv_of(victim, gate).out_channels)
    far = 100 * torch.randn(conv.in_channels, 4, 4, generator=generator(0))
    for away in (None, far):
        found = solved_passport(conv, wanted, (conv.in_channels, 4, 4), away=away)
        assert torch.allclose(scales(victim, gate, patch_means(conv, found)), wanted, atol=1e-3)
    assert (found - far).norm() < far.norm()


def test_reversing_signs_trains_the_gates_alone(
    victim: Net, parts: Study, changed_names: Callable[[nn.Module, nn.Module], set[str]]
) -> None:
    gates = find_gates(victim, 2)
    bits = torch.randint(0, 2, (24,), generator=generator(0))
    made = reversed_scales(victim, gates, bits, parts.attacker, Recipe(epochs=2, batch=32, lr=0.02), rng=generator(0))
    assert {name for name in changed_names(victim, made) if name.endswith((".weight", ".bias"))} == {
        f"{gate.norm}.{part}" for gate in gates for part in ("weight", "bias")
    }
    signs = torch.cat([norm_of(made, gate).weight.detach() > 0 for gate in gates])
    assert float((signs == bits.bool()).double().mean()) > 0.9


@pytest.fixture
def changed_names() -> Callable[[nn.Module, nn.Module], set[str]]:
    def names(model: nn.Module, other: nn.Module) -> set[str]:
        after = other.state_dict()
        return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, after[name])}

    return names


def test_what_cannot_carry_passports_says_so(
    mlp_victim: Net, parts: Study, gated: Callable[[int], tuple[Passport, nn.Module, object]]
) -> None:
    with pytest.raises(InputError, match="batch normalisation behind each"):
        Passport().protect(mlp_victim, parts.owner, rng=generator(0))
    method, _, key = gated(2)
    with pytest.raises(InputError, match="has no convolution"):
        method.verify(mlp_victim, key)
    with pytest.raises(UsageError, match="kinds that this variant has"):
        Passport(kind="shuffle")


# overwriting


def test_a_second_mark_is_embedded_by_half_of_the_epochs(victim: Net, parts: Study) -> None:
    attacker = AttackerView.of_model(victim, parts.attacker.take(slice(64)), labels="stolen")
    theft = Overwrite(fields={"bits": 16, "batch": 32}).steal(attacker, rng=generator(0))
    assert theft.log == {"epochs": 4, "method": "uchida"}
    assert Overwrite(method="deepmarks").effort == 1
    with pytest.raises(UsageError, match="sac embeds no mark"):
        Overwrite(method="sac").steal(attacker, rng=generator(0))
