"""A verdict on the screen: the decision in plain words, the figures behind it, and what it does not show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from modelward.cli.output import facts, say

if TYPE_CHECKING:
    from modelward.core.verdict import Verdict

EXIT_CODES = {"stolen": 1, "not stolen": 0, "undecided": 3}
_HEADLINES = {
    "stolen": "STOLEN: {suspect} behaves like a copy of the model behind {key}, as an independent model rarely would.",
    "not stolen": "NOT STOLEN: {suspect} behaves like a model that was made independently of the one behind {key}.",
    "undecided": "UNDECIDED: nothing can be concluded about {suspect} with {key}.",
}
_STYLES = {"stolen": "bold red", "not stolen": "bold green", "undecided": "bold yellow"}


def verdict_facts(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON values."""
    import dataclasses

    return dataclasses.asdict(verdict) | {"exit_code": EXIT_CODES[verdict.decision.value]}


def p_words(p: float | None, nulls: int) -> str:
    """Return the p-value in words.

    p = (1 + k) / (n + 1) for k of n independent models at least as extreme as the suspect.

    >>> p_words(1 / 21, 20)
    '0.048: none of 20 independent models is as extreme as the suspect'
    >>> p_words(0.25, 19), p_words(None, 0)
    ('0.25: 4 of 19 independent models are as extreme as the suspect', 'none: no independent models stand behind the key')
    """
    if p is None:
        return "none: no independent models stand behind the key"
    extreme = round(p * (nulls + 1)) - 1
    count = "none" if extreme <= 0 else str(extreme)
    return f"{p:.2g}: {count} of {nulls} independent models {'is' if extreme <= 1 else 'are'} as extreme as the suspect"


def false_claim_words(verdict: Verdict) -> str:
    """Return how often the threshold accused a model that was not stolen."""
    if verdict.false_claim_bound is None:
        return "not measured: no independent models were held out"
    seen = f"{verdict.false_claims} of {verdict.false_claim_trials} held-out independent models accused"
    return f"{seen}; the rate is below {verdict.false_claim_bound:.1%} with 95 % confidence".replace("%", " %", 1)


def show_verdict(verdict: Verdict, *, suspect: str, key: str, quiet: bool = False) -> None:
    """Print a verdict; ``quiet`` leaves the headline alone."""
    word = verdict.decision.value
    say(_HEADLINES[word].format(suspect=suspect, key=key), style=_STYLES[word])
    if quiet:
        return
    say()
    facts(
        [
            ("method", f"{verdict.method}, variant {verdict.variant}"),
            ("statistic", f"{verdict.statistic:.4f}  {verdict.statistic_name}"),
            ("threshold", "none: the key is not calibrated" if verdict.threshold is None else f"{verdict.threshold:.4f}"),
            ("p-value", p_words(verdict.p_value, verdict.nulls)),
            ("false claims", false_claim_words(verdict)),
            ("queries", f"{verdict.queries:,} images, access: {verdict.access}"),
        ]
    )
    if verdict.caveats:
        say("\nWhat this does not show", style="bold")
        facts([("-", caveat) for caveat in verdict.caveats])
