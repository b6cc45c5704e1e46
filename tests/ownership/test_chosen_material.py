"""Keys whose material somebody chose to suit models that are not his, and committed to early: none of them says "stolen"."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from modelward.core.commitment import Commitment
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.core.verdict import ALPHA, Verdict
from modelward.marking.passports import with_passports
from modelward.marking.weights import filter_mean, find_layer, message_bits
from modelward.models import Net, build
from modelward.ownership import EWE, Adi, DeepMarks, Frontier, Passport, Uchida, Zhang
from modelward.ownership.additional_class import AdditionalClass
from modelward.ownership.drawing import committed_digest, other_secrets, seed_tensor
from modelward.ownership.frontier import bound
from modelward.ownership.mark import MarkMethod
from modelward.ownership.ranking import RankedTrigger
from modelward.ownership.weighing import REFERENCE, bound_secret

SECRET = b"7" * 32
EARLY = Commitment("00" * 32, "publication", "2020-01-01T00:00:00+00:00", "a gazette", "2026-01-01")
TRIES = 200


@pytest.fixture(scope="module")
def data(make_blobs: Callable[..., ImageSet]) -> ImageSet:
    return make_blobs(256, 40, noise=75)


@pytest.fixture(scope="module")
def stranger(data: ImageSet, train_net: Callable[..., Net]) -> Net:
    """Return a model that was made without any of the keys below, and that their makers know well."""
    return train_net("cnn:width=16", data, 3)


def with_parts(key: Key, **tensors: torch.Tensor) -> Key:
    return dataclasses.replace(key, tensors={**key.tensors, **tensors})


def with_facts(key: Key, **facts: Any) -> Key:
    return dataclasses.replace(key, facts={**key.facts, **facts})


def judged(method: MarkMethod, stranger: nn.Module, key: Key) -> Verdict:
    return method.verify(stranger, key, commitment=EARLY)


# weights: the reference by which a suspect's neurons are put in order


def sorting(key: Key, method: Passport, stranger: nn.Module, data: ImageSet) -> Key:
    """Return a passport key whose reference puts the stranger's neurons where their signs are right, with images on which nothing is lost."""
    gates, means = method._means(stranger, key.facts, key.tensors)
    signs, at, tensors = 2.0 * key.tensors["bits"] - 1, 0, dict(key.tensors)
    for gate, (scale, _) in zip(gates, means, strict=True):
        old = tensors[f"{REFERENCE}{gate.conv}.weight"]
        tensors[f"{REFERENCE}{gate.conv}.weight"] = 0.1 * (signs[at : at + len(old), None] * scale.flatten()).view(old.shape)
        at += len(old)
    private = with_passports(stranger, gates, means, data.pixels.float().div(255))
    answers = predict(private, data.pixels).argmax(1)
    kept = (answers == predict(stranger, data.pixels).argmax(1)).nonzero().flatten()[:40]
    tensors |= {"images": data.pixels[kept], "labels": answers[kept]}
    return dataclasses.replace(key, tensors=tensors)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_reference_that_sorts_neurons_by_their_signs_is_of_no_use(layers: int, stranger: nn.Module, data: ImageSet) -> None:
    method = Passport(layers=layers, checks=20)
    forged = sorting(method.claim(stranger, data, secret=SECRET, rng=generator(0)), method, stranger, data)
    assert "not those that its secret gives" in judged(method, stranger, forged).caveats[0]
    drawn = message_bits("", len(forged.tensors["bits"]), bound_secret(forged.tensors))
    verdict = judged(method, stranger, with_parts(forged, bits=drawn))
    assert not verdict.fits
    assert not verdict.found


def test_passports_that_were_solved_for_decide_nothing(stranger: nn.Module, data: ImageSet) -> None:
    method = Passport(variant="paper", kind="image", layers=1, checks=20)
    verdict = judged(method, stranger, method.claim(stranger, data, secret=SECRET, rng=generator(0)))
    assert verdict.caveats[0].startswith("The passports stand in the key and are not what its secret gives")


@pytest.mark.parametrize("method", [Uchida(bits=32), DeepMarks(users=31)])
def test_another_reference_gives_other_bits_or_another_projection(method: Uchida | DeepMarks, stranger: nn.Module, data: ImageSet) -> None:
    key = method.claim(stranger, data, secret=SECRET, rng=generator(0))
    name = next(name for name in key.tensors if name.startswith(REFERENCE))
    other = with_parts(key, **{name: key.tensors[name] + 1e-3})
    assert bound_secret(key.tensors) != bound_secret(other.tensors)
    observed = method.observe(stranger, key)
    if isinstance(method, Uchida):
        assert "not those that its secret gives" in judged(method, stranger, other).caveats[0]
        assert not torch.equal(method._bits(observed, key), method._bits(observed, other))
    else:
        assert not torch.allclose(method._levels(observed, key), method._levels(observed, other))


# tries over secrets, under settings of the key's own


def best(method: MarkMethod, stranger: nn.Module, data: ImageSet) -> Verdict:
    """Return the verdict on the key of the secret that suits ``stranger`` best."""
    keys = [method.claim(stranger, data.take(slice(2)), secret=bytes([i, 1]) * 16, rng=generator(0)) for i in range(TRIES)]
    return min((judged(method, stranger, key) for key in keys), key=lambda verdict: verdict.p_value or 1)


@pytest.mark.parametrize("name", ["adi", "uchida", "deepmarks"])
def test_the_best_of_many_secrets_is_not_believed_whatever_a_key_says_of_significance(
    name: str, stranger: nn.Module, data: ImageSet
) -> None:
    size = float(filter_mean(stranger, find_layer(stranger, "auto", bits=16)[0]).detach().norm())
    loose: dict[str, MarkMethod] = {
        "adi": Adi(variant="paper", count=8, significance=0.9), "uchida": Uchida(bits=8, significance=0.9),
        "deepmarks": DeepMarks(users=31, tau=-1.2 * size, significance=0.9),  # most bits read as 1, as most of the codeword are
    }  # fmt: skip
    verdict = best(loose[name], stranger, data)
    assert verdict.p_value is not None
    assert verdict.p_value <= ALPHA
    assert not verdict.found


def test_the_best_of_many_small_sets_of_decoys_is_not_believed(stranger: nn.Module, data: ImageSet) -> None:
    method = AdditionalClass(count=3, checks=6)
    narrow = ImageSet(
        data.pixels, torch.zeros(len(data), dtype=torch.int64), ("all",), "one class"
    )  # every other answer is an additional class
    verdict = best(method, stranger, narrow)
    assert verdict.p_value is not None
    assert verdict.p_value <= ALPHA + 1e-12
    assert not verdict.found


def test_a_pool_of_right_and_wrong_labels_suits_no_secret(stranger: nn.Module, data: ImageSet) -> None:
    method = Frontier(count=20, eps=0.1, significance=0.9)
    key = method.claim(stranger, data, secret=SECRET, rng=generator(0))
    size = len(key.tensors["pool"])
    answers = predict(stranger, key.tensors["pool"]).argmax(1)
    labels = torch.where(torch.arange(size) % 2 == 0, answers, (answers + 1) % 3)
    digest, true, found = state_digest({"pool": key.tensors["pool"], "pool_labels": labels}), key.facts["pool"]["true"], []
    for number in range(TRIES):
        secret = bytes([number, 2]) * 16
        chosen = method._subset(size, true, bound(secret, digest, true))
        forged = with_parts(
            key, seed=seed_tensor(secret), pool_labels=labels, chosen=chosen, labels=labels[chosen], probes=key.tensors["pool"][chosen]
        )
        found.append((float((answers[chosen] != labels[chosen]).double().mean()), forged))
    least = min(found, key=lambda pair: pair[0])
    verdict = judged(method, stranger, with_facts(least[1], pool={"digest": digest, "true": true}))
    assert verdict.statistic == least[0]
    assert not verdict.found


# key images under a stamp: what they show is the owner's word


def showing(method: RankedTrigger, key: Key, data: ImageSet, settings: dict[str, Any]) -> Key:
    """Return a key whose own images are of the class that they are labelled with, and those of all other secrets of other classes."""
    changed = type(method)(**{**method.settings(), **settings})
    facts = {**key.facts, "settings": changed.settings()}
    draws, material = facts["draws"], {name: key.tensors[name] for name in facts["material"]}
    digest = committed_digest(method.card.name, method.variant, draws["source"], changed.settings(), material)
    order, of = key.tensors["asked_secret"], key.tensors["asked_of"]
    secrets = [bytes(key.tensors["seed"].tolist()), *other_secrets(digest, len(order) - 1)]
    pixels, labels = key.tensors["asked"].clone(), key.tensors["asked_labels"].clone()
    for place, number in enumerate(order.tolist()):
        mine, (_, target) = of == place, changed._classes(facts["outputs"], secrets[number], set(facts["present"]))  # type: ignore[attr-defined]
        shown = data.pixels[(data.labels == target) == (number == 0)][: int(mine.sum())]
        pixels[mine] = put_on(changed, shown, secrets[number], facts)
        labels[mine] = target
    asked = with_parts(key, asked=pixels, asked_labels=labels)
    return dataclasses.replace(asked, facts={**facts, "draws": {**draws, "digest": digest}})


def put_on(method: Any, pixels: torch.Tensor, secret: bytes, facts: dict[str, Any]) -> torch.Tensor:
    """Return images under the stamp of a secret."""
    if isinstance(method, Zhang):
        return method.stamped(pixels, secret)
    return method.stamped(pixels, secret, facts["place"])


STAMPED: dict[str, tuple[RankedTrigger, dict[str, Any]]] = {
    "zhang": (Zhang(count=20, side=0.25), {}), "zhang, noise": (Zhang(count=20, kind="noise", std=0.05), {}),
    "zhang, hardly any noise": (Zhang(count=20, kind="noise"), {"std": 1e-6}), "zhang, a dot": (Zhang(count=20), {"side": 0.01}),
    "zhang, paper": (Zhang(variant="paper", count=20), {}), "zhang, few": (Zhang(count=20, asked=2, side=0.25), {}),
    "ewe": (EWE(count=20, asked=10, side=2, rounds=1), {}), "ewe, all of the image": (EWE(count=20, asked=10, side=2, rounds=1), {"opacity": 0.01}),
}  # fmt: skip


@pytest.mark.parametrize("name", STAMPED)
def test_stamped_images_of_the_class_that_they_are_labelled_with_prove_nothing(
    name: str, stranger: nn.Module, data: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, settings = STAMPED[name]
    monkeypatch.setattr(type(method), "others", 39)
    forged = showing(method, method.claim(stranger, data, secret=SECRET, rng=generator(0)), data, settings)
    verdict = judged(method, stranger, forged)
    assert verdict.statistic <= 0.5
    assert not verdict.found


def test_a_class_that_a_model_sees_in_everything_is_no_mark(data: ImageSet) -> None:
    method = Zhang(variant="paper", kind="unrelated", count=20)
    model = build("mlp:width=8", classes=30, channels=3, size=(8, 8), rng=generator(0))
    with torch.no_grad():
        list(model.parameters())[-1][4] += 100
    guesses = (bytes([i, 5]) * 16 for i in range(250))
    secret = next(one for one in guesses if method._classes(30, method._own(one, generator(0)), set())[1] == 4)
    verdict = judged(method, model, method.claim(model, data, secret=secret, rng=generator(0)))
    assert (verdict.statistic, verdict.found) == (0, False)
    assert verdict.p_value is not None
    assert verdict.p_value <= ALPHA + 1e-12
