"""A verdict on the screen: the decision in plain words, the figures behind it, and what it does not show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelward.cli.output import facts, say
from modelward.core.verdict import ALPHA

if TYPE_CHECKING:
    from modelward.core.verdict import Verdict

VERDICT_VERSION = 2
"""Of the JSON object: docs/schemas/verdict-2.schema.json."""
EXIT_CODES = {"stolen": 1, "related": 1, "not stolen": 0, "undecided": 3}
_HEADLINES = {
    "stolen": "STOLEN ({strength} evidence): {suspect} has what the model behind {key} has of its own, and a commitment is older than the suspect.",
    "related": "RELATED ({strength} evidence): {suspect} and the model behind {key}: one was made from the other, or both from a third.",
    "not stolen": "NOT STOLEN: what the model behind {key} has of its own was not found in {suspect}, and few thieves would be missed.",
    "undecided": "UNDECIDED: nothing can be concluded about {suspect} with {key}.",
}
_STYLES = {"stolen": "bold red", "related": "bold red", "not stolen": "bold green", "undecided": "bold yellow"}


def verdict_facts(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON values."""
    import dataclasses

    return dataclasses.asdict(verdict) | {"exit_code": EXIT_CODES[verdict.decision.value]}


def p_words(verdict: Verdict) -> str:
    """Return the p-value in words: what was counted, and what the number is the chance of."""
    if verdict.p_value is None:
        return "none: too few draws stand behind the key"
    if verdict.draws_of == "exact distribution":
        return f"{verdict.p_value:.2g}: the chance of such a match by luck, counted exactly over the owner's secret"
    extreme = round(verdict.p_value * (verdict.draws + 1)) - 1
    count = "none" if extreme <= 0 else str(extreme)
    return (
        f"{verdict.p_value:.2g}: {count} of {verdict.draws:,} {verdict.draws_of} {'is' if extreme <= 1 else 'are'} as close to the suspect"
    )


def miss_words(verdict: Verdict) -> str:
    """Return how many thieves the key would miss."""
    misses = verdict.misses
    if not misses.tried:
        return "not known: no thefts were tried at enrolment"
    return f"{misses.missed} of {misses.tried} thefts tried at enrolment would be missed, at most {misses.bound:.0%} with 95 % confidence".replace(
        "%", " %", 1
    )


def false_claim_words(verdict: Verdict) -> str:
    """Return how many independent models the key accuses."""
    if not verdict.nulls:
        return "no independent models were asked at enrolment"
    return f"{verdict.false_claims} of {verdict.nulls} independent models that were asked at enrolment would be accused"


def show_verdict(verdict: Verdict, *, suspect: str, key: str, quiet: bool = False) -> None:
    """Print a verdict; ``quiet`` leaves the headline alone."""
    word = verdict.decision.value
    say(_HEADLINES[word].format(suspect=suspect, key=key, strength=verdict.strength), style=_STYLES[word])
    for line in verdict.headlines:
        say(line)
    if quiet:
        return
    say()
    facts(
        [
            ("method", f"{verdict.method}, variant {verdict.variant}"),
            ("statistic", f"{verdict.statistic:.4f}  {verdict.statistic_name}"),
            (
                "claimed up to",
                "none: too few draws" if verdict.threshold is None else f"{verdict.threshold:.4f}, where p is at most {ALPHA}",
            ),
            ("p-value", p_words(verdict)),
            ("misses", miss_words(verdict)),
            ("false claims", false_claim_words(verdict)),
            ("queries", f"{verdict.queries:,} images, access: {verdict.access}"),
        ]
    )
    if verdict.caveats:
        say("\nWhy, and what this does not show", style="bold")
        facts([("-", caveat) for caveat in verdict.caveats])
