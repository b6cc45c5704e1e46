"""The trigger baselines: golden numbers, what keys are made of, what a proof opens, forged and claimed keys."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from modelward.core.catalogue import catalogue
from modelward.core.errors import InputError, UsageError
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.core.verdict import Decision
from modelward.marking.diverse import diverse_images
from modelward.marking.embedding import hit_rate
from modelward.models import Net
from modelward.ownership import EWE, Adi, Frontier, Zhang
from modelward.ownership.frontier import mismatches_allowed
from modelward.ownership.mark import MarkMethod
from modelward.statistics import required_matches
from modelward.training import Recipe

ARCH, SECRET = "mlp:width=24", b"7" * 32
SMALL: dict[str, MarkMethod] = {
    "adi": Adi(count=40, epochs=30, batch=32, lr=0.05, significance=1e-4),
    "zhang": Zhang(count=40, side=0.5, epochs=8, batch=32),
    "frontier": Frontier(count=40, eps=0.1, epochs=20, batch=32),
    "ewe": EWE(count=40, side=3, batch=32, lr=0.005, kappa=4.0),
}
each = pytest.mark.parametrize("name", SMALL)


@dataclasses.dataclass(frozen=True)
class World:
    """A source, its owner's images, models that calibrate, and what each method publishes."""

    source: Net
    owner: ImageSet
    nulls: list[Net]
    made: dict[str, tuple[nn.Module, Key]]


@pytest.fixture(scope="module", autouse=True)
def _few_others() -> Iterator[None]:
    """Let EWE draw as few other secrets as a p-value of .05 can do with: each of them is refined."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EWE, "others", 29)
        yield


@pytest.fixture(scope="module")
def world(make_blobs: Callable[..., ImageSet], train_net: Callable[..., Net]) -> World:
    """Return a world with eight null models."""
    owner, other = (make_blobs(256, seed, noise=75) for seed in (20, 21))
    source = train_net(ARCH, owner, 1)
    nulls = [train_net(ARCH, images, 500 + seed) for seed in range(4) for images in (owner, other)]
    made = {name: method.protect(source, owner, secret=SECRET, nulls=nulls, rng=generator(0)) for name, method in SMALL.items()}
    return World(source, owner, nulls, made)


@pytest.mark.parametrize(
    ("count", "chance", "wanted"),
    [
        (20, 0.1, (8, 11)), (20, 0.2, (11, 15)), (20, 0.5, (18, 20)), (50, 0.1, (14, 18)), (50, 0.2, (20, 26)), (50, 0.5, (37, 42)),
        (100, 0.1, (21, 28)), (100, 0.2, (34, 42)), (100, 0.5, (66, 74)), (200, 0.1, (35, 44)), (200, 0.2, (59, 70)), (200, 0.5, (123, 134)),
    ],
)  # fmt: skip
def test_matches_that_prove_something(count: int, chance: float, wanted: tuple[int, int]) -> None:
    assert (required_matches(count, chance, 1e-3), required_matches(count, chance, 1e-6)) == wanted


def test_the_rule_of_frontier_stitching() -> None:
    assert mismatches_allowed(100) == 41
    for count in (1, 4, 5, 20, 100):
        below = [sum(math.comb(count, z) for z in range(m + 1)) / 2**count for m in range(count + 1)]
        assert mismatches_allowed(count) == sum(value < 0.05 for value in below) - 1
    key = Key("frontier", "paper", "", {}, {"labels": torch.zeros(100, dtype=torch.int64)})
    assert Frontier(variant="paper")._limit(key) == 0.41


def test_the_rate_falls_by_thirds() -> None:
    recipe = Adi(variant="paper", lr=0.1).recipe
    assert [round(recipe.rate(epoch, 60), 6) for epoch in (0, 19, 20, 39, 40, 59)] == [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    assert Recipe(schedule="thirds", lr=1.0).rate(0, 0) == 1.0


@each
def test_the_mark_is_found_and_nobody_else_is_accused(name: str, world: World) -> None:
    method, (model, key) = SMALL[name], world.made[name]
    own = method.verify(model, key)
    assert own.matches
    assert own.decision is Decision.UNDECIDED  # nobody committed to the key
    assert own.p_value is not None
    assert own.p_value <= 0.05
    assert (own.nulls, own.false_claims) == (8, 0)
    assert not method.verify(world.source, key).matches
    assert not any(method.verify(net, key).matches for net in world.nulls)
    right = hit_rate(world.source, world.owner.pixels, world.owner.labels)
    assert hit_rate(model, world.owner.pixels, world.owner.labels) > right - 0.05


@each
def test_a_claimed_key_fits_nothing_and_a_forged_one_proves_nothing(name: str, world: World) -> None:
    method = SMALL[name]
    claimed = method.claim(world.source, world.owner, secret=SECRET, nulls=world.nulls, rng=generator(1))
    assert not method.verify(world.source, claimed).matches
    forged = method.forge(world.source, world.owner, secret=SECRET, nulls=world.nulls, rng=generator(1))
    assert forged.facts["forged"]
    verdict = method.verify(world.source, forged)
    assert verdict.statistic < 0.1  # the network answers as the forger says, though nothing was trained
    assert verdict.decision is not Decision.STOLEN


@each
def test_keys_come_from_the_secret_and_the_user(name: str, world: World) -> None:
    method, (_, key) = SMALL[name], world.made[name]
    again = method.claim(world.source, world.owner, secret=SECRET, rng=generator(9))
    if name != "frontier":  # whose keys are chosen against null models, too
        assert torch.equal(again.tensors["probes"], key.tensors["probes"])
    other = dataclasses.replace(method, user="ann").claim(world.source, world.owner, secret=SECRET, rng=generator(9))
    assert not torch.equal(again.tensors["probes"], other.tensors["probes"])


@each
def test_attacks_that_know_the_method_exist(name: str) -> None:
    attacks = SMALL[name].adaptive_attacks()
    assert attacks
    later = {"gan-removal", "neural-cleanse", "laundering"}
    assert {attack.method for attack in attacks} - later <= set(catalogue())


def test_pictures_are_as_different_as_they_can_be() -> None:
    chosen = diverse_images(20, (1, 16, 16), rng=generator(0)).float().flatten(1)
    assert len(chosen) == 20
    mine = torch.pdist(chosen).min()
    drawn = SMALL["adi"]
    plain = dataclasses.replace(drawn, variant="paper", count=20)
    images = ImageSet(torch.zeros(2, 1, 16, 16, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"), "none")
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    others = plain._draw(net, images, secret=SECRET, rng=generator(0)).tensors["probes"].float().flatten(1)
    assert mine > torch.pdist(others).min()


def test_a_proof_opens_a_part_and_leaves_the_rest_for_the_next(world: World) -> None:
    method, (model, key) = Adi(), world.made["adi"]
    whole = Adi.check_opening(key)
    seen: list[int] = []
    for round_ in range(2):
        part = method.opened(key, round_, size=20)
        assert Adi.check_opening(part) == whole
        assert len(part.tensors["labels"]) == 20
        assert torch.equal(part.tensors["probes"], key.tensors["probes"][part.facts["opened"]])
        seen += part.facts["opened"]
        assert method.verify(model, part).matches
        assert not any(method.verify(net, part).matches for net in (world.source, *world.nulls))
        assert part.facts["draws"] == {"of": "labels", "classes": 3}
    assert sorted(seen) == list(range(40))
    for round_, size in ((2, 20), (-1, 20), (0, 0), (0, 41)):
        with pytest.raises(UsageError, match=r"no .* left for proof"):
            method.opened(key, round_, size=size)


@pytest.mark.parametrize("what", ["labels", "probes", "salts"])
def test_a_pair_that_was_changed_is_not_the_one_that_was_committed_to(what: str, world: World) -> None:
    part = Adi().opened(world.made["adi"][1], 1, size=10)
    changed = part.tensors[what].clone()
    changed[3] = (changed[3] + 1) % 3
    with pytest.raises(InputError, match="picture 13 or its label"):
        Adi.check_opening(dataclasses.replace(part, tensors={**part.tensors, what: changed}))
    for altered in ([1, 2], [99] * 10):
        with pytest.raises(InputError, match=r"opens 2 pictures, and holds 10|picture 99"):
            Adi.check_opening(dataclasses.replace(part, facts={**part.facts, "opened": altered}))


def test_half_of_the_papers_stitches_are_answered_wrongly(world: World) -> None:
    paper = dataclasses.replace(SMALL["frontier"], variant="paper")
    key = paper.claim(world.source, world.owner, secret=SECRET, nulls=world.nulls, rng=generator(0))
    true, false = (key.facts["adversaries"][kind] for kind in ("true", "false"))
    assert 10 * (true + false) <= key.facts["pool"]["size"] < 400  # there are not enough images for 40 keys
    assert hit_rate(world.source, key.tensors["probes"], key.tensors["labels"]) == pytest.approx(false / (true + false))
    assert torch.equal(key.tensors["labels"], world.owner.labels[key.tensors["index"]])
    far = key.tensors["probes"].float() - world.owner.pixels[key.tensors["index"]].float()
    assert float(far.abs().max()) <= 0.1 * 255 + 0.51


def test_hardened_stitches_are_true_adversaries_while_there_are_enough(world: World) -> None:
    few = dataclasses.replace(SMALL["frontier"], count=10, eps=0.2)
    key = few.claim(world.source, world.owner, secret=SECRET, rng=generator(0))
    assert key.facts["adversaries"] == {"true": 10, "false": 0}
    assert key.facts["pool"]["size"] == 100


def test_frontier_refuses_images_that_the_model_does_not_know(world: World) -> None:
    wrong = ImageSet(world.owner.pixels, (predict(world.source, world.owner.pixels).argmax(1) + 1) % 3, world.owner.classes, "mislabelled")
    with pytest.raises(InputError, match="answers none of these images rightly"):
        SMALL["frontier"].protect(world.source, wrong, rng=generator(0))
    with pytest.raises(InputError, match="keys could be made"):
        SMALL["frontier"].protect(world.source, world.owner.take(slice(0, 6)), rng=generator(0))


def test_the_stamp_lies_where_it_was_placed_before_the_images_were_refined(world: World) -> None:
    rough = dataclasses.replace(SMALL["ewe"], variant="paper", rounds=0, source=0, target=2)
    assert isinstance(rough, EWE)
    key = rough.claim(world.source, world.owner, secret=SECRET, rng=generator(0))
    top, left = key.facts["place"]
    probes, index = key.tensors["probes"], key.tensors["index"]
    assert bool((probes[:, :, top : top + 3, left : left + 3] == 255).all())
    rest = probes.clone()
    rest[:, :, top : top + 3, left : left + 3] = world.owner.pixels[index][:, :, top : top + 3, left : left + 3]
    assert torch.equal(rest, world.owner.pixels[index])
    assert set(world.owner.labels[index].tolist()) == {0}
    assert set(key.tensors["labels"].tolist()) == {2}
    fine = dataclasses.replace(rough, rounds=10).claim(world.source, world.owner, secret=SECRET, rng=generator(0))
    assert fine.facts["place"] == [top, left]
    far = (fine.tensors["probes"].float() - probes.float()).abs()
    assert 0 < float(far.max()) <= (10 + 50 + 5) * 0.01 * 255 + 1
    taken = [float((predict(world.source, k.tensors["probes"]).argmax(1) == 2).double().mean()) for k in (key, fine)]
    assert taken[1] <= max(0.15, taken[0])


@pytest.mark.parametrize(("fields", "words"), [({"source": 5}, "not two images"), ({"side": 9}, "does not fit")])
def test_what_cannot_be_entangled_is_refused(fields: dict[str, int], words: str, world: World) -> None:
    with pytest.raises(InputError, match=words):
        dataclasses.replace(SMALL["ewe"], **fields).protect(world.source, world.owner, rng=generator(0))
    one = world.owner.take(torch.nonzero(world.owner.labels == 1).flatten())
    with pytest.raises(InputError, match="fewer classes"):
        SMALL["ewe"].protect(world.source, one, rng=generator(0))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Adi(boost=0), "boost must be"), (lambda: Frontier(eps=0), "eps must be"),
        (lambda: EWE(kappa=-1), "kappa must be"), (lambda: EWE(distance="far"), "cosine or euclidean"), (lambda: EWE(ratio=0), "ratio"),
        (lambda: EWE(temperature=0), "temperature must be"), (lambda: EWE(source=3, target=3), "another class"), (lambda: EWE(certain=2), "certain"),
        (lambda: EWE(opacity=0), "opacity must be"), (lambda: EWE(opacity=1.5), "opacity must be"),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make()


@pytest.mark.parametrize("name", ["zhang", "ewe"])
def test_no_image_stands_in_a_key_twice(name: str, world: World) -> None:
    many = dataclasses.replace(SMALL[name], count=5_000)
    key = many.claim(world.source, world.owner, secret=SECRET, rng=generator(0))
    assert len(key.tensors["index"].unique()) == len(key.tensors["labels"]) == int((world.owner.labels == key.facts["source"]).sum())


def test_a_hardened_stamp_is_that_of_one_secret(world: World) -> None:
    rough = dataclasses.replace(SMALL["ewe"], rounds=0, source=0, target=2)
    keys = [rough.claim(world.source, world.owner, secret=bytes([i]) * 32, rng=generator(0)) for i in range(6)]
    assert {tuple(key.facts["place"]) for key in keys}
    stamps = set()
    for key in keys:
        top, left = key.facts["place"]
        cut = key.tensors["probes"][:, :, top : top + 3, left : left + 3]
        assert bool((cut == cut[:1]).all())
        assert sorted(cut[0, 0].unique().tolist()) == [0, 255]
        stamps.add(bytes(cut[0].numpy()))
    assert len(stamps) > 3


def test_a_faint_stamp_lets_the_image_shine_through(world: World) -> None:
    full = dataclasses.replace(SMALL["ewe"], rounds=0, source=0, target=2)
    faint = dataclasses.replace(full, opacity=0.5)
    whole, half = (method.claim(world.source, world.owner, secret=SECRET, rng=generator(0)) for method in (full, faint))
    assert whole.facts["place"] == half.facts["place"]
    bare = world.owner.pixels[whole.tensors["index"]].float()
    assert torch.equal(half.tensors["probes"].float(), (bare + 0.5 * (whole.tensors["probes"].float() - bare)).round())


def test_decoys_are_source_images_under_other_patterns_with_their_true_label(world: World) -> None:
    method = dataclasses.replace(SMALL["ewe"], decoys=True, source=0, target=2)
    assert isinstance(method, EWE)
    mark = method._draw(world.source, world.owner, secret=SECRET, rng=generator(0))
    task = method._with_decoys(world.owner, mark, generator(1))
    added = task.take(slice(len(world.owner), None))
    assert len(added) == 2 * 40  # key images and ordinary ones
    assert set(added.labels.tolist()) == {0}
    assert torch.equal(task.pixels[: len(world.owner)], world.owner.pixels)
    top, left = mark.facts["place"]
    cut = added.pixels[:, :, top : top + 3, left : left + 3]
    assert len({bytes(patch.numpy()) for patch in cut}) > 10
    model, key = method.protect(world.source, world.owner, secret=SECRET, rng=generator(0))
    plain, _ = dataclasses.replace(method, decoys=False).protect(world.source, world.owner, secret=SECRET, rng=generator(0))
    assert hit_rate(model, added.pixels, added.labels) > hit_rate(plain, added.pixels, added.labels)
    assert hit_rate(model, key.tensors["probes"], key.tensors["labels"]) > 0.5
