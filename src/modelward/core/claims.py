"""What a method says it withstands, so that it can be held to it."""

from __future__ import annotations

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

    def __str__(self) -> str:
        """Return the sentence."""
        return self.text


HOW = {
    "ftal": "fine-tuning of all layers", "ftll": "fine-tuning of the last layer", "prune": "pruning", "quantise": "quantisation",
    "extract-l": "extraction by labels", "extract-p": "extraction by probabilities", "overwrite": "overwriting by the same scheme",
    "wrap-reconstruct": "queries through an autoencoder",
}  # fmt: skip


def withstands(*attacks: str) -> tuple[Claim, ...]:
    """Return the papers' claims of surviving thefts, by their names.

    Examples
    --------
    >>> [str(claim) for claim in withstands("ftal", "prune")]
    ['survives fine-tuning of all layers', 'survives pruning']
    """
    return tuple(Claim(f"survives {HOW[attack]}", attack) for attack in attacks)
