"""The basic iterative method (Kurakin et al., "Adversarial examples in the physical world", ICLR workshop 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from modelward.attacks.evasion.pgd import PGD
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy


@dataclass(frozen=True, kw_only=True)
class BIM(PGD):
    """Iterate the fast gradient method from the image itself; the paper's step is one grey level, 1/255.

    Examples
    --------
    >>> BIM(eps=4 / 255).random_start
    False
    """

    card: ClassVar[Card] = Card(
        name="bim",
        title="basic iterative method, Linf and L2",
        paper="Kurakin, Goodfellow, Bengio: Adversarial examples in the physical world, ICLR workshop 2017, arXiv 1607.02533",
        taxonomy=Taxonomy(Scenario.WHITE_BOX, Mechanism.INPUT_PERTURBATION),
        limits=("starts at the image itself: masked gradients there hide weaknesses that a random start finds",),
        cost="10 forward and backward passes of the samples still standing",
    )

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")

    step: float = 1 / 255
    steps: int = 10
    random_start: bool = False
