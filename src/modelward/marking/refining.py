"""Refinement of stamped images: sign steps away from what a network takes for the target class, and towards entanglement with it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.guard import predict
from modelward.marking.entangle import Entanglement, representations

LAST_STEPS, PATIENCE = 5, 50  # downward steps at the end, and at most before the first upward one


@dataclass(frozen=True)
class Refinement:
    """Steps by which stamped images become key images (Jia et al., USENIX Security 2021, algorithm 1).

    Parameters
    ----------
    entanglement, layers
        the loss, and how many representations before the logits it is taken over.
    rounds, lr, certain
        upward steps, their size in [0, 1], and the share of images that may be taken for the target class before each.
    """

    entanglement: Entanglement
    layers: int
    rounds: int
    lr: float
    certain: float

    def place(self, model: nn.Module, x: Tensor, beside: Tensor, side: int) -> tuple[int, int]:
        """Return the corner at which brighter pixels in a square of ``side`` raise the entanglement of ``x`` (N, C, H, W) most."""
        field = self._rise(model, x, beside).mean(0).sum(0)
        sums = F.avg_pool2d(field[None, None], side, stride=1)[0, 0]
        best = int(sums.argmax())
        return best // sums.shape[1], best % sums.shape[1]

    def refined(self, model: nn.Module, x: Tensor, beside: Tensor, target: int) -> Tensor:
        """Return images (N, C, H, W) in [0, 1] after sign steps: down in the target's logit while too many are taken for it, up in the entanglement."""
        downs = 0
        for _ in range(self.rounds):
            while downs < PATIENCE and float((predict(model, x).argmax(1) == target).double().mean()) > self.certain:
                x, downs = self._down(model, x, target), downs + 1
            x = (x + self.lr * self._rise(model, x, beside).sign()).clamp_(0, 1)
        for _ in range(LAST_STEPS if self.rounds else 0):
            x = self._down(model, x, target)
        return x

    def _rise(self, model: nn.Module, x: Tensor, beside: Tensor) -> Tensor:
        """Return the gradient (N, C, H, W) of the entanglement of ``x`` with images of the target class, with respect to ``x``."""
        leaf = x.clone().requires_grad_()
        groups = (torch.arange(2 * len(x)) < len(x)).long()
        with torch.enable_grad():
            _, layers = representations(model, torch.cat([leaf, beside]), self.layers)
            (grad,) = torch.autograd.grad(self.entanglement(layers, groups), leaf)
        return grad

    def _down(self, model: nn.Module, x: Tensor, target: int) -> Tensor:
        """Return images one step further from the target class."""
        leaf = x.clone().requires_grad_()
        with torch.enable_grad():
            (grad,) = torch.autograd.grad(model(leaf)[:, target].sum(), leaf)
        return (x - self.lr * grad.sign()).clamp_(0, 1)
