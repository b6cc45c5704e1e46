"""DeepFool (Moosavi-Dezfooli et al., "DeepFool: a simple and accurate method to fool deep neural networks", CVPR 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.evasion.descent import flag_blind, fooled
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.errors import UsageError
from modelward.core.families import MinimumNormMethod
from modelward.core.guard import require_labels
from modelward.core.result import Trace


@dataclass(frozen=True, kw_only=True)
class DeepFool(MinimumNormMethod):
    """Step to the nearest boundary of the linearised net until the class changes.

    With f_k = z_k - z_y and w_k its gradient, the nearest class is argmin |f_k| / ||w_k||_q, and the step |f_k| / ||w_k||_2^2 * w_k (L2)
    or |f_k| / ||w_k||_1 * sign(w_k) (Linf), a little longer by the overshoot.

    Parameters
    ----------
    steps
        linearisations at most.
    overshoot
        share by which each step is longer than to the boundary.
    candidates
        how many of the largest logits are looked at, the label's among them; ``null`` is all classes. Each costs a backward pass.

    Examples
    --------
    >>> import torch
    >>> from modelward.core.rng import generator
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2, bias=False))
    >>> _ = net[1].weight.data.copy_(torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, -1.0, -1.0]]))
    >>> x = torch.tensor([0.5, 0.6, 0.5, 0.4]).view(1, 1, 2, 2)  # a score of .2, over a gradient of length 2
    >>> found = DeepFool(norm="l2", overshoot=0.01).perturb(net, x, torch.tensor([1]), rng=generator(0))
    >>> round(float((found - x).norm()), 3)
    0.101
    """

    card: ClassVar[Card] = Card(
        name="deepfool",
        title="DeepFool, smallest change in L2 or Linf",
        paper="Moosavi-Dezfooli, Fawzi, Frossard: DeepFool: a simple and accurate method to fool deep neural networks, CVPR 2016, arXiv 1511.04599",
        taxonomy=Taxonomy(Scenario.WHITE_BOX, Mechanism.INPUT_PERTURBATION),
        limits=(
            "an upper bound on the distance to the boundary, not the distance",
            "images that just cross the boundary seldom survive rounding to 8 bits",
        ),
        cost="3 to 5 linearisations of 9 backward passes a sample",
    )

    norm: str = "l2"
    steps: int = 50
    overshoot: float = 0.02
    candidates: int | None = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0 or self.overshoot < 0 or (self.candidates is not None and self.candidates < 2):
            message = f"steps >= 0, overshoot >= 0 and candidates >= 2 are needed, got {self.steps}, {self.overshoot}, {self.candidates}"
            raise UsageError(message)

    def _search(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: torch.Generator, trace: Trace, mask: Tensor | None) -> Tensor:
        del rng
        found = x.clone()
        active, x_adv = torch.arange(len(x)), x.contiguous(memory_format=torch.channels_last)
        blind = torch.zeros(len(x), dtype=torch.bool)
        for step in range(self.steps + 1):
            leaf = x_adv.detach().requires_grad_()
            with torch.enable_grad():
                logits = model(leaf).float()
            require_labels(y[active], len(logits), logits.shape[1])
            trace.queries += len(x_adv)
            done = fooled(logits, y[active], targeted=self.targeted)
            found[active[done]] = x_adv[done]
            if step == self.steps or bool(done.all()):
                break
            move, seen = self._nearest(logits, leaf, y[active], None if mask is None else mask[active])
            trace.steps += 1
            blind[active] = ~done & ~seen
            stays = ~done & seen  # a sample without gradient would never move again
            active = active[stays]
            x_adv = (x_adv + (1 + self.overshoot) * move)[stays].clamp_(0, 1)
            if not len(active):
                break
        flag_blind(trace, blind, len(x))
        return found

    def _nearest(self, logits: Tensor, leaf: Tensor, y: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the step (N, C, H, W) to the nearest linearised boundary, and which samples have a gradient at all."""
        classes, plain = logits.shape[1], logits.detach()
        if self.targeted:
            start, others = plain.argmax(1), y[:, None]
        else:
            count = classes - 1 if self.candidates is None else min(self.candidates, classes) - 1
            start, others = y, plain.scatter(1, y[:, None], -torch.inf).topk(count, dim=1).indices
        nearest = torch.full((len(leaf), 1, 1, 1), torch.inf)
        move = torch.zeros_like(leaf)
        for number, other in enumerate(others.T):
            with torch.enable_grad():
                lead = (logits.gather(1, other[:, None]) - logits.gather(1, start[:, None])).squeeze(1)
                (grad,) = torch.autograd.grad(lead.sum(), leaf, retain_graph=number + 1 < others.shape[1])
            if mask is not None:
                grad = grad * mask
            size = (grad * grad if self.norm == "l2" else grad.abs()).sum((1, 2, 3), keepdim=True)
            gap = lead.detach().abs().add_(1e-4).view(-1, 1, 1, 1)
            away = torch.where(size > 0, gap / (size.sqrt() if self.norm == "l2" else size), torch.inf)
            step = gap / size.clamp_min(1e-30) * (grad if self.norm == "l2" else grad.sign())
            move = torch.where(away < nearest, step, move)
            nearest = torch.minimum(nearest, away)
        return move, nearest.isfinite().view(-1)
