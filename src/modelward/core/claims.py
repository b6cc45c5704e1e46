"""What a method says it withstands, so that it can be held to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """A sentence of a card with the figure that decides it.

    Parameters
    ----------
    text
        the sentence.
    attack
        the theft, by name, after which the key is still to fit at every setting that leaves the thief a useful model; empty for a claim about a
        metric.
    metric, most
        the metric and the largest value that it may have, for a claim about a metric.
    source
        who says so: ``"paper"`` or ``"modelward"``.
    figure
        the figure that goes with it, in words; empty where none is known.

    Examples
    --------
    >>> str(Claim("survives fine-tuning of all layers", attack="ftal"))
    'survives fine-tuning of all layers'
    """

    text: str
    attack: str = ""
    metric: str = ""
    most: float = 0.0
    source: str = "paper"
    figure: str = ""

    def __str__(self) -> str:
        """Return the sentence."""
        return self.text


HOW = {
    "ftal": "fine-tuning of all layers", "ftll": "fine-tuning of the last layer", "prune": "pruning", "quantise": "quantisation",
    "extract-l": "extraction by labels", "extract-p": "extraction by probabilities", "overwrite": "overwriting by the same scheme",
    "wrap-reconstruct": "queries through an autoencoder",
}  # fmt: skip


def withstands(*attacks: str, figures: Mapping[str, str] | None = None) -> tuple[Claim, ...]:
    """Return the papers' claims of surviving thefts, by their names, with the ``figures`` that the papers give.

    Examples
    --------
    >>> [str(claim) for claim in withstands("ftal", "prune")]
    ['survives fine-tuning of all layers', 'survives pruning']
    >>> withstands("prune", figures={"prune": "65 % of the weights"})[0].figure
    '65 % of the weights'
    """
    return tuple(Claim(f"survives {HOW[attack]}", attack, figure=(figures or {}).get(attack, "")) for attack in attacks)


def all_claims(said: Iterable[str | Claim]) -> list[Claim]:
    """Return the claims of a card; a plain sentence becomes one that no row decides.

    Examples
    --------
    >>> [(claim.text, claim.attack) for claim in all_claims(["names the leaker", *withstands("prune")])]
    [('names the leaker', ''), ('survives pruning', 'prune')]
    """
    return [claim if isinstance(claim, Claim) else Claim(claim) for claim in said]
