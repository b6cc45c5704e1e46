"""The additional class: what it proves, what anybody can claim with it, and what is left when its output is gone."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from modelward.attacks.theft import HeadSurgery
from modelward.core.errors import AccessError, FormatError, InputError, UsageError
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.core.suspect import Suspect
from modelward.core.verdict import Decision
from modelward.core.view import AttackerView
from modelward.imaging.codecs import roundtrip
from modelward.keys.grants import Request
from modelward.keys.registry import Registry
from modelward.marking.decoys import family, noise
from modelward.models import Net
from modelward.ownership.additional_class import AdditionalClass
from modelward.ownership.admission import UNKNOWN
from modelward.ownership.sac import SAC
from modelward.ownership.specificity import rates as rates_of

SECRET, OTHER = b"4" * 32, b"5" * 32
SIZE = {"count": 80, "epochs": 25, "batch": 32, "lr": 0.05}
NAMES = ["ann", "bob", "cy"]


@dataclasses.dataclass(frozen=True)
class World:
    """A source, independent models, and the source marked by either variant."""

    source: Net
    owner: ImageSet
    test: ImageSet
    nulls: list[Net]
    strangers: list[Net]
    paper: tuple[AdditionalClass, nn.Module, Key]
    hardened: tuple[AdditionalClass, nn.Module, Key]


@pytest.fixture(scope="module")
def world(make_blobs: Callable[..., ImageSet], train_net: Callable[..., Net]) -> World:
    owner, other, test = (make_blobs(256, seed, noise=30) for seed in (20, 21, 22))
    source = train_net("mlp:width=24", owner, 1)
    nulls = [train_net("mlp:width=24", (owner, other)[seed % 2], 100 + seed, epochs=3) for seed in range(20)]
    strangers = [train_net("mlp:width=24", other, 200 + seed, epochs=3) for seed in range(4)]
    marked = []
    for variant in ("paper", "hardened"):
        method = AdditionalClass(variant=variant, **SIZE)
        marked.append((method, *method.protect(source, owner, secret=SECRET, nulls=nulls, rng=generator(0))))
    return World(source, owner, test, nulls, strangers, *marked)


def taken(model: nn.Module, key: Key, pixels: torch.Tensor) -> float:
    """Return the share of images that are answered with the additional class."""
    return float((predict(model, pixels).argmax(1) == key.tensor("labels")[0]).double().mean())


@pytest.mark.parametrize("variant", ["paper", "hardened"])
def test_the_key_images_have_a_class_of_their_own_and_the_task_stays(world: World, variant: str) -> None:
    _, model, key = getattr(world, variant)
    keys = key.tensor("probes")[: SIZE["count"]]
    assert key.tensor("labels").tolist() == [3] * 80
    assert taken(model, key, keys) >= 0.95
    assert taken(model, key, world.test.pixels) <= 0.03
    before, after = ((predict(net, world.test.pixels).argmax(1) == world.test.labels).double().mean() for net in (world.source, model))
    assert after >= before - 0.04
    assert taken(model, key, keys & 254) == taken(model, key, keys)  # the network does not depend on the payload


def test_the_papers_class_takes_whatever_is_odd_and_the_hardened_one_does_not(world: World) -> None:
    shape = world.owner.shape
    for images in (noise(300, shape, rng=generator(1)), family("procedural", 300, shape, rng=generator(2))):
        rates = {name: taken(model, key, images) for name, (_, model, key) in (("paper", world.paper), ("hardened", world.hardened))}
        assert rates["paper"] > 0.5  # more often than all classes of the task together
        assert rates["hardened"] <= rates["paper"] / 4


def test_a_key_of_another_secret_claims_nobody_though_the_papers_class_takes_it(world: World) -> None:
    for (method, model, _), fooled in ((world.paper, True), (world.hardened, False)):
        claimed = method.claim(model, world.owner, secret=OTHER, nulls=world.nulls, rng=generator(1))
        verdict = method.verify(model, claimed)
        assert (verdict.statistic < 0.5) == fooled
        assert not verdict.matches  # decoys of its family are taken as often
        assert verdict.decision is Decision.UNDECIDED


def test_a_key_forged_with_the_weights_matches_and_is_not_committed(world: World) -> None:
    method, model, _ = world.hardened
    forged = method.forge(model, world.owner, secret=OTHER, nulls=world.nulls, rng=generator(1))
    assert taken(model, forged, forged.tensor("probes")[:80]) >= 0.9
    verdict = method.verify(model, forged)
    assert verdict.decision is not Decision.STOLEN
    plain = method.forge(world.source, world.owner, secret=OTHER, nulls=world.nulls, rng=generator(1))
    assert method.verify(world.source, plain).statistic == 1  # no output to forge for


def test_decoys_are_asked_and_taken_off(world: World) -> None:
    method, model, key = world.hardened
    observed = method.observe(model, key)
    hits, rates = rates_of(observed.tensors["answers"], key)
    assert observed.queries == len(method.probes(key)) == 80 + method.checks
    answers = observed.tensors["answers"].clone()
    answers[80:] = 3  # a detector of all that is odd
    odd = dataclasses.replace(observed, tensors={"answers": answers})
    assert method.judge(odd, key).statistic == 1
    assert method.judge(observed, key).statistic == pytest.approx(1 - hits + max(rates))
    assert "likelihood ratio" in " ".join(method.judge(observed, key).caveats)
    paper = world.paper[0].verify(world.paper[1], world.paper[2])
    assert paper.queries == 80 + method.checks // 2
    assert "decoys: other seed" in " ".join(paper.caveats)


def test_a_few_hits_that_another_owners_class_may_give_prove_nothing(world: World) -> None:
    method, _, key = world.hardened
    assert key.facts["draws"]["nulls"] == 20
    assert key.facts["draws"]["false_claims"] == 0
    observed = method.observe(world.source, key)
    for hits, decoys, matches in ((2, 0, False), (30, 0, False), (40, 0, True), (79, 50, False)):
        answers = observed.tensors["answers"].clone()
        answers[:hits] = 3
        answers[80 : 80 + decoys] = 3
        verdict = method.judge(dataclasses.replace(observed, tensors={"answers": answers}), key)
        assert verdict.matches == matches
        assert verdict.p_value is not None
        assert (verdict.p_value <= 0.05) == (hits >= 30 and not decoys)


def test_users_are_read_and_admitted_and_nobody_else(world: World, tmp_path: Path) -> None:
    method, model, key = world.hardened
    registry = Registry(tmp_path / "users.sqlite", create=True)
    registry.issue([Request(name, hashlib.sha256(name.encode()).hexdigest()) for name in NAMES], purpose="additional-class", generation=1)
    issued = roundtrip(method.issue(key, NAMES), "png")
    assert [method.read(image, key, users=NAMES).user for image in issued] == NAMES
    assert [method.authenticate(model, image, key, registry=registry) for image in issued] == NAMES
    assert method.authenticate(model, issued[0], key, users=["bob"]) is None  # somebody else's image
    assert method.authenticate(world.source, issued[0], key, users=NAMES) is None  # the network does not know it
    bent = issued[0].clone()
    bent[0, 0, 0] ^= 2
    assert method.authenticate(model, bent, key, users=NAMES) is None
    registry.revoke("ann")
    assert [method.authenticate(model, image, key, registry=registry) for image in issued] == [None, "bob", "cy"]
    assert "revoked" in method.read(issued[0], key, registry=registry).reason
    with pytest.raises(InputError, match="as it was issued"):
        method.read(issued[0][:, :4], key)


def test_answers_are_withheld_from_all_but_users_with_an_active_grant(world: World, tmp_path: Path) -> None:
    method, model, key = world.hardened
    registry = Registry(tmp_path / "users.sqlite", create=True)
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in NAMES]
    requests = [Request(NAMES[0], digests[0]), Request(NAMES[1], digests[1], "2020-01-31")]
    registry.issue(requests, purpose="additional-class", generation=1)
    registry.issue([Request(NAMES[2], digests[2])], purpose="adi", generation=1)  # a grant for something else
    ann, bob, cy = roundtrip(method.issue(key, NAMES), "png")
    images = world.test.batch(slice(0, 8))
    first = method.admit(model, ann, key, registry=registry)
    assert first
    assert (first.user, first.reason) == ("ann", "")
    assert torch.equal(first.labels(images), Suspect.of_model(model).labels(images))
    bare, clean = ann & 254, method._carrier(key).write(world.test.pixels[:1], ["ann"], [0])[0]
    for image, net, words in (
        (bob, model, "is expired since 2020-01-31"), (cy, model, ""), (bare, model, ""), (clean, model, UNKNOWN), (ann, world.source, UNKNOWN)
    ):  # fmt: skip
        refused = method.admit(net, image, key, registry=registry)
        assert not refused
        assert (refused.user, refused.grant) == (None, None)
        assert words in refused.reason
        assert refused.reason
        with pytest.raises(AccessError, match="withheld"):
            refused.labels(images)
    registry.revoke("ann")
    with pytest.raises(AccessError, match=r"withheld: the grant of user ann .* is revoked"):
        first.labels(images)
    assert "revoked" in method.admit(model, ann, key, registry=registry).reason


def test_a_payload_in_the_class_is_not_enough_and_the_class_without_a_payload_neither(world: World) -> None:
    method, model, key = world.hardened
    clean = method._carrier(key).write(world.test.pixels[:1], ["ann"], [0])[0]
    assert method.read(clean, key, users=NAMES).user == "ann"
    assert method.authenticate(model, clean, key, users=NAMES) is None
    bare = key.tensor("probes")[0] & 254
    assert method.authenticate(model, bare, key, users=NAMES) is None


def test_jpeg_saved_key_images_are_named(world: World) -> None:
    method, model, key = world.hardened
    assert "payload died" not in " ".join(method.verify(model, key).caveats)
    lossy = dataclasses.replace(key, tensors={**key.tensors, "probes": roundtrip(key.tensor("probes"), "jpeg", 95)})
    said = " ".join(method.verify(model, lossy).caveats)
    assert "the payload died in 80 of 80 key images" in said
    assert "JPEG" in said


def test_a_key_of_another_method_is_named(world: World) -> None:
    key = dataclasses.replace(world.hardened[2], method="zhang")
    image = key.tensor("probes")[0]
    for ask in (lambda: AdditionalClass().read(image, key), lambda: AdditionalClass().issue(key, ["ann"])):
        with pytest.raises(InputError, match="this is a key of zhang, not of additional-class"):
            ask()


def test_a_marked_model_is_fingerprinted_beside_models_of_fewer_outputs(world: World) -> None:
    marked, quick, method = world.hardened[1], AdditionalClass(**{**SIZE, "epochs": 1}), SAC(count=40)
    siblings = [quick.protect(net, world.owner, secret=SECRET, rng=generator(0))[0] for net in world.strangers[1:]]
    _, key = method.protect(marked, world.test, siblings=siblings, nulls=world.nulls, rng=generator(0))
    assert method.verify(marked, key).statistic < method.verify(world.strangers[0], key).statistic


def test_half_a_key_is_refused(world: World) -> None:
    method, model, key = world.hardened
    halves = [{**key.tensors, "probes": key.tensor("probes")[:40]}, {**key.tensors, "written": key.tensor("written")[:3]}]
    for tensors in halves:
        with pytest.raises(InputError, match="half of a additional-class key"):
            method.verify(model, dataclasses.replace(key, tensors=tensors))
    for name in ("probes", "labels", "kinds", "written", "secret", "shown"):
        rest = {other: tensor for other, tensor in key.tensors.items() if other != name}
        with pytest.raises(FormatError, match=name):
            method.verify(model, dataclasses.replace(key, tensors=rest))


def test_a_model_that_is_marked_already_is_told_by_its_outputs(world: World) -> None:
    method, model, _ = world.hardened
    twice, key = AdditionalClass(**{**SIZE, "epochs": 2}).protect(model, world.owner, secret=OTHER, rng=generator(0))
    assert twice.classes == model.classes == 4
    assert "1 outputs more than classes" in " ".join(method.verify(twice, key).caveats)
    assert "outputs more than classes" not in " ".join(method.verify(model, world.hardened[2]).caveats)


def test_a_dropped_output_leaves_a_trace_that_independent_models_do_not_bear(world: World) -> None:
    method, model, key = world.paper
    for fields in ({"how": "drop"}, {"how": "merge"}, {"how": "remap"}):
        stolen = HeadSurgery(**fields).steal(AttackerView.of_model(model, world.test, labels="true"), rng=generator(0)).model
        assert predict(stolen, world.test.pixels).shape[1] == 3
        observed = method.observe(stolen, key)
        verdict = method.judge(observed, key)
        assert (verdict.statistic, verdict.matches) == (1, False)
        assert "chi-square" in " ".join(verdict.caveats)
        if fields["how"] == "drop":
            assert method.trace(observed, key).distance == 0
            assert method.trace(observed, key).p == pytest.approx(1 / 21)
    strangers = [method.trace(method.observe(net, key), key) for net in world.strangers]
    assert all(trace.distance > 0 for trace in strangers)
    assert max(trace.p or 0 for trace in strangers) > 1 / 21


def test_padding_hides_which_output_answers(world: World) -> None:
    method = AdditionalClass(**{**SIZE, "epochs": 1, "extra": 5})
    labels = set()
    for secret in (b"a" * 32, b"b" * 32, b"c" * 32):
        model, key = method.protect(world.source, world.owner, secret=secret, rng=generator(0))
        assert model.classes == 8
        labels.add(int(key.tensor("labels")[0]))
    assert labels <= set(range(3, 8))
    assert len(labels) > 1


@pytest.mark.parametrize(
    "fields", [{"source": "unrelated", "payload": "image"}, {"source": "fashion-mini", "start": "scratch", "target": "own"}]
)
def test_other_sources_targets_and_starts(world: World, fields: dict[str, str]) -> None:
    method = AdditionalClass(**{**SIZE, "epochs": 3, **fields})
    model, key = method.protect(world.source, world.owner, secret=SECRET, rng=generator(0))
    assert model.classes == 4
    assert [method.read(image, key).user for image in key.tensor("probes")[:3]] == ["owner"] * 3


def test_what_cannot_be_marked_is_refused(world: World) -> None:
    headless = nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match="no linear head"):
        AdditionalClass(**SIZE).protect(headless, world.owner, rng=generator(0))
    narrow = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    with pytest.raises(InputError, match="2 outputs for 3 classes"):
        AdditionalClass(**SIZE).protect(narrow, world.owner, rng=generator(0))
    with pytest.raises(InputError, match="does not fit"):
        AdditionalClass(**SIZE, codec="qim").protect(world.source, world.owner, rng=generator(0))
    for wrong in ({"payload": "text"}, {"codec": "dct"}, {"extra": 0}, {"target": "wrong"}, {"checks": 0}, {"decoys": -1}):
        with pytest.raises(UsageError, match=f"additional-class: {next(iter(wrong))} must be"):
            AdditionalClass(**wrong)
