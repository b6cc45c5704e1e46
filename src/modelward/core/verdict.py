"""A verdict: a decision with its statistic, threshold, p-value, false-claim bound, and what it does not show."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Decision(enum.StrEnum):
    """What can be said of a suspect."""

    STOLEN = "stolen"
    NOT_STOLEN = "not stolen"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Verdict:
    """The answer to "was this suspect made from my model?".

    Parameters
    ----------
    decision
        stolen, not stolen, or undecided.
    method, variant, statistic_name
        what was computed, fixed before the suspect was seen.
    statistic, threshold
        the suspect's value and the value it was compared with (``None`` for an uncalibrated key).
    p_value
        (1 + null models at least as extreme) / (null models + 1).
    nulls
        number of independent models behind ``p_value``.
    false_claims, false_claim_bound
        held-out null models accused by the threshold, of ``false_claim_trials``, and the one-sided upper 95 % bound of their rate.
    queries
        answers asked of the suspect.
    access
        the access level that was used.
    caveats
        what the verdict does not show.
    parametric_p
        chance of such an answer under a distribution that is assumed, such as the binomial; it stands beside ``p_value`` and decides nothing
        alone. ``None`` where the method has none.
    """

    decision: Decision
    method: str
    variant: str
    statistic_name: str
    statistic: float
    threshold: float | None
    p_value: float | None
    nulls: int
    false_claims: int
    false_claim_trials: int
    false_claim_bound: float | None
    queries: int
    access: str
    caveats: tuple[str, ...] = ()
    parametric_p: float | None = None

    @property
    def matches(self) -> bool:
        """True when the statistic alone says that the key fits; "stolen" may need more, such as a dated commitment."""
        return self.threshold is not None and self.statistic <= self.threshold

    @property
    def stolen(self) -> bool:
        """True when the decision is "stolen"."""
        return self.decision is Decision.STOLEN

    def __str__(self) -> str:
        parts = [f"{self.decision.value}: {self.statistic_name} {self.statistic:.4f}"]
        if self.threshold is not None:
            parts.append(f"threshold {self.threshold:.4f}")
        if self.p_value is not None:
            parts.append(f"p = {self.p_value:.3g} over {self.nulls} independent models")
        if self.false_claim_bound is not None:
            parts.append(
                f"false claims {self.false_claims}/{self.false_claim_trials}, below {self.false_claim_bound:.1%} with 95 % confidence"
            )
        return ", ".join(parts)
