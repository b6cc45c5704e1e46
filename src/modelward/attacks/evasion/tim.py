"""Translation invariance (Dong et al., "Evading defenses to transferable adversarial examples by translation-invariant attacks", CVPR 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from modelward.attacks.evasion.mim import MIM
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy


@dataclass(frozen=True, kw_only=True)
class TIM(MIM):
    """Smooth the gradient of `MIM` with a Gaussian: the attack on all small shifts of the image at once. 7 fits small images better than 15.

    Examples
    --------
    >>> TIM(kernel=7).kernel
    7
    """

    card: ClassVar[Card] = Card(
        name="tim",
        title="momentum with a translation-invariant gradient, Linf and L2",
        paper="Dong, Pang, Su, Zhu: Evading defenses to transferable adversarial examples by translation-invariant attacks, CVPR 2019, arXiv 1904.02884",
        taxonomy=Taxonomy(Scenario.WHITE_BOX, Mechanism.INPUT_PERTURBATION),
        limits=MIM.card.limits,
        cost="10 forward and backward passes",
    )

    kernel: int = 15
