"""Siblings that are no draws: of another recipe, copies of each other, or useless. The guard catches gross errors, and lets honest families through."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from modelward.core.errors import FormatError, InputError
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.core.siblings import Siblings
from modelward.core.verdict import Decision
from modelward.data.study import Study
from modelward.models import Net, build
from modelward.ownership import SAC
from modelward.ownership.sibling_guard import Figures, behaviour, calibration_error, figures_of, near_copies, useless
from modelward.ownership.sibling_guard import odd_one_out as odd_rows


def odd_one_out(figures: Sequence[Figures], own: int) -> list[str]:
    """Return what the guard says of the five figures alone."""
    return odd_rows([one.values() for one in figures], own)


def noisy(model: Net, sigma: float, seed: int) -> Net:
    """Return a copy with Gaussian noise on every weight."""
    made, rng = copy.deepcopy(model), generator(seed)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(sigma * torch.randn(weight.shape, generator=rng))
    return made


def rescaled(model: Net, factor: float) -> Net:
    """Return a copy whose weights differ and whose answers do not: a hidden layer times a power of two, the next one divided by it."""
    made = copy.deepcopy(model)
    first, second = [layer for layer in made.modules() if isinstance(layer, nn.Linear)][:2]
    with torch.no_grad():
        first.weight.mul_(factor)
        first.bias.mul_(factor)
        second.weight.div_(factor)
    return made


def enrolled(model: nn.Module, family: Siblings | Sequence[nn.Module], parts: Study) -> Key:
    """Return a key."""
    return SAC(count=60).protect(model, parts.probes, siblings=family, rng=generator(0))[1]


def doubt(model: nn.Module, family: Siblings, parts: Study) -> str:
    """Return what a verdict on the model's own copy says first."""
    verdict = SAC(count=60).verify(noisy(model, 1e-3, 7), enrolled(model, family, parts))  # type: ignore[arg-type]
    return f"{verdict.decision.value}: {verdict.caveats[0]}"


# figures that are odd


def figures(right: int = 900, confidence: float = 0.8, error: float = 0.05) -> Figures:
    """Return figures of a model that answers 1,000 training images and 200 probes."""
    return Figures({"trained on": (right, 1000), "probes": (right // 5, 200)}, confidence, error, 1 / 3)


def test_an_owner_like_his_siblings_passes_and_another_recipe_does_not() -> None:
    drawn = [figures(900 + 5 * (i % 5), 0.8 + 0.01 * (i % 4), 0.05 + 0.01 * (i % 3)) for i in range(19)]
    assert odd_one_out([figures(907, 0.815, 0.06), *drawn], 0) == []
    for odd, what in (
        (figures(980, 0.815, 0.06), "accuracy"),
        (figures(907, 0.95, 0.06), "confidence"),
        (figures(907, 0.81, 0.3), "error"),
    ):
        (said,) = odd_one_out([*drawn[:5], odd, *drawn[5:]], 5)
        assert said.startswith("Uncalibrated: the siblings were not trained as your model was")
        assert what in said


def test_siblings_that_are_all_one_leave_no_room_for_another() -> None:
    assert odd_one_out([figures()] * 20, 0) == []
    assert odd_one_out([figures(confidence=0.81), *[figures()] * 19], 0) != []
    assert odd_one_out([figures(), figures(500)], 0) == []  # one sibling says nothing of how siblings vary


@pytest.mark.parametrize("siblings", [19, 59])
def test_of_own_recipe_the_guard_refuses_one_in_a_hundred(siblings: int) -> None:
    rng, refused, tries = generator(siblings), 0, 600
    for _ in range(tries):
        draws = torch.randn(siblings + 1, 4, generator=rng).tolist()
        family = [
            Figures({"trained on": (round(900 + 12 * a), 1000), "probes": (round(150 + 6 * b), 200)}, 0.8 + 0.01 * c, 0.05 + 0.01 * d, 0.1)
            for a, b, c, d in draws
        ]
        refused += bool(odd_one_out(family, 0))
    assert refused <= 14  # 6 are to be expected; more than 14 in one of a thousand runs


def test_holm_needs_more_of_the_smallest_of_many_figures() -> None:
    drawn = [figures(confidence=0.8 + 0.01 * (i % 5 - 2)) for i in range(19)]
    level = next(c for c in (i / 1000 for i in range(800, 900)) if odd_one_out([figures(confidence=c), *drawn], 0))
    alone = [dataclasses.replace(one, right={}, error=0.0) for one in drawn]
    single = next(c for c in (i / 1000 for i in range(800, 900)) if odd_one_out([dataclasses.replace(alone[0], confidence=c), *alone], 0))
    assert single < level


def test_useless_siblings_are_named_with_the_number_that_is_missing() -> None:
    good, chance = [figures()] * 17, [figures(350)] * 3
    (said,) = useless([*good, *chance], 0)
    assert said.startswith("3 of the 19 siblings answer fewer than 62% of the images rightly: 16 are left, 19 are needed, 3 are missing.")
    assert "train again" in said
    assert useless([figures()] * 20, 0) == []


def test_figures_of_a_model_and_their_way_back(mlp_victim: Net, parts: Study) -> None:
    told = figures_of(mlp_victim, {"trained on": parts.owner, "probes": parts.probes, "held out": None})
    assert set(told["right"]) == {"trained on", "probes"}
    assert told["right"]["trained on"][1] == len(parts.owner)
    assert 1 / 3 < told["confidence"] <= 1
    assert told["chance"] == pytest.approx(1 / 3)
    found = Figures.of({"figures": told})
    assert set(found.values()) == {"accuracy on trained on", "accuracy on probes", "mean confidence", "calibration error"}
    assert calibration_error(torch.ones(4), torch.tensor([True] * 4)) == 0.0
    for odd in (None, {}, {"right": {"probes": [3, 2]}}, {"right": {"probes": []}}, {"confidence": "high"}, {"error": float("nan")}):
        changed: Any = {"figures": odd if odd is None else {**told, **odd} if odd else odd}
        with pytest.raises(FormatError, match="enrol the model again"):
            Figures.of(changed)


# copies


def test_honest_siblings_pass(original: Net, kin: Siblings, hard: Study) -> None:
    assert doubt(original, kin, hard).startswith("related: ")


def test_siblings_of_another_recipe_are_refused(original: Net, kin: Siblings, hard: Study, train_net: Any) -> None:
    longer = tuple(train_net("mlp:width=24", hard.owner, 700 + i, epochs=15) for i in range(19))
    key = enrolled(original, dataclasses.replace(kin, models=longer), hard)
    verdict = SAC().verify(noisy(original, 1e-3, 7), key)
    assert verdict.decision is Decision.UNDECIDED
    assert any(said.startswith("Uncalibrated: the siblings were not trained as your model was") for said in verdict.caveats)


def test_equal_weights_are_refused_with_the_number_that_is_missing(original: Net, kin: Siblings, hard: Study) -> None:
    twice = [*kin.models[:17], copy.deepcopy(kin.models[0]), copy.deepcopy(original)]
    with pytest.raises(InputError, match=r"2 of the 19 siblings have the weights of another one .*17 differ, 19 are needed: 2 are missing"):
        enrolled(original, twice, hard)


def test_equal_answers_are_refused_though_the_weights_differ(original: Net, kin: Siblings, hard: Study) -> None:
    models = (*kin.models[:16], *(rescaled(original, 2.0**power) for power in (1, 2, 3)))  # type: ignore[arg-type]
    said = doubt(original, dataclasses.replace(kin, models=models), hard)
    assert "3 of the 19 siblings answer exactly as another one: 16 are left, 19 are needed, 3 are missing" in said
    assert said.startswith("undecided")


@pytest.mark.parametrize(("of", "sigma"), [("a sibling", 1e-4), ("a sibling", 1e-3), ("the owner's model", 1e-4)])
def test_one_net_nineteen_times_with_noise_is_refused(of: str, sigma: float, original: Net, kin: Siblings, hard: Study) -> None:
    one: Any = kin.models[0] if of == "a sibling" else original
    models = tuple(noisy(one, sigma, seed) for seed in range(19))
    assert "undecided: Near copies" in doubt(original, dataclasses.replace(kin, models=models), hard)


def test_one_near_copy_among_siblings_is_refused(original: Net, kin: Siblings, hard: Study) -> None:
    for place, who in ((0, "two siblings"), (None, "a sibling and the owner's model")):
        near = noisy(original if place is None else kin.models[place], 1e-3, 3)  # type: ignore[arg-type]
        said = doubt(original, dataclasses.replace(kin, models=(*kin.models[:18], near)), hard)
        assert f"Near copies: {who} answer" in said


def test_a_sibling_that_was_fine_tuned_from_another_stands_out_and_an_uneven_family_does_not() -> None:
    rng = generator(8)
    members = [{"digest": str(i)} for i in range(20)]
    shared = 3 * torch.randn(60, 4, generator=rng)
    even = shared + torch.randn(20, 60, 4, generator=rng)
    assert near_copies(members, even, 0) == []
    tuned = even.clone()
    tuned[7] = even[3] + 0.55 * torch.randn(60, 4, generator=rng)  # half as far from the third as siblings are from each other
    assert near_copies(members, tuned, 0)[0].startswith("Near copies: two siblings answer")
    uneven = shared + torch.linspace(0.5, 2.0, 20)[:, None, None] * torch.randn(20, 60, 4, generator=rng)
    assert near_copies(members, uneven, 0) == []


def test_siblings_that_are_nearer_to_each_other_than_to_the_owners_model_are_refused() -> None:
    rng = generator(9)
    answers = 3 * torch.randn(60, 4, generator=rng) + torch.randn(20, 60, 4, generator=rng)
    answers[1:] = answers[1] + 0.6 * torch.randn(19, 60, 4, generator=rng)
    (said,) = odd_rows(behaviour({"clean_answers": answers}, 20), 0)
    assert "distance to the others" in said


def test_untrained_siblings_are_refused(original: Net, kin: Siblings, hard: Study) -> None:
    fresh = tuple(build("mlp:width=24", classes=3, channels=3, size=(8, 8), rng=generator(i)) for i in range(19))
    assert doubt(original, dataclasses.replace(kin, models=fresh), hard).startswith("undecided: ")
    key = enrolled(original, dataclasses.replace(kin, models=(*kin.models[:14], *fresh[:5])), hard)
    assert any("siblings answer fewer than" in said for said in SAC().verify(original, key).caveats)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start": "unsaid"}, "Nobody said where training began"), ({"origin": "matched"}, "fitted to the owner's accuracy"),
        ({"smoke": True}, "it decides nothing"),
    ],
)  # fmt: skip
def test_words_that_decide_nothing(changes: dict[str, Any], words: str, original: Net, kin: Siblings, hard: Study) -> None:
    said = doubt(original, dataclasses.replace(kin, **changes), hard)
    assert said.startswith("undecided: ")
    assert words in said


def test_siblings_that_the_owner_brought_are_weak_evidence(original: Net, kin: Siblings, hard: Study) -> None:
    key = enrolled(original, dataclasses.replace(kin, origin="models", start="base"), hard)
    verdict = SAC().verify(noisy(original, 1e-3, 7), key)
    assert verdict.strength == "weak"
    assert verdict.headlines[1] == "By the owner's word training began at a public network, and so did every sibling."
    assert verdict.headlines[2] == "The owner chose the siblings: nothing shows that none was left out."


def test_answers_that_are_equal_to_a_millionth_are_one() -> None:
    rng = generator(0)
    answers = 3 * torch.randn(20, 50, 3, generator=rng, dtype=torch.float64)
    members = [{"digest": str(i)} for i in range(20)]
    assert near_copies(members, answers, 0) == []
    answers[5] = answers[4] + 1e-9 * torch.randn(50, 3, generator=rng, dtype=torch.float64)
    assert "1 of the 19 siblings answer exactly as another one: 18 are left" in near_copies(members, answers, 0)[0]
    assert "the same weights" in near_copies([{"digest": "0"}] * 20, answers, 0)[0]


def test_a_quirk_on_the_methods_own_probes_alone_is_seen() -> None:
    rng = generator(4)
    answers = torch.randn(20, 50, 4, generator=rng)
    rows = behaviour({"answers": answers, "clean_answers": answers, "labels": torch.zeros(50), "probes": torch.zeros(20, 3)}, 20)
    shares = {f"share of class {number}" for number in range(4)}
    on_probes = {"confidence", "entropy", "distance to the others", "share of the commonest answer", "accuracy", *shares}
    assert set(rows[0]) == {"size of probes", "distance to the others", *(f"{what} on the method's probes" for what in on_probes)}
    assert set(behaviour({"answers": answers}, 20)[0]) == {f"{what} on the method's probes" for what in on_probes - {"accuracy"}}
    assert odd_rows(rows, 3) == []
    surer = answers.clone()
    surer[torch.arange(20) != 3] *= 1.5  # every sibling is surer there than the owner's model
    (said,) = odd_rows(behaviour({"answers": surer}, 20), 3)
    assert "on the method's probes" in said
    heavier = torch.randn(20, 6, 5, generator=rng)
    heavier[3] *= 1.6
    (said,) = odd_rows(behaviour({"weight/fc": heavier}, 20), 3)
    assert "size of weight/fc" in said


def test_honest_families_pass_whatever_is_looked_at() -> None:
    rng = generator(5)
    refused = sum(
        bool(odd_rows(behaviour({"answers": torch.randn(20, 60, 4, generator=rng), "w": torch.randn(20, 30, generator=rng)}, 20), 0))
        for _ in range(300)
    )
    assert refused <= 9  # .01 of 300, and two standard errors and a half
