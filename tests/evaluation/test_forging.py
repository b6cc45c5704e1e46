"""Keys that are not the owner's: guesses, neighbours and forgeries are counted, the best of q is what it says; payloads come back from files."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from modelward import embedded_model, generator, load_data
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import OwnershipMethod
from modelward.core.siblings import Siblings
from modelward.evaluation import forging as module
from modelward.evaluation.capacity import capacity
from modelward.evaluation.forging import best_of, forging, guessing, secret_of
from modelward.models.net import Net
from modelward.models.nets import build
from modelward.ownership import AdditionalClass, DeepMarks, InFIP, Uchida, Zhang
from modelward.ownership.sac import SAC
from modelward.training import Recipe, fit

SMALL: dict[str, OwnershipMethod] = {
    "uchida": Uchida(bits=32, lam=1.0, epochs=6),
    "deepmarks": DeepMarks(epochs=4, number=3),
    "zhang": Zhang(count=20, epochs=10, batch=32),
    "additional-class": AdditionalClass(count=6, epochs=1, decoys=4, user="ann"),
}


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return load_data("fashion-mini").test.take(slice(256))


@pytest.fixture(scope="module")
def strangers() -> list[Net]:
    part = load_data("fashion-mini").train.take(slice(400))
    made = [build("lenet5", classes=10, channels=1, size=(28, 28), rng=generator(seed)) for seed in range(8)]
    for seed, net in enumerate(made):
        fit(net, part.pixels, part.labels, Recipe(epochs=4, lr=0.05, batch=32), rng=generator(seed))
    return [net.eval() for net in made]


def protected(name: str, images: ImageSet, nulls: list[Net]) -> tuple[OwnershipMethod, nn.Module, Key]:
    method = SMALL[name]
    return method, *method.protect(embedded_model().model, images, secret=secret_of(7), nulls=nulls, rng=generator(7))


@pytest.mark.parametrize("name", ["uchida", "deepmarks", "zhang"])
def test_neighbours_are_no_key_of_the_owner_and_the_owners_own_secret_would_be(name: str, images: ImageSet, strangers: list[Net]) -> None:
    method, model, key = protected(name, images, strangers)
    (row,) = guessing(method, model, key, images, source=embedded_model().model, seed=7, count=10)
    kinds = row.extra["kinds"]
    assert {kind: found["n"] for kind, found in kinds.items()} == {"random secret": 10, "other user": 2, "secret with one bit changed": 2}
    assert row.n == 14
    assert round(row.value * row.n) == sum(found["fit"] for found in kinds.values())
    assert row.extra["best"]["10"] == kinds["random secret"]["best"] <= row.extra["best"]["1"]
    own = method.claim(embedded_model().model, images, secret=secret_of(7), rng=generator(7))  # type: ignore[attr-defined]
    assert method.verify(model, own).statistic < min(
        found["best"] for found in kinds.values()
    )  # the control: the secret itself fits better


def test_neighbours_differ_from_the_secret_by_one_bit_or_in_the_user_alone() -> None:
    kinds: dict[str, list[tuple[OwnershipMethod, bytes]]] = {}
    for kind, other, secret in module._others(SMALL["deepmarks"], 7, 1000):  # type: ignore[arg-type]
        kinds.setdefault(kind, []).append((other, secret))
    changed = [(int.from_bytes(secret) ^ int.from_bytes(secret_of(7))).bit_count() for _, secret in kinds["secret with one bit changed"]]
    assert changed == [1] * module.MOST_NEAR
    assert len({secret for _, secret in kinds["secret with one bit changed"]}) == module.MOST_NEAR
    assert {secret for _, secret in kinds["other user"]} == {secret_of(7)}
    numbers = [other.number for other, _ in kinds["other user"]]  # type: ignore[attr-defined]
    assert SMALL["deepmarks"].number not in numbers  # type: ignore[attr-defined]
    assert len(set(numbers)) == module.MOST_NEAR


def test_forging_stops_at_the_first_key_that_fits_and_says_the_best_of_q(
    images: ImageSet, strangers: list[Net], monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = forging(SMALL["uchida"], strangers, images, strangers[1:], siblings=Siblings(), seed=7, count=2)
    assert (row.value, row.n) == (0.0, 2)  # of the hardened variant secrets can only be tried
    assert row.extra["tries"] == 1000
    assert row.extra["best"]["2"] <= row.extra["best"]["1"]
    assert row.extra["best"]["2"] > row.extra["threshold"]
    solved = dataclasses.replace(SMALL["uchida"], variant="paper")
    (row,) = forging(solved, strangers, images, strangers[1:], siblings=Siblings(), seed=7, count=50)
    assert (row.value, row.n, row.extra["best_of"]) == (1.0, 1, {"1": True})
    monkeypatch.setattr(module, "MOST_FORGERIES", 1)
    (row,) = forging(SMALL["uchida"], strangers, images, strangers[1:], siblings=Siblings(), seed=7, count=50)
    assert row.n == 1


def test_of_a_fingerprint_probes_are_chosen_after_the_fact_or_the_reason_is_told(images: ImageSet, strangers: list[Net]) -> None:
    method, kin = InFIP(count=20), Siblings(models=tuple(strangers[3:]), origin="code", start="none", images=images)
    (row,) = forging(method, strangers[:3], images, [], siblings=kin, seed=7, count=2)
    assert (row.n, "probes chosen" in row.extra["how"]) == (2, True)
    _, honest = method.protect(strangers[1], images, siblings=kin, rng=generator(0))
    assert row.extra["best"]["1"] < method.verify(strangers[0], honest).statistic  # the choice brings the innocent nearer
    (untold,) = forging(SAC(), strangers, images, strangers, siblings=kin, seed=7, count=2)
    assert (untold.n, untold.flags) == (0, (module.NO_FORGERY,))
    assert forging(method, [], images, strangers, siblings=kin, seed=7, count=2) == []


def test_the_best_of_q_never_grows_and_is_reported_where_it_was_reached() -> None:
    scores = torch.rand(100, generator=generator(0)).tolist()
    found = best_of(scores, 0.02)
    assert list(found["best"]) == ["1", "10", "100"]
    assert found["best"]["1"] >= found["best"]["10"] >= found["best"]["100"] == min(scores)
    assert found["best_of"]["100"] == (min(scores) <= 0.02)


@pytest.mark.parametrize(("name", "bits", "images_read"), [("uchida", 32, None), ("deepmarks", 31, None), ("additional-class", 144, 6)])
def test_a_payload_is_counted_after_files_were_read_back(
    name: str, bits: int, images_read: int | None, images: ImageSet, strangers: list[Net]
) -> None:
    method, model, key = protected(name, images, strangers)
    first, *more = capacity(method, model, key)
    assert (first.value, first.extra["payload"], first.extra.get("images")) == (bits, bits, images_read)
    assert [row.value for row in more] == ([0.0] if images_read else [])
    if images_read is None:
        (other,) = capacity(method, embedded_model().model, key)  # the control: a model that was never marked has not got these bits
        assert other.value < bits
    else:
        pixels = key.tensor("probes").clone()
        pixels[0] ^= 1  # every lowest bit of one image
        spoilt, errors = capacity(method, model, dataclasses.replace(key, tensors={**key.tensors, "probes": pixels}))
        assert (spoilt.value, spoilt.extra["unread"], errors.value) == (0.0, 1, pytest.approx(1 / 6))


def test_a_mark_without_a_payload_has_no_capacity_rather_than_none_of_it(images: ImageSet, strangers: list[Net]) -> None:
    (row,) = capacity(*protected("zhang", images, strangers))
    assert (row.as_json()["value"], row.n) == (None, 0)
