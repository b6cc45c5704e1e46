"""From a statistic and the scores of independent models to a verdict. Small statistics mean "stolen"."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelward.core.errors import FormatError
from modelward.core.key import REMEDY
from modelward.core.ownership import Observation
from modelward.core.rng import derive_seed
from modelward.core.verdict import Decision, Verdict
from modelward.statistics import rank_p, rank_threshold, upper_bound

MIN_CALIBRATION = 20
CAVEATS = (
    "It does not prove how the suspect was made: it says that an independent model would rarely score like this.",
    "The false-claim rate holds for models like the null models behind the key, on data like theirs.",
    "An owner who enrols after seeing the suspect could choose probes that fit it: ask for the date of the commitment.",
)


@dataclass(frozen=True)
class Calibration:
    """Scores of models other than the suspect, fixed before it is seen.

    Parameters
    ----------
    nulls
        statistics of the independent models that set the threshold.
    holdout
        statistics of further independent models, on which false claims are counted.
    thieves
        statistics of validation thieves, for the power and the paper's threshold.
    alpha
        a suspect is called stolen when its rank p-value is at most this.
    ceiling
        a larger statistic is never called stolen, whatever the ranks say; from a distribution that is assumed, such as the binomial.
    """

    nulls: tuple[float, ...] = ()
    holdout: tuple[float, ...] = ()
    thieves: tuple[float, ...] = ()
    alpha: float = 0.05
    ceiling: float | None = None

    @classmethod
    def split(cls, scores: Sequence[float], thieves: Sequence[float], alpha: float, ceiling: float | None = None) -> Calibration:
        """Set aside up to 30 % of the null models for counting false claims, while at least 20 remain for the threshold."""
        held = min(round(0.3 * len(scores)), max(0, len(scores) - MIN_CALIBRATION))
        # drawn by a hash of the position, so that each kind of null may stand in both parts
        chosen = set(sorted(range(len(scores)), key=lambda i: derive_seed("holdout", i))[:held])
        nulls = tuple(score for i, score in enumerate(scores) if i not in chosen)
        return cls(nulls, tuple(score for i, score in enumerate(scores) if i in chosen), tuple(thieves), alpha, ceiling)

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Calibration:
        """Read the calibration back from a key; raises `FormatError` when it makes no sense."""
        held = tuple(finite_numbers(facts.get(name), name) for name in ("nulls", "holdout", "thieves"))
        (alpha,) = finite_numbers([facts.get("alpha")], "alpha")
        ceiling = facts.get("ceiling")
        if not 0 < alpha < 1:
            message = f"the calibration in this key has alpha = {alpha}, outside (0, 1): {REMEDY}"
            raise FormatError(message)
        return cls(held[0], held[1], held[2], alpha, None if ceiling is None else finite_numbers([ceiling], "ceiling")[0])

    def threshold(self, variant: str) -> float | None:
        """Return the largest statistic still called stolen, or ``None`` when there are too few null models.

        ``paper``: midway between the mean of the thieves and the mean of the nulls; ``hardened``: the largest value with p <= alpha that is
        not above the ceiling.
        """
        if variant == "paper":
            if not self.nulls or not self.thieves:
                return None
            return (sum(self.nulls) / len(self.nulls) + sum(self.thieves) / len(self.thieves)) / 2
        limit = rank_threshold(self.nulls, self.alpha) if self.nulls else None
        if limit is None or not math.isfinite(limit):
            return None
        return limit if self.ceiling is None else min(limit, self.ceiling)

    def verdict(
        self, statistic: float, observed: Observation, *, method: str, variant: str, name: str, notes: Sequence[str] = (),
        limit: float | None = None, parametric_p: float | None = None,
    ) -> Verdict:  # fmt: skip
        """Return the verdict on a suspect whose statistic is ``statistic``; ``limit`` is a threshold of the method's own, such as a paper's rule."""
        limit = self.threshold(variant) if limit is None or not self.nulls else limit
        p = rank_p(statistic, self.nulls) if self.nulls else None
        if limit is None:
            decision = Decision.UNDECIDED
            notes = (*notes, "The key is not calibrated: fewer null models than a decision needs, so nothing can be concluded.")
        else:
            decision = Decision.STOLEN if statistic <= limit else Decision.NOT_STOLEN
        false = sum(score <= limit for score in self.holdout) if limit is not None else 0
        bound = upper_bound(false, len(self.holdout)) if limit is not None and self.holdout else None
        return Verdict(
            decision=decision, method=method, variant=variant, statistic_name=name, statistic=statistic, threshold=limit, p_value=p,
            nulls=len(self.nulls), false_claims=false, false_claim_trials=len(self.holdout), false_claim_bound=bound,
            queries=observed.queries, access=observed.access.value, caveats=(*notes, *CAVEATS), parametric_p=parametric_p,
        )  # fmt: skip


def finite_numbers(found: Any, name: str) -> tuple[float, ...]:
    """Return the finite numbers that a key holds under ``name``."""
    try:
        good = isinstance(found, list | tuple) and all(
            isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item) for item in found
        )
    except OverflowError:  # an integer beyond every float
        good = False
    if not good:
        message = f"{name!r} of this key is missing, or no finite number: {REMEDY}"
        raise FormatError(message)
    return tuple(float(item) for item in found)
