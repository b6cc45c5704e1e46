from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from modelward.core import progress
from modelward.core.guard import state_digest
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.models import build
from modelward.training import Recipe, accuracy, fit
from modelward.training.average import Average


class Point(nn.Module):
    """One weight and one integer buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


@given(st.floats(0.01, 0.999), st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=30))
def test_the_average_by_hand(decay: float, path: list[float]) -> None:
    point, average, want = Point(), Average(decay), 0.0
    for step, value in enumerate(path, start=1):
        with torch.no_grad():
            point.w.fill_(value)
            point.count.fill_(step)
        average.update(point)
        keep = min(decay, step / (step + 10))
        want = value if step == 1 else keep * want + (1 - keep) * value
    assert float(average.shadow["w"]) == pytest.approx(want, abs=1e-4)
    assert int(average.shadow["count"]) == len(path)  # counters are copied, not averaged
    assert min(path) - 1e-5 <= float(average.shadow["w"]) <= max(path) + 1e-5


def test_without_decay_there_is_no_average() -> None:
    point, average = Point(), Average(0.0)
    average.update(point)
    with average.applied(point) as nothing:
        assert nothing is None
    average.settle(point)
    assert (average.shadow, average.best, average.updates) == ({}, {}, 0)


def test_the_average_is_lent_and_taken_back() -> None:
    point, average = Point(), Average(0.9)
    average.shadow = {"w": torch.tensor(5.0), "count": torch.tensor(1)}

    def fail() -> None:
        with average.applied(point):
            assert float(point.w.detach()) == 5.0
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert float(point.w.detach()) == 0.0


def test_the_first_of_equally_good_epochs_is_kept() -> None:
    point, average = Point(), Average(0.0, keep_best=True)
    for value, score in ((1.0, 0.5), (2.0, 0.7), (3.0, 0.7), (4.0, 0.6), (5.0, None)):
        point.w.data.fill_(value)
        average.note(point, score)
    average.settle(point)
    assert (float(point.w.detach()), average.best_score) == (2.0, 0.7)


class Weights:
    """A listener that keeps the weights of every epoch."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.digests = model, []

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        del task, done, total, note
        self.digests.append(state_digest(self.model))


def test_training_with_an_average_walks_the_same_path(train: ImageSet, test: ImageSet) -> None:
    recipe = Recipe(epochs=3, batch=16, lr=0.05, precision="fp32", patience=3)
    plain, averaged = (build("cnn:width=4", classes=2, size=(8, 8), rng=generator(3)) for _ in range(2))
    seen = []
    for model, chosen in ((plain, recipe), (averaged, dataclasses.replace(recipe, ema=0.8))):
        listener = Weights(model)
        with progress.listening(listener):
            log = fit(model, train.pixels, train.labels, chosen, rng=generator(0), validation=test)
        seen.append(listener.digests)
    assert seen[0] == seen[1]  # the average never feeds back
    assert state_digest(averaged) not in seen[1]
    assert accuracy(averaged, test) == max(epoch.accuracy for epoch in log)  # what validation saw is what comes back


def test_the_average_of_a_model_that_stands_still_is_the_model(train: ImageSet) -> None:
    recipe = Recipe(epochs=2, batch=32, lr=1e-30, weight_decay=0.0, ema=0.9, precision="fp32")
    model = build("mlp:width=8", classes=2, size=(8, 8), rng=generator(3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fit(model, train.pixels, train.labels, recipe, rng=generator(0))
    assert all(torch.allclose(tensor, before[name], rtol=1e-6) for name, tensor in model.state_dict().items())
