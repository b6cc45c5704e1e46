"""What is found by chance where nothing was embedded: distributions over a secret that are known exactly."""

from __future__ import annotations

import functools

from modelward.core.deciding import Finding
from modelward.statistics import binomial_p, required_matches

SECOND = 1e-6
"""The second condition of marks, ours and never the key's: who tries a thousand secrets for each of twenty models finds nothing that is as rare."""
LEAST = 1e-12
"""Smaller chances are not told: below it a secret that leaked is likelier."""
NEVER = -1.0
"""A ceiling that no statistic is below: even what fits wholly proves nothing."""
UNDRAWN = "All bits are of the text, and none was drawn from the secret: anybody may choose a text, so that nothing can be concluded; embed more bits."


@functools.cache
def claimable(count: int, chance: float, significance: float, *, sides: int = 1) -> float:
    """Return the largest share of wrong bits or missed images, of ``count``, that chance does not explain; -1 where there is none.

    A ``significance`` above 1e-6 counts as 1e-6.

    Examples
    --------
    >>> claimable(64, 0.5, 1e-6), claimable(8, 0.5, 1e-6)
    (0.203125, -1.0)
    """
    wanted = required_matches(count, chance, min(significance, SECOND) / sides) if count and chance < 1 else None
    return NEVER if wanted is None else (count - wanted) / count


def told(p: float) -> float:
    """Return a p-value that is not smaller than can be meant, nor above 1.

    >>> told(1e-40), told(0.3), told(2.0)
    (1e-12, 0.3, 1.0)
    """
    return min(1.0, max(LEAST, p))


def by_chance(
    wrong: int, count: int, name: str, *, of: str, chance: float = 0.5, significance: float = 1e-6, inverted: bool = False
) -> Finding:
    r"""Return the finding on ``count`` independent trials of a secret: the p-value is :math:`P[Bin(n, p_0) \ge n - wrong]`.

    Parameters
    ----------
    wrong, count
        trials that came out otherwise than the secret says, and trials.
    name, of
        what the statistic is, and what the draws are, in words.
    chance
        of a trial that comes out right where nothing was embedded.
    significance
        of the same binomial as a second condition, which may only take claims away; at most 1e-6 counts.
    inverted
        whether all bits inverted count as well; it doubles the p-value.

    Examples
    --------
    >>> found = by_chance(2, 32, "wrong bits", of="drawn bits")
    >>> found.statistic, round(found.p * 2**32), found.claims
    (0.0625, 529, True)
    """
    if not count:
        return Finding(1.0, name, draws_of=of, doubts=(UNDRAWN,))
    least, sides = (min(wrong, count - wrong), 2) if inverted else (wrong, 1)
    p = told(sides * _tail(count - least, count, chance))
    return Finding(least / count, name, draws_of=of, exact=p, ceiling=claimable(count, chance, significance, sides=sides))


@functools.cache
def _tail(right: int, count: int, chance: float) -> float:
    """Return P[Bin(count, chance) >= right]; the same few are asked for again and again."""
    return binomial_p(right, count, chance)
