"""Projected gradient descent (Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.evasion.descent import ascend, draw_pixels, flag_blind, fooled, gradient, require_loss
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.devices import bf16_is_faster
from modelward.core.errors import UsageError
from modelward.core.families import EvasionMethod
from modelward.core.result import Trace
from modelward.imaging.norms import random_in_ball


@dataclass(frozen=True, kw_only=True)
class PGD(EvasionMethod):
    """Iterate x <- Proj(x + step * s(grad L)) from a random point of the ball.

    s is the sign (Linf), the direction (L2), or the signs of 5 to 20 pixels, drawn for every step, with the largest gradient (L1).

    Parameters
    ----------
    eps, step
        radius and size of a step in ``norm``, pixels in [0, 1]. In L1, eps 12 and step 1 are usual for 3x32x32.
    steps
        gradient steps.
    random_start
        begin at a uniform point of the ball instead of the image.
    early_stop
        leave a sample alone as soon as it is misclassified. Same success, a fraction of the time.
    fast
        take the steps in bf16 where the device multiplies bf16 by itself; every success is re-checked in fp32 and continued when it does not
        hold. On any other processor bf16 is slower than fp32, and the steps are those of ``fast=False``.
    loss
        ``"ce"``, ``"margin"`` or ``"dlr"``; the last two see where a confident net gives the first no gradient.
    restarts
        how often the whole descent is run, each from a new random point, on the samples that still stand.

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
        title="projected gradient descent, Linf, L2 and L1",
        paper="Madry, Makelov, Schmidt, Tsipras, Vladu: Towards deep learning models resistant to adversarial attacks, ICLR 2018, arXiv 1706.06083",
        taxonomy=Taxonomy(Scenario.WHITE_BOX, Mechanism.INPUT_PERTURBATION),
        limits=("a bound from one attack: stronger attacks can only lower the accuracy",),
        cost="20 forward and backward passes of the samples still standing",
    )
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "l1")
    masks: ClassVar[bool] = True

    step: float = 2 / 255
    steps: int = 20
    random_start: bool = True
    early_stop: bool = True
    fast: bool = False
    loss: str = "ce"
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_loss(self.loss)
        if self.steps < 0 or self.step < 0 or self.restarts < 1:
            message = f"steps >= 0, step >= 0 and restarts >= 1 are needed, got {self.steps}, {self.step}, {self.restarts}"
            raise UsageError(message)
        if self.restarts > 1 and not self.random_start:
            message = f"{self.restarts} restarts from the same point repeat themselves; set random_start=true"
            raise UsageError(message)

    def _perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: torch.Generator, trace: Trace, mask: Tensor | None = None) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        best, blind = self._descend(model, x, y, rng=rng, trace=trace, mask=mask)
        if self.restarts > 1:
            standing = self._standing(model, best, y, torch.arange(len(x)), trace)
            for _ in range(self.restarts - 1):
                if not len(standing):
                    break
                region = None if mask is None else mask[standing]
                best[standing], blind[standing] = self._descend(model, x[standing], y[standing], rng=rng, trace=trace, mask=region)
                standing = self._standing(model, best, y, standing, trace)
            blind &= torch.zeros_like(blind).index_fill_(0, standing, value=True)
        flag_blind(trace, blind, len(x))
        return best

    def _standing(self, model: nn.Module, x_adv: Tensor, y: Tensor, among: Tensor, trace: Trace) -> Tensor:
        """Return the indices of those samples ``among`` all that are not where the attacker wants them."""
        with torch.no_grad():
            hit = fooled(model(x_adv[among]).float(), y[among], targeted=self.targeted)
        trace.queries += len(among)
        return among[~hit]

    def _descend(
        self, model: nn.Module, origin: Tensor, y: Tensor, *, rng: torch.Generator, trace: Trace, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return where one descent ends, and which samples stand because they had a zero gradient."""
        x_adv = origin
        if self.random_start:
            noise = random_in_ball(tuple(origin.shape), self.norm, self.eps, rng=rng, mask=mask)
            x_adv = (origin + noise.to(memory_format=torch.channels_last)).clamp_(0, 1)
        best, standing = x_adv.clone(), torch.arange(len(origin))
        blind = torch.zeros(len(origin), dtype=torch.bool)
        for _ in range(self.steps):
            grad, logits = gradient(model, x_adv, y, kind=self.loss, targeted=self.targeted, bf16=self._in_bf16(x_adv), mask=mask)
            trace.steps, trace.queries = trace.steps + 1, trace.queries + len(x_adv)
            blind[standing] |= grad.flatten(1).abs().amax(1) == 0
            if self.early_stop:
                stays = ~self._beaten(model, x_adv, y, logits, trace)
                best[standing[~stays]] = x_adv[~stays]
                if not bool(stays.all()):
                    standing, x_adv, y, origin, grad = standing[stays], x_adv[stays], y[stays], origin[stays], grad[stays]
                    mask = None if mask is None else mask[stays]
                if not len(standing):
                    break
            pixels = draw_pixels(self.norm, rng)
            x_adv = ascend(x_adv, grad, origin, norm=self.norm, step=self.step, eps=self.eps, pixels=pixels)
        best[standing] = x_adv
        return best, blind & torch.zeros_like(blind).index_fill_(0, standing, value=True)

    def _in_bf16(self, x: Tensor) -> bool:
        """Return whether the steps are taken in bf16: on demand, and only where that is faster."""
        return self.fast and bf16_is_faster(x.device)

    def _beaten(self, model: nn.Module, x_adv: Tensor, y: Tensor, logits: Tensor, trace: Trace) -> Tensor:
        """Return which samples are misclassified, confirmed in fp32 when the steps are not."""
        hit = fooled(logits, y, targeted=self.targeted)
        if self._in_bf16(x_adv) and bool(hit.any()):
            with torch.no_grad():
                sure = fooled(model(x_adv[hit]).float(), y[hit], targeted=self.targeted)
            trace.queries += int(hit.sum())
            hit[hit.clone()] = sure
        return hit
