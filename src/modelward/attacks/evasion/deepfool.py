"""DeepFool (Moosavi-Dezfooli et al., "DeepFool: a simple and accurate method to fool deep neural networks", CVPR 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.evasion.descent import clearly_fooled, flag_blind, leaf_of
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
            leaf = leaf_of(x_adv)
            with torch.enable_grad():
                logits = model(leaf).float()
            require_labels(y[active], len(logits), logits.shape[1])
            trace.queries += len(x_adv)
            done = clearly_fooled(logits, y[active], targeted=self.targeted)
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
        order, leads = 2 if self.norm == "l2" else 1, plain.gather(1, others) - plain.gather(1, start[:, None])
        grads = []
        for number, other in enumerate(others.T):
            lead = torch.zeros_like(plain).scatter_(1, other[:, None], 1).scatter_(1, start[:, None], -1)
            (grad,) = torch.autograd.grad(logits, leaf, lead, retain_graph=number + 1 < others.shape[1])
            grads.append(grad if mask is None else grad * mask)
        if not grads:  # a single class has no boundary
            return torch.zeros_like(leaf), torch.zeros(len(leaf), dtype=torch.bool)
        sizes = torch.stack([torch.linalg.vector_norm(grad, order, dim=(1, 2, 3)) for grad in grads], 1)
        gaps = leads.abs().add_(1e-4)
        nearest, which = torch.where(sizes > 0, gaps / sizes, torch.inf).min(1)
        gap, size = (found.gather(1, which[:, None]).view(-1, 1, 1, 1) for found in (gaps, sizes.clamp_min(1e-15)))
        grad = torch.stack(grads)[which, torch.arange(len(leaf))]
        return gap / size * (grad / size if self.norm == "l2" else grad.sign()), nearest.isfinite()
