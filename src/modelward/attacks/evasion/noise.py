"""Random noise of the same budget: the null control of every evasion figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Card, Function, Mechanism, Scenario, Taxonomy
from modelward.core.families import EvasionMethod
from modelward.core.result import Trace
from modelward.imaging.norms import random_in_ball


@dataclass(frozen=True, kw_only=True)
class RandomNoise(EvasionMethod):
    """Add noise of the largest size the budget allows: random signs times ``eps`` (Linf), or a point of size ``eps`` (L2, L1).

    Examples
    --------
    >>> import torch
    >>> from modelward.core.rng import generator
    >>> x = torch.full((1, 1, 4, 4), 0.5)
    >>> round(float((RandomNoise(eps=0.25).perturb(torch.nn.Flatten(), x, torch.tensor([0]), rng=generator(0)) - x).abs().min()), 3)
    0.25
    """

    card: ClassVar[Card] = Card(
        name="noise",
        title="random noise of equal norm (null control)",
        paper="none: the control that tells an attack from a disturbance",
        taxonomy=Taxonomy(Scenario.BLACK_BOX_LABEL, Mechanism.INPUT_PERTURBATION, functions=(Function.MEASUREMENT,)),
        cost="no model evaluation",
    )

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    masks: ClassVar[bool] = True

    def _perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: torch.Generator, trace: Trace, mask: Tensor | None = None) -> Tensor:
        del model, y
        trace.steps = 1
        if self.norm == "linf":
            signs = torch.randint(0, 2, x.shape, generator=rng).to(x.dtype).mul_(2).sub_(1)
            return (x + self.eps * (signs if mask is None else signs * mask)).clamp_(0, 1)
        return (x + random_in_ball(tuple(x.shape), self.norm, self.eps, rng=rng, on_sphere=True, mask=mask)).clamp_(0, 1)
