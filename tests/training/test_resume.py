"""The same seed gives the same bits, and so does a run that was killed and went on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from modelward.core import progress
from modelward.core.errors import FormatError
from modelward.core.guard import state_digest
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.io.safetensors import load_tensors, save_tensors
from modelward.models import build
from modelward.training import Epoch, Recipe, fit

PLAIN = Recipe(epochs=4, batch=32, lr=0.05, precision="fp32")
RECIPES = {
    "sgd": PLAIN,
    "adam": dataclasses.replace(PLAIN, optimizer="adam", lr=0.01),
    "no momentum": dataclasses.replace(PLAIN, momentum=0.0),
    "ema": dataclasses.replace(PLAIN, ema=0.9),
    "early stop": dataclasses.replace(PLAIN, patience=2, epochs=6),
    "early stop with ema": dataclasses.replace(PLAIN, patience=2, ema=0.9),
    "mixing": dataclasses.replace(PLAIN, mixup=0.2, cutmix=1.0, flip=True, crop=2, label_smoothing=0.1),
    "bf16": dataclasses.replace(PLAIN, precision="bf16"),
}


class Killed(BaseException):
    """What a kill looks like from inside."""


class KillAfter:
    """A listener that stops the run after ``number`` epochs, before the last of them is written."""

    def __init__(self, number: int) -> None:
        self.number = number

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        del task, total, note
        if done == self.number:
            raise Killed


def net(arch: str = "cnn:width=4") -> nn.Module:
    return build(arch, classes=2, size=(8, 8), rng=generator(3))


def train_once(model: nn.Module, images: ImageSet, held: ImageSet, recipe: Recipe, seed: int = 7, **more: Any) -> list[Epoch]:
    validation = held if recipe.patience else None
    return fit(model, images.pixels, images.labels, recipe, rng=generator(seed), validation=validation, **more)


@pytest.mark.parametrize("name", RECIPES)
def test_one_seed_one_result(name: str, train: ImageSet, test: ImageSet) -> None:
    one, other, third = net(), net(), net()
    log = train_once(one, train, test, RECIPES[name])
    torch.rand(11)  # the global generator plays no part
    assert train_once(other, train, test, RECIPES[name]) == log
    assert state_digest(one) == state_digest(other)
    train_once(third, train, test, RECIPES[name], seed=8)
    assert state_digest(third) != state_digest(one)


def test_training_leaves_the_global_generator_alone(train: ImageSet, test: ImageSet) -> None:
    before = torch.get_rng_state()
    train_once(net(), train, test, RECIPES["mixing"])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("arch", ["cnn:width=4", "resnet8:width=4"])
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("killed_after", [2, 3])
def test_a_killed_run_goes_on_bit_for_bit(name: str, arch: str, killed_after: int, train: ImageSet, test: ImageSet, tmp_path: Path) -> None:
    path, whole, parts = tmp_path / "run.safetensors", net(arch), net(arch)
    log = train_once(whole, train, test, RECIPES[name])
    with pytest.raises(Killed), progress.listening(KillAfter(killed_after)):
        train_once(parts, train, test, RECIPES[name], checkpoint=path)
    again = net(arch)  # a new process begins with new weights
    assert train_once(again, train, test, RECIPES[name], checkpoint=path) == log
    assert state_digest(again) == state_digest(whole)


def test_many_kills(train: ImageSet, test: ImageSet, tmp_path: Path) -> None:
    path, whole, recipe = tmp_path / "run.safetensors", net(), RECIPES["early stop with ema"]
    log = train_once(whole, train, test, recipe)
    for epoch in range(1, len(log) + 1):
        with pytest.raises(Killed), progress.listening(KillAfter(epoch)):
            train_once(net(), train, test, recipe, checkpoint=path)
    again = net()
    assert train_once(again, train, test, recipe, checkpoint=path) == log
    assert state_digest(again) == state_digest(whole)


def test_a_finished_run_is_not_run_again(train: ImageSet, test: ImageSet, tmp_path: Path) -> None:
    for name in ("ema", "early stop"):
        path, one, other = tmp_path / name, net(), net()
        log = train_once(one, train, test, RECIPES[name], checkpoint=path)
        with progress.listening(KillAfter(len(log))):  # would stop any further epoch
            assert train_once(other, train, test, RECIPES[name], checkpoint=path) == log
        assert state_digest(one) == state_digest(other)
        assert not other.training


@pytest.mark.parametrize("other", ["seed", "recipe", "images", "labels"])
def test_the_checkpoint_of_another_run_is_ignored(other: str, train: ImageSet, test: ImageSet, tmp_path: Path) -> None:
    path, alone, beside = tmp_path / "run.safetensors", net(), net()
    changed = {
        "images": dataclasses.replace(train, pixels=255 - train.pixels),
        "labels": dataclasses.replace(train, labels=1 - train.labels),
    }
    recipe = dataclasses.replace(PLAIN, lr=0.02) if other == "recipe" else PLAIN
    train_once(net(), changed.get(other, train), test, recipe, seed=1 if other == "seed" else 2, checkpoint=path)
    log = train_once(alone, train, test, PLAIN, seed=2)
    assert train_once(beside, train, test, PLAIN, seed=2, checkpoint=path) == log
    assert state_digest(alone) == state_digest(beside)


def test_frozen_layers_resume_too(train: ImageSet, test: ImageSet, tmp_path: Path) -> None:
    def partly() -> nn.Module:
        model = net()
        for parameter in model.body[:6].parameters():
            parameter.requires_grad_(False)
        return model

    path, whole, again = tmp_path / "run.safetensors", partly(), partly()
    train_once(whole, train, test, PLAIN)
    with pytest.raises(Killed), progress.listening(KillAfter(2)):
        train_once(partly(), train, test, PLAIN, checkpoint=path)
    train_once(again, train, test, PLAIN, checkpoint=path)
    assert state_digest(again) == state_digest(whole)


def test_a_checkpoint_leaves_no_rubbish(train: ImageSet, test: ImageSet, tmp_path: Path) -> None:
    train_once(net(), train, test, PLAIN, checkpoint=tmp_path / "run.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]


@pytest.mark.parametrize(
    ("facts", "gone"),
    [("{", ""), ("[]", ""), ("null", ""), ("[" * 100_000, ""), ({"log": None}, ""), ({"log": [[1]]}, ""), ({"updates": "many"}, ""), ({}, "model/"),
     ({}, "shape")],
)  # fmt: skip
def test_a_malformed_checkpoint_gives_one_sentence(
    facts: str | dict[str, Any], gone: str, train: ImageSet, test: ImageSet, tmp_path: Path
) -> None:
    path = tmp_path / "run.safetensors"
    train_once(net(), train, test, PLAIN, checkpoint=path)
    tensors, metadata = load_tensors(path)
    if isinstance(facts, dict):
        facts = json.dumps(json.loads(metadata["training"]) | facts)
    if gone == "shape":
        tensors = {name: torch.zeros(2, 3, 4) if name.startswith("optimizer/") else tensor for name, tensor in tensors.items()}
    elif gone:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(gone)}
    save_tensors(path, tensors, {**metadata, "training": facts})
    with pytest.raises(
        FormatError, match=r"run\.safetensors is no checkpoint that training can go on from .*; remove it to begin anew"
    ) as caught:
        train_once(net(), train, test, PLAIN, checkpoint=path)
    assert "\n" not in str(caught.value)
