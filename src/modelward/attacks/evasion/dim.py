"""Input diversity (Xie et al., "Improving transferability of adversarial examples with input diversity", CVPR 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from modelward.attacks.evasion.mim import MIM
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy


@dataclass(frozen=True, kw_only=True)
class DIM(MIM):
    """Take the gradient of `MIM` on images that are resized and padded at random, every other step.

    Examples
    --------
    >>> DIM().probability
    0.5
    """

    card: ClassVar[Card] = Card(
        name="dim",
        title="momentum with input diversity, Linf and L2",
        paper="Xie, Zhang, Zhou, Bai, Wang, Ren, Yuille: Improving transferability of adversarial examples with input diversity, CVPR 2019, arXiv 1803.06978",
        taxonomy=Taxonomy(Scenario.WHITE_BOX, Mechanism.INPUT_PERTURBATION),
        limits=MIM.card.limits,
        cost="10 forward and backward passes",
    )

    probability: float = 0.5
