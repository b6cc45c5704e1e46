"""Forward passes are shared, and robust accuracy is what attacking image by image would give."""

import pytest
import torch
from torch import nn

from modelward import FGSM, PGD
from modelward.core.guard import predict, state_digest
from modelward.core.rng import generator
from modelward.evaluation import remembering
from modelward.evaluation.remembering import Remembering
from modelward.evaluation.robustness import robust_under


class Counting(nn.Module):
    """A model that counts the images it is asked about."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.images = inner, 0

    def forward(self, x):
        self.images += len(x)
        return self.inner(x)


@pytest.fixture(autouse=True)
def _forgotten():
    remembering._ANSWERS.clear()
    yield
    remembering._ANSWERS.clear()


def test_the_same_batch_is_computed_once_and_another_model_is_not_mistaken_for_it(victim, mlp_victim, parts):
    counted = Counting(victim)
    model, other = Remembering(counted, state_digest(victim)), Remembering(mlp_victim, state_digest(mlp_victim))
    pixels = parts.test.pixels[:64]
    first = predict(model, pixels)
    assert torch.equal(first, predict(victim, pixels))
    assert torch.equal(first, predict(model, pixels))
    assert counted.images == 64
    assert torch.equal(predict(other, pixels), predict(mlp_victim, pixels))
    predict(model, parts.test.pixels[64:96])
    assert counted.images == 96


def test_memory_is_capped_and_the_oldest_answers_go_first(victim, parts, monkeypatch):
    monkeypatch.setattr(remembering, "CAP_BYTES", 3 * 8 * 3 * 4)
    counted = Counting(victim)
    model = Remembering(counted, "d")
    for start in (0, 8, 16, 24):
        predict(model, parts.test.pixels[start : start + 8])
    assert len(remembering._ANSWERS) == 3
    predict(model, parts.test.pixels[24:32])
    assert counted.images == 32
    predict(model, parts.test.pixels[:8])
    assert counted.images == 40


@pytest.mark.parametrize(
    "method", [PGD(eps=0.05, step=0.0125, steps=6), PGD(eps=0.05, step=0.0125, steps=6, early_stop=False), FGSM(eps=0.05)]
)
def test_robust_accuracy_counts_errors_as_lost_and_only_attacks_the_rest(victim, parts, method):
    counted = Counting(victim)
    found = robust_under(method, counted, parts.test, rng=generator(0))
    correct = predict(victim, parts.test.pixels).argmax(1) == parts.test.labels
    assert torch.equal(found.correct, correct)
    assert not (found.robust & ~correct).any()
    assert not (found.robust_8bit & ~correct).any()
    assert 0 < found.worst <= 0.05 + 1e-6
    again = robust_under(method, victim, parts.test, rng=generator(0), correct=correct)
    assert torch.equal(again.robust, found.robust)


def test_no_budget_leaves_the_clean_accuracy(victim, parts):
    found = robust_under(FGSM(eps=0.0), victim, parts.test, rng=generator(0))
    assert torch.equal(found.robust, found.correct)
    assert torch.equal(found.robust_8bit, found.correct)
