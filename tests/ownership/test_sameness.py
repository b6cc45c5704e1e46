"""The very model that a key names is known by its answers, however they came; another one, as near as thieves are, is not taken for it."""

from __future__ import annotations

import pytest
import torch
from tests.truth.simulation import CLASSES, HIDDEN, SHAPE, net
from torch import Tensor

from modelward.core.deciding import SAME
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.core.siblings import Siblings
from modelward.core.suspect import Suspect
from modelward.io.answers import described
from modelward.ownership import SAC, SACJC, IPGuard
from modelward.ownership.sameness import same_labels, same_probabilities

RNG = generator(6)
SHARED = [torch.randn(HIDDEN, 64, generator=RNG), torch.randn(CLASSES, HIDDEN, generator=RNG)]
PIXELS = torch.randint(0, 256, (100, *SHAPE), generator=RNG, dtype=torch.uint8)
IMAGES = ImageSet(PIXELS, predict(net(SHARED), PIXELS).argmax(1), tuple("abcd"), "noise")
WEIGHTS = [[part + 0.5 * torch.randn(part.shape, generator=RNG) for part in SHARED] for _ in range(20)]
OWNER, *MODELS = map(net, WEIGHTS)


def key_of(method: SAC | IPGuard) -> Key:
    return method.protect(OWNER, IMAGES, siblings=Siblings(models=tuple(MODELS), start="none"), rng=generator(0))[1]


def rounded(digits: int, top: int | None = None) -> Tensor:
    """Return what a service answers for the owner's model: rounded, and the best few classes alone."""
    exact = predict(OWNER, KEY.tensor("probes")).softmax(1)
    if top is not None:
        exact = exact.masked_fill(exact < exact.topk(top, 1).values[:, -1:], 0)
    return torch.from_numpy(described((exact * 10**digits).round().div(10**digits).numpy()).table)


KEY = key_of(SACJC(count=60))


@pytest.mark.parametrize(("digits", "top"), [(4, None), (3, None), (2, None), (1, None), (3, 2), (3, 1)])
def test_a_service_that_rounds_or_gives_the_best_few_is_still_the_model_itself(digits: int, top: int | None) -> None:
    found = SACJC().verify(Suspect.of_answers(rounded(digits, top)), KEY)
    assert (found.decision.value, found.caveats[0]) == ("undecided", SAME), str(found)


def test_whoever_enrols_the_suspects_own_model_gets_no_relation_from_crafted_points() -> None:
    method = IPGuard(count=50, steps=150, k=0.05, lr=0.05, pool=2, target="random")
    found = method.verify(Suspect.of_model(OWNER, access="label"), key_of(method))
    assert found.fits
    assert (found.decision.value, found.caveats[0]) == ("undecided", SAME)


@pytest.mark.parametrize("access", ["probabilities", "label"])
def test_a_thief_is_not_taken_for_the_model_itself(access: str) -> None:
    rng = generator(9)
    thief = net([part + 0.15 * part.std() * torch.randn(part.shape, generator=rng) for part in WEIGHTS[0]])
    assert SACJC().verify(Suspect.of_model(thief, access=access), KEY).decision.value == "related"


def test_other_models_are_told_apart_and_odd_answers_are_nobodys() -> None:
    mine = predict(OWNER, KEY.tensor("probes"))
    for other in MODELS:
        theirs = predict(other, KEY.tensor("probes"))
        assert not same_probabilities(theirs.softmax(1), mine)
        assert not same_labels(theirs.argmax(1), mine)
    assert same_probabilities(mine.softmax(1), mine)
    assert not same_probabilities(mine.softmax(1)[:, :3], mine)
    assert not same_probabilities(torch.full_like(mine, torch.nan), mine)
    flat = torch.zeros(20, 4)
    assert not same_labels(torch.zeros(20, dtype=torch.int64), flat)  # a model that never prefers a class has no labels of its own


def test_sure_answers_do_not_pass_for_rounded_ones() -> None:
    logits = torch.zeros(60, 4)
    logits[:, 0] = 12
    logits[:8, 1] = torch.linspace(9, 12, 8)
    moved = logits.clone()
    moved[:8, 1] -= 0.2
    assert same_probabilities(logits.softmax(1), logits)
    assert not same_probabilities(moved.softmax(1), logits)
