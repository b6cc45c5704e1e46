"""Scale invariance (Lin et al., "Nesterov accelerated gradient and scale invariance for adversarial attacks", ICLR 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from modelward.attacks.evasion.mim import MIM
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy


@dataclass(frozen=True, kw_only=True)
class SIM(MIM):
    """Average the gradient of `MIM` over the image and four darker copies x / 2^i.

    Examples
    --------
    >>> SIM().copies
    5
    """

    card: ClassVar[Card] = Card(
        name="sim",
        title="momentum with scale copies, Linf and L2",
        paper="Lin, Song, He, Wang, Hopcroft: Nesterov accelerated gradient and scale invariance for adversarial attacks, ICLR 2020, arXiv 1908.06281",
        taxonomy=Taxonomy(Scenario.WHITE_BOX, Mechanism.INPUT_PERTURBATION),
        limits=MIM.card.limits,
        cost="50 forward and backward passes",
    )

    copies: int = 5
