"""Siblings: trained by the owner's code or recipe in processes of their own, with seeds that nobody chooses, gone on with after a crash."""

from __future__ import annotations

import copy
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import modelward as mw
from modelward.core import consent
from modelward.core.errors import InputError, ModelwardError, UnsafeFileError, UsageError
from modelward.core.guard import state_digest
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.core.siblings import Siblings
from modelward.data.study import Study
from modelward.evaluation import code
from modelward.evaluation.engine import Engine
from modelward.evaluation.siblings import gathered, name_of, plan, recipe_of
from modelward.evaluation.store import Store
from modelward.evaluation.work_siblings import by_code, fresh
from modelward.models import Net, build, load_model, save_model
from modelward.training import Recipe, accuracy, fit

CODE = """
import os
from pathlib import Path

import torch
from torch import nn

def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 12), nn.ReLU(), nn.Linear(12, 3))

def train(images, labels, seed):
    with Path("trained").open("a") as log:
        log.write(f"{seed} {os.getpid()}\\n")
    if Path("crash").exists() and Path("crash").read_text() == str(seed):
        raise MemoryError("no room for sibling\\nsecond line")
    model = net()
    steps = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(2):
        for batch in torch.randperm(len(images)).split(32):
            steps.zero_grad()
            nn.functional.cross_entropy(model(images[batch].float() / 255), labels[batch]).backward()
            steps.step()
    return model

def deaf(images, labels, seed):
    torch.manual_seed(0)
    return train(images, labels, 0)

def idle(images, labels, seed):
    return ONE

def wide(images, labels, seed):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 13), nn.ReLU(), nn.Linear(13, 3))

def shorter(images, labels, seed):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3))

def nothing(images, labels, seed):
    return None

def leaves(images, labels, seed):
    raise SystemExit(3)

def greedy(images, labels, seed):
    images.zero_()
    labels.zero_()
    return train(images, labels, seed)

def diverged(images, labels, seed):
    model = net()
    model[1].weight.data.fill_(float("nan"))
    return model

def shy(images):
    return net()

ONE = net()
number = 3
"""
SLOWER = CODE.replace("lr=0.05", "lr=0.04")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder with the owner's training as a module, as the current one; nobody has named a function of it yet."""
    (tmp_path / "kincode.py").write_text(CODE)
    (tmp_path / "kinslow.py").write_text(SLOWER)
    (tmp_path / "kinbroken.py").write_text("import kinnowhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(consent, "_given", set())
    path, write = list(sys.path), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    yield tmp_path
    assert sys.path == path, "the path was not restored"
    sys.dont_write_bytecode = write
    for name in [name for name in sys.modules if name.startswith("kin")]:
        del sys.modules[name]


@pytest.fixture
def images(hard: Study) -> ImageSet:
    """Return the owner's images."""
    return hard.owner.take(slice(96))


@pytest.fixture
def owner(folder: Path) -> Net:
    """Return a model of the owner's architecture."""
    del folder
    consent.give(["kincode:net"])
    return build("kincode:net", classes=3, channels=3, size=(8, 8), rng=generator(5))


def made(train: Any, images: ImageSet, owner: Net, store: Store, count: int = 3, **changes: Any) -> Siblings:
    """Return siblings, by default some that began at weights of their own; there are no tuning ones."""
    given: dict[str, Any] = {"base": "none", "tuning": 0, "jobs": 1, **changes}
    return mw.siblings(train, images, count, model=owner, store=store, **given)


def lines(folder: Path) -> list[str]:
    """Return who trained so far: a seed and a process a line."""
    return (folder / "trained").read_text().splitlines() if (folder / "trained").exists() else []


# by the owner's code


def test_the_owners_code_trains_in_processes_of_its_own_and_only_once(folder: Path, images: ImageSet, owner: Net) -> None:
    store = Store(folder / "store")
    found = made("kincode:train", images, owner, store, jobs=2, tuning=1)
    seeds, processes = (list(column) for column in zip(*(line.split() for line in lines(folder)), strict=True))
    assert len(set(seeds)) == 4
    assert len(seeds) == 4
    assert str(os.getpid()) not in processes
    assert set(map(str, found.seeds)) < set(seeds)  # one of them is for tuning and is never ranked
    assert len({state_digest(model) for model in (*found.models, *found.tuning)}) == 4
    assert (found.origin, found.start, found.start_digest, found.failed) == ("code", "none", None, ())
    assert found.images is images
    assert all({*model.state_dict()} == {*owner.state_dict()} and not model.training for model in found.models)
    again = made("kincode:train", images, owner, store, jobs=2, tuning=1)
    assert [state_digest(model) for model in again.models] == [state_digest(model) for model in found.models]
    assert len(lines(folder)) == 4


def test_a_function_is_as_good_as_its_name(folder: Path, images: ImageSet, owner: Net) -> None:
    sys.path.append(str(folder))
    try:
        import kincode  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(folder))
    store = Store(folder / "store")
    found = made(kincode.train, images, owner, store)
    assert found.code == made("kincode:train", images, owner, store).code
    assert len(lines(folder)) == 3
    for unnamed in (lambda *_: None, dataclasses.replace):
        if unnamed is dataclasses.replace:
            assert name_of(unnamed) == "dataclasses:replace"
        else:
            with pytest.raises(UsageError, match="put it into a module and pass that function"):
                made(unnamed, images, owner, store)


def test_a_crash_is_gone_on_with_where_it_happened(folder: Path, images: ImageSet, owner: Net) -> None:
    store = Store(folder / "store")
    seeds = [cell.seed for cell in plan("kincode:train", images, 5, model=owner, store=store, tuning=0).ranked]
    (folder / "crash").write_text(str(seeds[2]))
    with pytest.raises(
        ModelwardError,
        match=r"1 of 5 siblings failed, the first is number 3: --train kincode:train, seed \d+: it raised MemoryError: no room",
    ) as told:
        made("kincode:train", images, owner, store, 5)
    assert "\n" not in str(told.value)
    assert [int(line.split()[0]) for line in lines(folder)] == seeds
    (folder / "crash").unlink()
    found = made("kincode:train", images, owner, store, 5)
    assert [int(line.split()[0]) for line in lines(folder)] == [*seeds, seeds[2]]
    assert found.seeds == tuple(seeds)
    assert found.failed == ()


def test_what_failed_stays_in_the_list(folder: Path, images: ImageSet, owner: Net) -> None:
    store = Store(folder / "store")
    cells = plan("kincode:train", images, 4, model=owner, store=store, tuning=0)
    (folder / "crash").write_text(str(cells.ranked[1].seed))
    found = gathered(cells, Engine(store, jobs=1).run(cells.cells), store, least=3)
    (one,) = found.failed
    assert (one.number, one.seed) == (2, cells.ranked[1].seed)
    assert "no room for sibling" in one.why
    assert len(found) == 3
    assert one.seed not in found.seeds


def test_seeds_are_derived_from_all_that_siblings_share(folder: Path, images: ImageSet, owner: Net) -> None:
    store = Store(folder / "store")
    other = build("kincode:net", classes=3, channels=3, size=(8, 8), rng=generator(6))

    def seeds(train: str = "kincode:train", **changes: Any) -> list[int]:
        given: dict[str, Any] = {"model": owner, "images": images, **changes}
        return [cell.seed for cell in plan(train, given.pop("images"), 4, store=store, **given).cells]

    plain = seeds()
    assert plain == seeds()
    assert len(set(plain)) == len(plain) == 9  # five of them for tuning
    for changed in (
        seeds("kinslow:train"), seeds(model=other), seeds(images=images.take(slice(95))), seeds(start="base", begin=other),
        seeds(start="base", begin=owner),
    ):  # fmt: skip
        assert set(changed) & set(plain) == set()


def test_comments_change_no_seed(folder: Path, images: ImageSet, owner: Net) -> None:
    store, found = Store(folder / "store"), []
    for text in (CODE, "# a remark\n" + CODE + "# another\n", SLOWER):
        (folder / "kincode.py").write_text(text)
        for remembered in (code._source, code._read, code.code_digest):
            remembered.cache_clear()
        found.append(plan("kincode:train", images, 2, model=owner, store=store).about.code)
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("deaf", "two siblings have the same weights: the training code ignores its seed, or trains nothing"),
        ("idle", "two siblings have the same weights: the training code ignores its seed, or trains nothing"),
        ("wide", "--train kincode:wide: it returned a network of another shape than the owner's model"),
        ("shorter", "--train kincode:shorter: it returned a network of another shape than the owner's model"),
        ("nothing", "--train kincode:nothing: it returned a NoneType; it takes (images, labels, seed) and returns a torch.nn.Module"),
        ("leaves", "it raised SystemExit: 3"), ("shy", "it raised TypeError: shy() takes 1 positional argument but 3 were given"),
        ("diverged", "training diverged: the sibling's weights are not finite"),
        ("trian", "the module has no function 'trian'; did you mean 'train'?"), ("number", "has no function 'number'"),
    ],
)  # fmt: skip
def test_code_that_makes_no_siblings_is_one_sentence(function: str, words: str, folder: Path, images: ImageSet, owner: Net) -> None:
    with pytest.raises(ModelwardError) as told:
        made(f"kincode:{function}", images, owner, Store(folder / "store"), 2)
    assert words in str(told.value)
    assert "\n" not in str(told.value)


def test_code_gets_copies_of_the_images(folder: Path, images: ImageSet, owner: Net) -> None:
    before = images.pixels.clone(), images.labels.clone()
    consent.give(["kincode:greedy"])
    by_code("kincode:greedy", owner, images, 1)
    assert torch.equal(images.pixels, before[0])
    assert torch.equal(images.labels, before[1])
    del folder


def test_code_is_imported_only_when_it_is_named(folder: Path, images: ImageSet, owner: Net) -> None:
    with pytest.raises(UnsafeFileError, match="kincode:train is code, and it is imported only when you name it"):
        by_code("kincode:train", owner, images, 1)
    store = Store(folder / "store")
    for name, words in (
        ("kinbroken:f", "importing it raised ModuleNotFoundError"),
        ("kinabsent:f", "cannot be found"),
        ("nocolon", "package.module:function"),
    ):
        with pytest.raises(ModelwardError, match=words):
            made(name, images, owner, store)


# what is asked


def test_the_start_has_to_be_said(folder: Path, images: ImageSet, owner: Net) -> None:
    store = Store(folder / "store")
    for odd in ({"base": None}, {"base": owner, "start": owner}, {"base": "none", "start": owner}):
        with pytest.raises(UsageError, match="say where training began"):
            made("kincode:train", images, owner, store, **odd)
    with pytest.raises(UsageError, match="base is a network or 'none', not 'resnet'"):
        made("kincode:train", images, owner, store, base="resnet")
    for odd in ({"start": "none", "begin": owner}, {"start": "base"}):
        with pytest.raises(UsageError, match="nothing goes with 'none'"):
            plan("kincode:train", images, 2, model=owner, store=store, **odd)


# by a recipe


RECIPE = Recipe(epochs=2, batch=32, lr=0.05, precision="fp32")


def test_siblings_by_recipe_begin_at_the_base_or_anew(tmp_path: Path, hard: Study, original: Net) -> None:
    images, store = hard.owner.take(slice(96)), Store(tmp_path)
    still = dataclasses.replace(RECIPE, lr=1e-12, weight_decay=0.0)
    based = made(still, images, original, store, 2, base=original)
    assert (based.origin, based.start, based.start_digest) == ("recipe", "base", state_digest(original))
    for model in based.models:
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(model.parameters(), original.parameters(), strict=True))
    started = made(still, images, original, store, 2, base=None, start=original)
    assert started.start == "start"
    anew = made(still, images, original, store, 2)
    assert anew.start == "none"
    for model in anew.models:
        assert not any(
            torch.allclose(a, b, atol=1e-3) for a, b in zip(model.parameters(), original.parameters(), strict=True) if a.ndim > 1
        )
    assert not any(torch.equal(a, b) for a, b in zip(anew.models[0].parameters(), anew.models[1].parameters(), strict=True) if a.ndim > 1)
    assert {*based.seeds}.isdisjoint(anew.seeds)


def test_a_fresh_net_is_the_owners_without_his_weights(original: Net) -> None:
    made_new = fresh(original, rng=generator(0))
    assert {name: t.shape for name, t in made_new.state_dict().items()} == {name: t.shape for name, t in original.state_dict().items()}
    assert torch.equal(made_new.state_dict()["mean"], original.state_dict()["mean"])
    assert state_digest(made_new) != state_digest(original) != state_digest(fresh(original, rng=generator(1)))


def test_the_file_of_a_model_that_fit_trained_carries_its_recipe(tmp_path: Path, hard: Study) -> None:
    net = build("mlp:width=8", classes=3, channels=3, size=(8, 8), rng=generator(0))
    fit(net, hard.owner.pixels, hard.owner.labels, RECIPE, rng=generator(1))
    save_model(tmp_path / "m.safetensors", net)
    loaded = load_model(tmp_path / "m.safetensors")
    assert recipe_of(loaded.facts) == RECIPE
    from modelward.core.lineage import images_digest

    assert loaded.facts["images"] == images_digest(hard.owner.pixels, hard.owner.labels)
    changed = copy.deepcopy(net)
    with torch.no_grad():
        next(changed.parameters()).add_(1e-3)
    save_model(tmp_path / "n.safetensors", changed)
    assert recipe_of(load_model(tmp_path / "n.safetensors").facts) is None  # these weights, nobody trained so
    assert recipe_of({}) is None
    for odd in ("{", "[1]", '{"epochs": 3, "speed": 9}', '{"epochs": -1}'):
        with pytest.raises(InputError, match="carries a recipe that cannot be read"):
            recipe_of({"recipe": odd})


def test_matched_siblings_stop_where_they_know_as_much_as_the_owner(tmp_path: Path, hard: Study) -> None:
    owner = build("mlp:width=24", classes=3, channels=3, size=(8, 8), rng=generator(0))
    fit(owner, hard.owner.pixels, hard.owner.labels, Recipe(epochs=2, batch=32, lr=0.01, precision="fp32"), rng=generator(1))
    goal = accuracy(owner, hard.owner)
    store = Store(tmp_path)
    longer = Recipe(epochs=15, batch=32, lr=0.05, schedule="constant", precision="fp32")
    cells = plan(longer, hard.owner, 3, model=owner, store=store, matched=True, tuning=0)
    found = gathered(cells, Engine(store, jobs=1).run(cells.cells), store)
    plain = made(longer, hard.owner, owner, store)
    assert found.origin == "matched"
    gaps = [abs(accuracy(model, hard.owner) - goal) for model in found.models]
    assert sum(gaps) < sum(abs(accuracy(model, hard.owner) - goal) for model in plain.models)


def test_tuning_siblings_are_stolen_from_in_several_ways(tmp_path: Path, hard: Study, original: Net) -> None:
    cells = plan(
        RECIPE, hard.owner.take(slice(64)), 2, model=original, store=Store(tmp_path), tuning=5, thief_images=hard.attacker, test=hard.test
    )
    assert len(cells.thefts) == 20
    assert [sum(of == number for of, _, _ in cells.thefts) for number in range(5)] == [4] * 5
    assert {spec.method for _, spec, _ in cells.thefts} >= {
        "ftal",
        "ftll",
        "rtal",
        "prune",
        "prune-ft",
        "quantise",
        "extract-l",
        "extract-p",
    }
    assert len({cell.key for cell in cells.cells}) == 27
    assert not {id(cell) for cell in cells.ranked} & {id(cell.inputs["victim"]) for _, _, cell in cells.thefts}
