"""The momentum iterative method (Dong et al., "Boosting adversarial attacks with momentum", CVPR 2018), and what its successors add."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.evasion.descent import ascend, flag_blind, fooled, gradient, require_loss
from modelward.attacks.evasion.views import blur, diversify, gaussian
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.errors import UsageError
from modelward.core.families import EvasionMethod
from modelward.core.result import Trace
from modelward.imaging.norms import unit


@dataclass(frozen=True, kw_only=True)
class MIM(EvasionMethod):
    """Iterate g <- decay * g + grad L / mean|grad L|, x <- Proj(x + step * s(g)): a direction that other nets share.

    The methods after it look at the image in more ways before each step; they differ from this one in their defaults only.

    Parameters
    ----------
    eps, step
        radius and size of a step in ``norm``, pixels in [0, 1]; the paper divides eps by the steps.
    steps
        gradient steps; all are taken, also on samples that are misclassified: an image that just crosses the boundary does not transfer.
    decay
        share of the last direction that is kept.
    loss
        ``"ce"``, ``"margin"`` or ``"dlr"``.
    probability, shrink
        how often a step looks at the images resized to a random side in [shrink, 1] and padded with zeros at random.
    kernel
        side in pixels, odd, of the Gaussian that the gradient is smoothed with; 1 leaves it as it is.
    copies
        the gradient is averaged over x, x / 2, ..., x / 2^(copies - 1).

    Examples
    --------
    >>> import torch
    >>> from modelward.core.rng import generator
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> x, y = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 1])
    >>> round(float((MIM(eps=0.1, step=0.02).perturb(net, x, y, rng=generator(0)) - x).abs().max()), 4)
    0.1
    """

    card: ClassVar[Card] = Card(
        name="mim",
        title="momentum iterative method, Linf and L2",
        paper="Dong, Liao, Pang, Su, Zhu, Hu, Li: Boosting adversarial attacks with momentum, CVPR 2018, arXiv 1710.06081",
        taxonomy=Taxonomy(Scenario.WHITE_BOX, Mechanism.INPUT_PERTURBATION),
        limits=("made to fool other nets than the one it sees: on that one PGD is stronger at equal cost",),
        cost="10 forward and backward passes",
    )
    masks: ClassVar[bool] = True

    eps: float = 16 / 255
    step: float = 1.6 / 255
    steps: int = 10
    decay: float = 1.0
    loss: str = "ce"
    probability: float = 0.0
    shrink: float = 0.9
    kernel: int = 1
    copies: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_loss(self.loss)
        rules = {
            "steps": (self.steps >= 0, ">= 0"),
            "step": (self.step >= 0, ">= 0"),
            "decay": (self.decay >= 0, ">= 0"),
            "probability": (0 <= self.probability <= 1, "in [0, 1]"),
            "shrink": (0 < self.shrink <= 1, "in (0, 1]"),
            "kernel": (self.kernel >= 1 and self.kernel % 2 == 1, "odd and >= 1"),
            "copies": (1 <= self.copies <= 16, "1 to 16"),
        }
        for name, (holds, words) in rules.items():
            if not holds:
                message = f"{self.card.name}: {name} must be {words}, got {getattr(self, name)!r}"
                raise UsageError(message)

    def _perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: torch.Generator, trace: Trace, mask: Tensor | None = None) -> Tensor:
        origin = x.contiguous(memory_format=torch.channels_last)
        x_adv, direction = origin, torch.zeros_like(origin)
        smooth, blind = gaussian(self.kernel), torch.zeros(len(x), dtype=torch.bool)
        for _ in range(self.steps):
            grad, logits = self._look(model, x_adv, y, rng=rng, trace=trace)
            blind = ~fooled(logits, y, targeted=self.targeted) & (grad.flatten(1).abs().amax(1) == 0)
            if self.kernel > 1:
                grad = blur(grad, smooth)
            if mask is not None:
                grad.mul_(mask)
            grad = unit(grad)
            grad /= grad.abs().mean((1, 2, 3), keepdim=True).clamp_min_(1e-30)
            direction = direction.mul_(self.decay).add_(grad)
            x_adv = ascend(x_adv, direction.clone(), origin, norm=self.norm, step=self.step, eps=self.eps)
            trace.steps += 1
        flag_blind(trace, blind, len(x))
        return x_adv.clone() if x_adv is origin else x_adv

    def _look(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: torch.Generator, trace: Trace) -> tuple[Tensor, Tensor]:
        """Return the mean gradient over the copies of ``x``, each seen in its own way, and the logits of the first."""
        total, first = torch.zeros_like(x), None
        for copy in range(self.copies):
            looks = self.probability > 0 and float(torch.rand((), generator=rng)) < self.probability
            seen = partial(self._view, model, factor=0.5**copy, rng=rng if looks else None)
            grad, logits = gradient(seen, x, y, kind=self.loss, targeted=self.targeted)
            trace.queries += len(x)
            total += grad
            first = logits if first is None else first
        return total.div_(self.copies), total.new_zeros(0) if first is None else first

    def _view(self, model: nn.Module, x: Tensor, *, factor: float, rng: torch.Generator | None) -> Tensor:
        """Return the logits of ``factor`` times ``x``, resized and padded at random when there is a generator."""
        view = x if factor == 1 else x * factor
        logits: Tensor = model(view if rng is None else diversify(view, self.shrink, rng=rng))
        return logits
