"""Projected gradient descent (Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.evasion.descent import LOSSES, ascend, fooled, gradient
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.errors import UsageError
from modelward.core.families import EvasionMethod
from modelward.core.result import Trace
from modelward.imaging.norms import random_in_ball


@dataclass(frozen=True, kw_only=True)
class PGD(EvasionMethod):
    """Iterate x <- Proj(x + step * s(grad L)), with s the sign (Linf) or the direction (L2), from a random point of the ball.

    Parameters
    ----------
    eps, step
        radius and step size, pixels in [0, 1].
    steps
        gradient steps.
    random_start
        begin at a uniform point of the ball instead of the image.
    early_stop
        leave a sample alone as soon as it is misclassified. Same success, a fraction of the time.
    fast
        take the steps in bf16; every success is re-checked in fp32 and continued when it does not hold.
    loss
        ``"ce"`` or ``"margin"``.

    Examples
    --------
    >>> import torch
    >>> from modelward.core.rng import generator
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> x, y = torch.rand(5, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1])
    >>> x_adv = PGD(eps=8 / 255, steps=5).perturb(net, x, y, rng=generator(0))
    >>> bool((x_adv - x).abs().max() <= 8 / 255 + 1e-6)
    True
    """

    card: ClassVar[Card] = Card(
        name="pgd",
        title="projected gradient descent, Linf and L2",
        paper="Madry, Makelov, Schmidt, Tsipras, Vladu: Towards deep learning models resistant to adversarial attacks, ICLR 2018, arXiv 1706.06083",
        taxonomy=Taxonomy(Scenario.WHITE_BOX, Mechanism.INPUT_PERTURBATION),
        limits=("a bound from one attack: stronger attacks can only lower the accuracy",),
        cost="20 forward and backward passes of the samples still standing",
    )

    step: float = 2 / 255
    steps: int = 20
    random_start: bool = True
    early_stop: bool = True
    fast: bool = False
    loss: str = "ce"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0 or self.step < 0 or self.loss not in LOSSES:
            message = f"steps >= 0, step >= 0 and a loss of {' or '.join(LOSSES)} are needed, got {self.steps}, {self.step}, {self.loss!r}"
            raise UsageError(message)

    def _perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: torch.Generator, trace: Trace) -> Tensor:
        origin = x.contiguous(memory_format=torch.channels_last)
        x_adv = origin
        if self.random_start:
            noise = random_in_ball(tuple(x.shape), self.norm, self.eps, rng=rng)
            x_adv = (origin + noise.to(memory_format=torch.channels_last)).clamp_(0, 1)
        best, standing, blind = x_adv.clone(), torch.arange(len(x)), torch.zeros(len(x), dtype=torch.bool)
        for _ in range(self.steps):
            grad, logits = gradient(model, x_adv, y, kind=self.loss, targeted=self.targeted, bf16=self.fast)
            trace.steps, trace.queries = trace.steps + 1, trace.queries + len(x_adv)
            blind[standing] |= grad.flatten(1).abs().amax(1) == 0
            if self.early_stop:
                stays = ~self._beaten(model, x_adv, y, logits, trace)
                best[standing[~stays]] = x_adv[~stays]
                if not bool(stays.all()):
                    standing, x_adv, y, origin, grad = standing[stays], x_adv[stays], y[stays], origin[stays], grad[stays]
                if not len(standing):
                    break
            x_adv = ascend(x_adv, grad, origin, norm=self.norm, step=self.step, eps=self.eps)
        best[standing] = x_adv
        if int(blind[standing].sum()):
            trace.flag(f"zero gradient on {int(blind[standing].sum())} of {len(x)} samples that still stand: try loss='margin'")
        return best

    def _beaten(self, model: nn.Module, x_adv: Tensor, y: Tensor, logits: Tensor, trace: Trace) -> Tensor:
        """Return which samples are misclassified, confirmed in fp32 when the steps are not."""
        hit = fooled(logits, y, targeted=self.targeted)
        if self.fast and bool(hit.any()):
            with torch.no_grad():
                sure = fooled(model(x_adv[hit]).float(), y[hit], targeted=self.targeted)
            trace.queries += int(hit.sum())
            hit[hit.clone()] = sure
        return hit
