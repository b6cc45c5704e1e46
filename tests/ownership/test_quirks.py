"""Siblings with a quirk that the owner's model lacks: an owner who trains them so makes himself the odd one out, and gross ones have to be seen.

What the guard cannot see, `docs/decisions/0020-p-over-the-owners-randomness.md` tells: `evidence check --retrain` is the answer to it.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from tests.truth.quirks import QUIRKS, Quirk, enrolled, one_class

from modelward.ownership import SAC, SACJC


def refused(seed: int, method: SAC, quirk: Quirk | None) -> bool:
    """Return whether the guard refuses the siblings, asked with a copy of the owner's model that is a little less sure."""
    key, owner, _ = enrolled(seed, method, quirk)
    thief = copy.deepcopy(owner)
    with torch.no_grad():
        list(thief.parameters())[-1].mul_(0.8)
    verdict = method.verify(thief, key)
    found = any(caveat.startswith("Uncalibrated") for caveat in verdict.caveats)
    assert not found or verdict.decision.value == "undecided"
    return found


@pytest.mark.parametrize("name", ["four times as sure", "a quarter as sure"])
def test_siblings_with_a_gross_quirk_on_the_methods_probes_decide_nothing(name: str) -> None:
    assert all(refused(seed, SACJC(count=100), QUIRKS[name]) for seed in range(5))


def test_a_quirk_in_what_is_answered_is_seen_more_often_than_in_honest_families() -> None:
    assert (
        sum(refused(seed, SACJC(count=100), one_class) for seed in range(40)) >= 4
    )  # .01 of 40 honest ones would be: 4 come once in 1,400


@pytest.mark.parametrize("method", [SAC(count=60), SACJC(count=60)], ids=["sac", "sac-jc"])
def test_honest_families_are_refused_at_the_nominal_share(method: SAC) -> None:
    count = 60
    share = sum(refused(100 + seed, method, None) for seed in range(count)) / count
    assert share <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / count)
