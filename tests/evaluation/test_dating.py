"""Keys of a study: the owner's are older than every suspect, a forger's is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelward.core.deciding import Finding, Standing, decide
from modelward.core.key import Key
from modelward.core.verdict import Decision
from modelward.evaluation.dating import OLDER, YOUNGER, says_so

FITS = Finding(0.0, "distance", exact=0.001, made=999, draws_of="orders")
STANDING = Standing("toy", "hardened", forgeable=True, access="weights", queries=0)


def key(**draws: bool) -> Key:
    return Key("toy", "hardened", "00" * 32, {"draws": draws}, {})


@pytest.mark.parametrize(("commitment", "decision"), [(OLDER, Decision.STOLEN), (YOUNGER, Decision.UNDECIDED), (None, Decision.UNDECIDED)])
def test_only_the_owners_key_is_older_than_the_suspect(commitment, decision) -> None:
    verdict = decide(FITS, replace(STANDING, commitment=commitment))
    assert verdict.decision is decision
    assert says_so(verdict, key()) == (decision is Decision.STOLEN)


def test_of_a_trial_run_the_statistic_is_told() -> None:
    verdict = decide(FITS, STANDING)
    assert says_so(verdict, key(smoke=True))
    assert not says_so(verdict, key(smoke=False))
