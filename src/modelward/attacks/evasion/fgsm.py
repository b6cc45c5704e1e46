"""The fast gradient method (Goodfellow et al., "Explaining and harnessing adversarial examples", ICLR 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.evasion.descent import ascend, gradient, require_loss
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.families import EvasionMethod
from modelward.core.result import Trace


@dataclass(frozen=True, kw_only=True)
class FGSM(EvasionMethod):
    """Take one step of length ``eps``: x + eps * sign(grad L) in Linf, x + eps * grad L / |grad L| in L2.

    Parameters
    ----------
    loss
        ``"ce"``, ``"margin"`` or ``"dlr"``.

    Examples
    --------
    >>> import torch
    >>> from modelward.core.rng import generator
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> x_adv = FGSM(eps=0.1).perturb(net, torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 1]), rng=generator(0))
    >>> round(float((x_adv - 0.5).abs().max()), 4)
    0.1
    """

    card: ClassVar[Card] = Card(
        name="fgsm",
        title="fast gradient method, one step, Linf and L2",
        paper="Goodfellow, Shlens, Szegedy: Explaining and harnessing adversarial examples, ICLR 2015, arXiv 1412.6572",
        taxonomy=Taxonomy(Scenario.WHITE_BOX, Mechanism.INPUT_PERTURBATION),
        limits=("one step: a weak attack, shown to be compared with stronger ones",),
        cost="one forward and backward pass",
    )

    masks: ClassVar[bool] = True

    loss: str = "ce"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_loss(self.loss)

    def _perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: torch.Generator, trace: Trace, mask: Tensor | None = None) -> Tensor:
        del rng
        grad, _ = gradient(model, x, y, kind=self.loss, targeted=self.targeted, mask=mask)
        trace.steps, trace.queries = 1, len(x)
        return ascend(x, grad, x, norm=self.norm, step=self.eps, eps=self.eps)
