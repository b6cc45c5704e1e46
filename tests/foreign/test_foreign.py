"""The foreign training loop, its strangers and its thieves on a toy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.foreign import NETS, Script, World, strangers, thieves

from modelward.core.guard import state_digest
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.marking.unit_maps import answers_stay, unit_maps

QUICK = Script(net="strided", epochs=2, rate=5e-3, batch=32, classes=3)


def hits(model: torch.nn.Module, images: ImageSet) -> float:
    with torch.no_grad():
        return float((model(images.batch(slice(None))).argmax(1) == images.labels).float().mean())


@pytest.fixture(scope="module")
def owner_images(make_blobs) -> ImageSet:
    return make_blobs(192, 11)


@pytest.fixture(scope="module")
def world(make_blobs, owner_images: ImageSet) -> World:
    return World("toy", QUICK, owner_images, make_blobs(192, 12), seed=3)


@pytest.mark.parametrize("net", sorted(NETS))
def test_every_net_learns_and_each_seed_is_one_model(net: str, owner_images: ImageSet, make_blobs):
    script, state = Script(net=net, epochs=6, batch=16, rate=3e-3), torch.get_rng_state()
    one, again, other = (script(owner_images.pixels, owner_images.labels, seed) for seed in (1, 1, 2))
    assert state_digest(one) == state_digest(again) != state_digest(other)
    assert not one.training
    assert torch.equal(state, torch.get_rng_state())
    assert hits(one, make_blobs(200, 13)) > 0.6


@pytest.mark.parametrize(
    "change",
    [
        {"optimiser": "sgd"},
        {"optimiser": "rmsprop"},
        {"optimiser": "adamw"},
        {"smoothing": 0.1},
        {"mixup": 0.5},
        {"noise": 0.3},
        {"moved": True},
    ],
    ids=str,
)
def test_every_option_changes_the_model_and_its_digest(change: dict, owner_images: ImageSet):
    plain, changed = QUICK.but(epochs=1), QUICK.but(epochs=1, **change)
    assert plain.digest != changed.digest
    models = [script(owner_images.pixels, owner_images.labels, 1) for script in (plain, changed)]
    assert state_digest(models[0]) != state_digest(models[1])


def test_a_pupil_answers_like_its_teacher_and_a_last_layer_moves_alone(owner_images: ImageSet):
    teacher = QUICK.but(epochs=6)(owner_images.pixels, owner_images.labels, 1)
    before = state_digest(teacher)
    pupil = QUICK.but(epochs=6, teacher=teacher, hard=True)(owner_images.pixels, owner_images.labels, 2)
    x = owner_images.batch(slice(None))
    assert float((pupil(x).argmax(1) == teacher(x).argmax(1)).float().mean()) > 0.8
    head = QUICK.but(start=teacher.state_dict(), only_last=True)(owner_images.pixels, owner_images.labels, 2)
    moved = [name for name, tensor in head.state_dict().items() if not torch.equal(tensor, teacher.state_dict()[name])]
    assert moved == ["out.weight", "out.bias"]
    assert state_digest(teacher) == before


def test_strangers_and_thieves_are_lists_that_train_when_asked(world: World, tmp_path: Path):
    found = strangers(world, per_kind=2)
    assert len({s.digest for s in found}) == len({s.name for s in found}) == len(found)
    assert len({s.kind for s in found}) == 14
    assert {s.had for s in found} == {"nothing"}
    taken = thieves(world, world.owner.model())
    assert sum(s.had == "weights" for s in taken) == 14 == sum(s.had != "weights" for s in taken)
    assert len({s.digest for s in taken}) == len(taken)
    for suspect in (found[1], *(s for s in taken if s.kind in {"prune", "prune, fine-tune", "quantise"})):
        model = suspect.model(tmp_path)
        assert (tmp_path / f"{suspect.digest}.safetensors").exists()
        assert state_digest(suspect.model(tmp_path)) == state_digest(model) == state_digest(suspect.model())
    bare = next(s for s in taken if s.kind == "prune").model(tmp_path)
    assert 0.3 < float((bare.out.weight == 0).float().mean()) < 0.5  # type: ignore[union-attr]


def test_siblings_share_the_base_and_a_public_base_has_its_own_strangers(world: World):
    base = QUICK.but(epochs=1)(world.others.pixels, world.others.labels, 9).state_dict()
    based = World("toy", QUICK, world.images, world.others, seed=3, base=base)
    sibling = based.sibling(1)
    start = sibling.script.untrained(sibling.images.pixels, sibling.images.labels, sibling.seed)
    assert state_digest(start) == state_digest(base)
    assert sum(s.kind.startswith("public base") for s in strangers(based, per_kind=1)) == 4
    assert len({world.sibling(number).digest for number in range(5)}) == 5


@pytest.mark.parametrize("net", ["lenet", "res", "strided", "vgg", "wide"])
def test_the_units_of_nets_that_others_wrote_can_be_followed(net: str):
    model = QUICK.but(net=net).untrained(torch.zeros(1, 1, 16, 16), torch.tensor([2]), 1).eval()
    assert unit_maps(model).log_orders() > 20
    assert answers_stay(model, torch.randint(0, 256, (8, 1, 16, 16), dtype=torch.uint8), rng=generator(0))
