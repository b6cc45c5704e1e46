"""Seeds of siblings are recomputed from the digests that the key names: none is chosen, none left out."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.truth.simulation import CLASSES, HIDDEN, SHAPE, net

from modelward.core.deciding import SAME, UNDATED
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.core.siblings import Failed, Siblings, sibling_seed
from modelward.core.suspect import Suspect
from modelward.core.verdict import Verdict
from modelward.ownership import SAC, SACJC
from modelward.ownership.candidates import CHOSEN, SEEDS

RNG = generator(3)
SHARED = [torch.randn(HIDDEN, 64, generator=RNG), torch.randn(CLASSES, HIDDEN, generator=RNG)]
PIXELS = torch.randint(0, 256, (80, *SHAPE), generator=RNG, dtype=torch.uint8)
IMAGES = ImageSet(PIXELS, predict(net(SHARED), PIXELS).argmax(1), tuple("abcd"), "noise")
OWNER, *MODELS = (net([part + 0.5 * torch.randn(part.shape, generator=RNG) for part in SHARED]) for _ in range(20))


def seeds(*numbers: int, root: str | None = None) -> tuple[int, ...]:
    return tuple(sibling_seed(root or state_digest(OWNER), IMAGES.digest, "cc", None, number) for number in numbers)


def verdict(**changes: object) -> Verdict:
    """Return what a key with these siblings says of the owner's model itself."""
    family = {
        "models": tuple(MODELS),
        "origin": "code",
        "start": "none",
        "code": "cc",
        "images": IMAGES,
        "seeds": seeds(*range(1, 20)),
        **changes,
    }
    _, key = SAC(count=40).protect(OWNER, IMAGES, siblings=Siblings(**family), rng=generator(0))  # type: ignore[arg-type]
    return SAC().judge(SAC().observe(OWNER, key), key)


def test_derived_seeds_are_believed() -> None:
    found = verdict()
    assert SEEDS not in found.caveats
    assert CHOSEN not in found.headlines


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": (*seeds(*range(1, 19)), 7)},
        {"seeds": seeds(*range(2, 21))},
        {"code": "another"},
        {"seeds": seeds(*range(1, 20), root="another model")},
        {"seeds": seeds(*range(1, 20)), "failed": (Failed(20, 7, "it crashed"),)},
    ],
    ids=["one was chosen", "one was left out", "of other code", "of another model", "one that failed was chosen"],
)
def test_other_seeds_decide_nothing(changes: dict[str, object]) -> None:
    found = verdict(**changes)
    assert found.decision.value == "undecided"
    assert SEEDS in found.caveats


def test_a_sibling_that_failed_has_its_number() -> None:
    (seed,) = seeds(20)
    assert SEEDS not in verdict(failed=(Failed(20, seed, "it crashed"),)).caveats


def test_without_seeds_the_owner_chose_the_siblings() -> None:
    assert CHOSEN in verdict(seeds=()).headlines
    planned = verdict(seeds=seeds(*range(1, 20), root="a plan"), root="a plan")
    assert CHOSEN in planned.headlines
    assert SEEDS not in planned.caveats


def test_a_key_that_forgets_a_seed_is_worth_less() -> None:
    _, key = SAC(count=40).protect(
        OWNER, IMAGES, rng=generator(0),
        siblings=Siblings(models=tuple(MODELS), origin="code", start="none", code="cc", images=IMAGES, seeds=seeds(*range(1, 20))),
    )  # fmt: skip
    draws = key.facts["draws"]
    members = [{**member, "seed": None} if place == (draws["own"] + 1) % 20 else member for place, member in enumerate(draws["members"])]
    forgetful = Key(key.method, key.variant, key.model_digest, {**key.facts, "draws": {**draws, "members": members}}, key.tensors)
    assert CHOSEN in SAC().judge(SAC().observe(OWNER, forgetful), forgetful).headlines


def family() -> Siblings:
    return Siblings(models=tuple(MODELS), origin="code", start="none", code="cc", images=IMAGES, seeds=seeds(*range(1, 20)))


@pytest.mark.parametrize("method", [SAC(count=40), SACJC(count=40)], ids=["sac", "sac-jc"])
def test_an_enrolment_has_nothing_to_be_tried_again(method: SAC) -> None:
    keys = [method.protect(OWNER, IMAGES, siblings=family(), rng=generator(seed))[1] for seed in (1, 2)]
    assert all(torch.equal(keys[0].tensors[name], keys[1].tensors[name]) for name in keys[0].tensors)


@pytest.mark.parametrize("access", ["label", "probabilities", "weights"])
def test_the_model_of_the_key_itself_shows_nothing_of_whose_it_is(access: str) -> None:
    _, key = SAC(count=40).protect(OWNER, IMAGES, siblings=family(), rng=generator(0))
    found = SAC().verify(Suspect.of_model(OWNER, access=access), key)
    assert (found.decision.value, found.caveats[0]) == ("undecided", SAME)
    assert found.fits


def test_a_relation_without_a_date_says_first_what_p_does_not_count() -> None:
    _, key = SAC(count=40).protect(OWNER, IMAGES, siblings=family(), rng=generator(0))
    copy_of_it = copy.deepcopy(OWNER)
    with torch.no_grad():
        copy_of_it[3].weight.mul_(0.9)
    found = SAC().verify(copy_of_it, key)
    assert (found.decision.value, found.headlines[0]) == ("related", UNDATED)
