"""A verdict: a decision with its statistic, the draws that its p-value counts, and what it does not show."""

from __future__ import annotations

import enum
from dataclasses import dataclass

ALPHA = 0.05
"""A claim needs a p-value of at most this. It is ours, and no key's."""


class Decision(enum.StrEnum):
    """What can be said of a suspect."""

    STOLEN = "stolen"
    RELATED = "related"
    NOT_STOLEN = "not stolen"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Misses:
    """How many thieves of the suspect's access level the key would miss, of those that were tried at enrolment.

    Examples
    --------
    >>> Misses(0, 14).bound <= 0.25 < Misses(1, 14).bound, Misses(0, 0).bound
    (True, 1.0)
    """

    missed: int = 0
    tried: int = 0

    @property
    def bound(self) -> float:
        """The one-sided upper 95 % limit (Clopper-Pearson) of the miss rate; 1 where nothing was tried."""
        if self.missed >= self.tried:
            return 1.0
        from scipy.special import betaincinv

        return float(betaincinv(self.missed + 1, self.tried - self.missed, 0.95))


_NOTHING = Misses()


@dataclass(frozen=True)
class Verdict:
    """The answer to "was this suspect made from my model?".

    Parameters
    ----------
    decision
        stolen, related (one was made from the other, or both from a third), not stolen, or undecided.
    method, variant, statistic_name
        what was computed, fixed before the suspect was seen.
    statistic
        how far the suspect is from the owner's model; small means alike. NaN where it was not computed.
    threshold
        the largest statistic that would still be claimed beside these draws; ``None`` without enough of them.
    fits
        whether the statistic alone says that the key fits.
    p_value
        (1 + draws at least as extreme) / (draws + 1), or the chance under a distribution that is known exactly. It is the chance of such a score
        from a model made without the owner's private draws, not the chance that the suspect is innocent.
    draws, draws_of
        how many draws, and of what; an exact distribution counts as 1 / p - 1 of them.
    queries, access
        answers asked of the suspect, and the access level that was used.
    strength
        weak, moderate or strong; empty for a verdict that claims nothing.
    misses
        thieves of this access level that were tried at enrolment, and how many of them would be missed.
    nulls, false_claims
        independent models that were asked as suspects at enrolment, and how many of them this key accuses. A figure; it decides nothing.
    headlines
        what a reader has to know first, such as whose word stands behind the draws.
    caveats
        what the verdict does not show.
    parametric_p
        chance under a distribution that is assumed; it may take a claim away, and makes none.
    """

    decision: Decision
    method: str
    variant: str
    statistic_name: str
    statistic: float
    threshold: float | None
    p_value: float | None
    draws: int
    draws_of: str
    queries: int
    access: str
    fits: bool = False
    strength: str = ""
    misses: Misses = _NOTHING
    nulls: int = 0
    false_claims: int = 0
    headlines: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
    parametric_p: float | None = None

    @property
    def matches(self) -> bool:
        """True when the statistic alone says that the key fits; a claim may need more, such as a dated commitment."""
        return self.fits

    @property
    def stolen(self) -> bool:
        """True when the decision is "stolen"."""
        return self.decision is Decision.STOLEN

    @property
    def found(self) -> bool:
        """True for a finding: stolen or related."""
        return self.decision in {Decision.STOLEN, Decision.RELATED}

    def __str__(self) -> str:
        strength = f", {self.strength} evidence" if self.strength else ""
        parts = [f"{self.decision.value}{strength}: {self.statistic_name} {self.statistic:.4f}"]
        if self.p_value is not None:
            parts.append(f"p = {self.p_value:.3g} over {self.draws:,} {self.draws_of}")
        if self.misses.tried:
            parts.append(f"{self.misses.missed} of {self.misses.tried} thieves tried would be missed")
        return ", ".join(parts)
