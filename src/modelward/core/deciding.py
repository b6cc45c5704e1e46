"""From what answers say of a suspect to a verdict: one rule for every method.

The p-value counts what the owner could just as well have made: siblings of the model, keys of other secrets, orders of its hidden units. So it
is exact for every suspect that is independent of the owner's private draws, whatever its recipe, images or architecture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from modelward.core.commitment import Commitment
from modelward.core.verdict import ALPHA, Decision, Misses, Verdict

DRAWS = (19, 39, 59, 99)
NOTHING = Misses()
THIEVES, MISS_LIMIT = 14, 0.25
MODERATE, STRONG = 59, 99
OLD = "The key was made before calibration by siblings and other secrets: enrol again (a commitment made then is younger than suspects seen before)."
CAVEATS = (
    "p is the chance of a score like this from a model that was made without the owner's private draws; it is not the chance that the suspect is innocent.",
    "It sees theft of the model, not of the images: whoever trains anew on the owner's images is not accused.",
    "It does not show how the suspect was made.",
)
UNCOMMITTED = (
    "The statistic says that the key fits, but a key like this can be made for a model after the fact: without a dated commitment to it from "
    "before the day on which the checker saw the suspect (--released) nothing is concluded."
)
DIRECTION = (
    "One of the two was made from the other, or both from a third; which came first, a commitment shows whose date is older than the day on which the "
    "suspect was first seen (--commitment with --released)."
)
UNDATED = "Nothing dates the key: its images and settings may have been chosen after the suspect was seen, and p does not count such tries."
SAME = "The suspect is the very model that the key names: without a dated commitment that says nothing of whose it is."
TAKEN = "The p-value speaks for the owner, and the second condition does not: it may take a claim away, and clears nobody."
MANY = "p is small for one key and not for {count} that speak beside each other."
BLIND = "The key does not fit, and that clears nobody: a copy whose units stand in another order costs its thief nothing. unit-match looks for it."
UNSHOWN = "The claimant's model was not shown (--model): whoever enrols a copy of somebody else's gets a key that fits both."


@dataclass(frozen=True)
class Finding:
    """What the answers to a key say, before anything is decided.

    Parameters
    ----------
    statistic
        of the owner's model or secret; small means alike.
    name
        what it is, in words.
    others
        the same statistic of every draw that was made like the owner's.
    draws_of
        what the draws are, in the plural.
    exact
        the p-value where the distribution over the owner's draws is known, or only the rank was kept; ``others`` is empty then.
    made
        number of draws behind ``exact`` where they were made; a known distribution counts as 1 / p - 1.
    ceiling
        a second condition that may only take claims away: no statistic above it is claimed.
    doubts
        reasons for which nothing can be decided.
    headlines, notes
        what stands first, and what stands among the caveats.
    parametric_p
        as in `Verdict`.
    """

    statistic: float
    name: str
    others: tuple[float, ...] = ()
    draws_of: str = "siblings of the owner's model"
    exact: float | None = None
    made: int = 0
    ceiling: float | None = None
    doubts: tuple[str, ...] = ()
    headlines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    parametric_p: float | None = None

    @property
    def p(self) -> float | None:
        """The p-value: ties count against the owner, and so does what is not a number.

        >>> Finding(0.1, "distance", tuple(0.2 + i / 100 for i in range(19))).p, Finding(0.2, "distance", (0.1, 0.2, 0.3)).p
        (0.05, 0.75)
        """
        if self.exact is not None:
            return self.exact
        return (1 + sum(not other > self.statistic for other in self.others)) / (len(self.others) + 1) if self.others else None

    @property
    def draws(self) -> int:
        """How many draws stand behind the p-value."""
        if self.exact is None:
            return len(self.others)
        return self.made or math.floor(1 / max(self.exact, 1e-300) - 1 + 1e-9)

    @property
    def threshold(self) -> float | None:
        """The largest statistic with p <= alpha beside these draws that is not above the ceiling; ``None`` for too few draws."""
        if self.exact is not None:
            return self.ceiling
        spare = math.floor(ALPHA * (len(self.others) + 1) + 1e-9) - 1
        if spare < 0:
            return None
        limit = math.nextafter(sorted(self.others)[spare], -math.inf)
        return limit if self.ceiling is None else min(limit, self.ceiling)

    @property
    def claims(self) -> bool:
        """Whether p and the second condition both speak for the owner."""
        return self.p is not None and self.p <= ALPHA + 1e-12 and (self.ceiling is None or self.statistic <= self.ceiling)


@dataclass(frozen=True)
class Standing:
    """What is known of a key and of the case, besides the answers.

    Parameters
    ----------
    method, variant
        who made the key, and by which recipe.
    forgeable
        whether such a key can be made for a model of somebody else.
    access, queries
        how the suspect was asked.
    misses
        thieves of this access level that were tried.
    most
        the most that may be said: ``""`` for no limit, ``"weak"`` where the owner chose the draws.
    keys
        how many keys speak beside each other; p is multiplied by it.
    nulls, false_claims
        as in `Verdict`.
    commitment
        what dates the key; ``None`` for nothing.
    shown
        whether the claimant's model was shown to whoever decides; the holder of the key has it.
    same
        whether the suspect is the very model that the key names.
    acquits
        whether a score that does not fit may clear a suspect: not where a thief can hide at no cost.
    """

    method: str
    variant: str
    forgeable: bool
    access: str
    queries: int
    misses: Misses = NOTHING
    most: str = ""
    keys: int = 1
    nulls: int = 0
    false_claims: int = 0
    commitment: Commitment | None = None
    shown: bool = True
    same: bool = False
    acquits: bool = True

    @property
    def older(self) -> bool:
        """True when the key was fixed before the day on which the checker saw the suspect."""
        return self.commitment is not None and self.commitment.older


def decide(found: Finding, standing: Standing) -> Verdict:
    """Return the verdict on a finding; see design.md, "What a verdict may say"."""
    decision, reasons = _decision(found, standing)
    first = (UNDATED,) if decision is Decision.RELATED else ()
    claimed = decision in {Decision.STOLEN, Decision.RELATED}
    return Verdict(
        decision=decision, method=standing.method, variant=standing.variant, statistic_name=found.name, statistic=found.statistic,
        threshold=found.threshold, fits=found.claims, p_value=found.p, draws=found.draws, draws_of=found.draws_of,
        queries=standing.queries, access=standing.access,
        strength=strength(found.draws, standing) if claimed else "", misses=standing.misses, nulls=standing.nulls,
        false_claims=standing.false_claims, headlines=(*first, *found.headlines), caveats=(*reasons, *found.notes, *CAVEATS), parametric_p=found.parametric_p,
    )  # fmt: skip


def _decision(found: Finding, standing: Standing) -> tuple[Decision, Sequence[str]]:
    """Return the decision and its reasons."""
    if found.doubts:
        return Decision.UNDECIDED, found.doubts
    if found.p is None or (found.draws < DRAWS[0] and (found.exact is None or found.made)):
        missing = DRAWS[0] - len(found.others)
        return Decision.UNDECIDED, [
            f"{len(found.others)} {found.draws_of} stand behind the key, a decision needs {DRAWS[0]}: {missing} are missing."
        ]
    if found.p > ALPHA + 1e-12:
        return _unclaimed(standing.misses) if standing.acquits else (Decision.UNDECIDED, [BLIND])
    if not found.claims or found.p * standing.keys > ALPHA + 1e-12:
        return Decision.UNDECIDED, [TAKEN if not found.claims else MANY.format(count=standing.keys)]
    if standing.older:
        return Decision.STOLEN, [f"The key was committed to before the suspect was seen: {standing.commitment}."]
    if standing.forgeable:
        return Decision.UNDECIDED, [UNCOMMITTED]
    if standing.same:
        return Decision.UNDECIDED, [SAME]
    return (Decision.RELATED, [DIRECTION]) if standing.shown else (Decision.UNDECIDED, [UNSHOWN])


def _unclaimed(misses: Misses) -> tuple[Decision, Sequence[str]]:
    """Return what may be said where nothing is claimed: "not stolen" needs to know how many thieves would be missed."""
    if misses.tried < THIEVES:
        return Decision.UNDECIDED, [
            f"The key does not fit, which could be a miss: {misses.tried} thieves of this access level were tried at enrolment, {THIEVES} are needed to know."
        ]
    told = f"{misses.missed} of {misses.tried} such thieves would be missed"
    if misses.bound > MISS_LIMIT:
        return Decision.UNDECIDED, [f"Could not tell: {told} (at most {misses.bound:.0%} with 95 % confidence)."]
    return Decision.NOT_STOLEN, [f"{told[0].upper()}{told[1:]} (at most {misses.bound:.0%} with 95 % confidence)."]


def strength(draws: int, standing: Standing) -> str:
    """Return how strong a claim is, in a word.

    >>> case = Standing("sac", "hardened", False, "label", 0, Misses(0, 14))
    >>> strength(19, case), strength(59, case), strength(99, case)
    ('weak', 'moderate', 'strong')
    """
    if draws < MODERATE or standing.most == "weak":
        return "weak"
    return "strong" if draws >= STRONG and standing.misses.tried >= THIEVES else "moderate"
