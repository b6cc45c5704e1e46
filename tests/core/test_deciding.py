"""From a finding to a verdict: every branch of the one rule that all methods share."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelward.core.commitment import Commitment
from modelward.core.deciding import CAVEATS, DIRECTION, SAME, THIEVES, UNCOMMITTED, UNDATED, UNSHOWN, Finding, Standing, decide, strength
from modelward.core.errors import UsageError
from modelward.core.siblings import Siblings, TuningThief
from modelward.core.verdict import ALPHA, Decision, Misses, Verdict

FAR = tuple(0.5 + i / 100 for i in range(19))
FITS = Finding(0.1, "distance", FAR)
FITS_NOT = Finding(0.505, "distance", FAR)  # one of 19 is nearer: p = .1
KNOWN = Misses(0, 14)
PLAIN = Standing("sac", "hardened", forgeable=False, access="label", queries=100)
DATED = Commitment("00" * 32, "publication", "2026-01-01T00:00:00+00:00", "a gazette", "2026-02-01")
numbers = st.floats(-10, 10) | st.sampled_from([0.0, 1.0]) | st.just(math.nan)


def of(found: Finding = FITS, **changes: object) -> Verdict:
    """Return the verdict on a finding, the plain case changed."""
    return decide(found, dataclasses.replace(PLAIN, **changes))


def exact(p: float, **changes: object) -> Finding:
    """Return a finding whose distribution is known."""
    return Finding(0.1, "bits", exact=p, draws_of="exact distribution", **changes)  # type: ignore[arg-type]


# the p-value


def test_p_is_a_rank_and_ties_count_against_the_owner() -> None:
    assert FITS.p == 1 / 20
    assert Finding(FAR[0], "d", FAR).p == 2 / 20
    assert Finding(0.1, "d", (0.1,) * 19).p == 1.0
    assert Finding(0.1, "d").p is None


@given(numbers, st.lists(numbers, min_size=1, max_size=40))
def test_p_is_in_the_half_open_unit_interval(mine: float, others: list[float]) -> None:
    p = Finding(mine, "d", tuple(others)).p
    assert p is not None
    assert 1 / (len(others) + 1) <= p <= 1
    if math.isnan(mine):
        assert p == 1


@given(numbers, st.lists(numbers, min_size=1, max_size=40), st.data())
def test_ties_and_what_is_no_number_never_help(mine: float, others: list[float], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(others) - 1))
    before = Finding(mine, "d", tuple(others)).p
    for worse in (mine, math.nan, -math.inf):
        others[place] = worse
        after = Finding(mine, "d", tuple(others)).p
        assert before is not None
        assert after is not None
        assert after >= before


@given(st.floats(-10, 10), st.lists(st.floats(-10, 10), min_size=1, max_size=130), st.none() | st.floats(-10, 10))
def test_the_threshold_is_the_largest_statistic_that_would_be_claimed(mine: float, others: list[float], ceiling: float | None) -> None:
    found = Finding(mine, "d", tuple(others), ceiling=ceiling)
    assert found.claims == (found.threshold is not None and mine <= found.threshold)
    if len(others) < 19:
        assert found.threshold is None
        assert not found.claims


@given(st.floats(1e-9, 1), st.integers(1, 10_000))
def test_an_exact_distribution_counts_as_the_draws_it_is_worth(p: float, inverse: int) -> None:
    assert exact(1 / inverse).draws == inverse - 1
    assert 1 / (exact(p).draws + 1) >= p * (1 - 1e-6)
    assert Finding(0.1, "d", exact=p).p == p


# the decision


def test_doubts_come_first() -> None:
    found = of(dataclasses.replace(FITS, doubts=("Two siblings are one.",)), commitment=DATED, misses=KNOWN)
    assert found.decision is Decision.UNDECIDED
    assert found.caveats[0] == "Two siblings are one."
    assert found.strength == ""
    assert not found.found
    assert found.caveats[-len(CAVEATS) :] == CAVEATS


@pytest.mark.parametrize("count", [0, 1, 12, 18])
def test_too_few_draws_say_how_many_are_missing(count: int) -> None:
    found = of(Finding(0.1, "distance", FAR[:count]), commitment=DATED, misses=KNOWN)
    assert found.decision is Decision.UNDECIDED
    assert found.caveats[0] == f"{count} siblings of the owner's model stand behind the key, a decision needs 19: {19 - count} are missing."
    assert found.threshold is None


def test_an_exact_p_needs_no_draws() -> None:
    assert of(exact(1e-9), commitment=DATED).stolen
    assert of(exact(0.05), commitment=DATED).stolen
    assert not of(exact(0.0501), commitment=DATED).stolen
    assert of(exact(0.2), misses=KNOWN).decision is Decision.NOT_STOLEN


@pytest.mark.parametrize("found", [FITS, FITS_NOT, exact(1e-9), exact(0.5)])
def test_a_ceiling_takes_claims_away_and_makes_none(found: Finding) -> None:
    free = of(found, commitment=DATED, misses=KNOWN)
    high = of(dataclasses.replace(found, ceiling=1e9), commitment=DATED, misses=KNOWN)
    low = of(dataclasses.replace(found, ceiling=0.01), commitment=DATED, misses=KNOWN)
    assert high.decision is free.decision
    assert low.decision is (Decision.UNDECIDED if free.found else free.decision)  # what a second condition takes away clears nobody


def test_an_older_commitment_makes_it_stolen_whoever_could_have_forged_the_key() -> None:
    for forgeable in (False, True):
        found = of(commitment=DATED, forgeable=forgeable)
        assert found.stolen
        assert "committed to before the suspect was seen" in found.caveats[0]
        assert "2026-02-01" in found.caveats[0]
    assert of(commitment=DATED, same=True, shown=False).stolen


@pytest.mark.parametrize(
    "commitment", [None, Commitment("00" * 32), dataclasses.replace(DATED, seen=None), dataclasses.replace(DATED, kind="undated")]
)
def test_without_an_older_commitment_nothing_is_stolen(commitment: Commitment | None) -> None:
    related = of(commitment=commitment)
    assert related.decision is Decision.RELATED
    assert related.found
    assert not related.stolen
    assert related.caveats[0] == DIRECTION
    assert of(commitment=commitment, forgeable=True).caveats[0] == UNCOMMITTED
    for changes in ({"forgeable": True}, {"same": True}, {"shown": False}):
        assert of(commitment=commitment, **changes).decision is Decision.UNDECIDED


def test_the_model_itself_and_a_model_that_nobody_saw_say_nothing() -> None:
    assert of(same=True).caveats[0] == SAME
    assert of(shown=False).caveats[0] == UNSHOWN


def test_many_keys_need_a_smaller_p() -> None:
    fits = Finding(0.1, "distance", tuple(0.5 + i / 100 for i in range(59)))
    assert [of(fits, keys=n).decision for n in (1, 2, 3)] == [Decision.RELATED] * 3
    assert of(fits, keys=4).decision is Decision.UNDECIDED
    assert of(FITS, keys=2, commitment=DATED, misses=KNOWN).decision is Decision.UNDECIDED


@pytest.mark.parametrize(
    ("misses", "decision", "words"),
    [
        (Misses(0, 0), Decision.UNDECIDED, "0 thieves of this access level were tried at enrolment, 14 are needed"),
        (Misses(0, 13), Decision.UNDECIDED, "13 thieves"),
        (Misses(0, 14), Decision.NOT_STOLEN, "0 of 14 such thieves would be missed"),
        (Misses(1, 14), Decision.UNDECIDED, "Could not tell: 1 of 14"),
        (Misses(1, 20), Decision.NOT_STOLEN, "1 of 20"),
        (Misses(14, 14), Decision.UNDECIDED, "at most 100%"),
    ],
)
def test_not_stolen_needs_to_know_how_many_would_be_missed(misses: Misses, decision: Decision, words: str) -> None:
    found = of(FITS_NOT, misses=misses, commitment=DATED)
    assert found.decision is decision
    assert words in found.caveats[0]
    assert found.strength == ""
    assert (misses.bound <= 0.25) == (decision is Decision.NOT_STOLEN) or misses.tried < THIEVES


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_the_miss_bound_is_that_of_clopper_and_pearson(missed: int, tried: int) -> None:
    from scipy.stats import binom

    missed = min(missed, tried)
    bound = Misses(missed, tried).bound
    assert 0 < bound <= 1
    if missed < tried:
        assert binom.cdf(missed, tried, bound) == pytest.approx(0.05, abs=1e-9)


@pytest.mark.parametrize(
    ("draws", "changes", "word"),
    [
        (19, {"misses": KNOWN}, "weak"), (58, {"misses": KNOWN}, "weak"), (59, {}, "moderate"), (98, {"misses": KNOWN}, "moderate"),
        (99, {}, "moderate"), (99, {"misses": Misses(0, 13)}, "moderate"), (99, {"misses": KNOWN}, "strong"),
        (10_000, {"misses": KNOWN, "most": "weak"}, "weak"),
    ],
)  # fmt: skip
def test_strength_in_words(draws: int, changes: dict[str, object], word: str) -> None:
    assert strength(draws, dataclasses.replace(PLAIN, **changes)) == word
    found = of(exact(1 / (draws + 1)), **changes)
    assert (found.decision, found.strength) == (Decision.RELATED, word)


def test_a_verdict_keeps_what_it_rests_on() -> None:
    given_finding = dataclasses.replace(FITS, headlines=("By the owner's word.",), notes=("It was slow.",), parametric_p=0.3)
    found = of(given_finding, misses=Misses(2, 20), nulls=12, false_claims=1)
    assert (found.method, found.variant, found.access, found.queries) == ("sac", "hardened", "label", 100)
    assert (found.draws, found.draws_of, found.p_value) == (19, "siblings of the owner's model", 0.05)
    assert (found.nulls, found.false_claims, found.misses, found.parametric_p) == (12, 1, Misses(2, 20), 0.3)
    assert found.headlines == (UNDATED, "By the owner's word.")
    assert "It was slow." in found.caveats
    assert found.matches
    assert str(found) == (
        "related, weak evidence: distance 0.1000, p = 0.05 over 19 siblings of the owner's model, 2 of 20 thieves tried would be missed"
    )
    assert str(of(Finding(math.nan, "none", doubts=("old",)))) == "undecided: none nan"
    assert ALPHA == 0.05


# siblings, as they are told


def test_siblings_refuse_what_contradicts_itself() -> None:
    from torch import nn

    nets = (nn.Linear(2, 2), nn.Linear(2, 2))
    assert len(Siblings.of(nets)) == 2
    assert Siblings.of(Siblings.of(nets)).models == nets
    assert Siblings.of(nets).start == "unsaid"
    with pytest.raises(UsageError, match="origin is code, recipe, models, matched"):
        Siblings(origin="zoo")
    with pytest.raises(UsageError, match="start"):
        Siblings(start="nowhere")
    with pytest.raises(UsageError, match="2 siblings need as many seeds, got 1"):
        Siblings(models=nets, seeds=(1,))
    with pytest.raises(UsageError, match="a thief is of one of the 1 tuning siblings"):
        Siblings(tuning=nets[:1], thieves=(TuningThief(1, nets[0], "fine-tuned"),))
