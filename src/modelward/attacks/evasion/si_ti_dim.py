"""The combination SI-TI-DIM (Lin et al., "Nesterov accelerated gradient and scale invariance for adversarial attacks", ICLR 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from modelward.attacks.evasion.mim import MIM
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy


@dataclass(frozen=True, kw_only=True)
class SITIDIM(MIM):
    """All three at once on top of `MIM`: scale copies, each diversified in 7 of 10 looks, and a smoothed gradient.

    Examples
    --------
    >>> SITIDIM().settings()["copies"], SITIDIM().kernel
    (5, 7)
    """

    card: ClassVar[Card] = Card(
        name="si-ti-dim",
        title="momentum with scale copies, translation invariance and input diversity, Linf and L2",
        paper="Lin, Song, He, Wang, Hopcroft: Nesterov accelerated gradient and scale invariance for adversarial attacks, ICLR 2020, arXiv 1908.06281",
        taxonomy=Taxonomy(Scenario.WHITE_BOX, Mechanism.INPUT_PERTURBATION),
        limits=MIM.card.limits,
        cost="50 forward and backward passes",
    )

    probability: float = 0.7
    kernel: int = 7
    copies: int = 5
