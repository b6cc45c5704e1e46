"""What the gradient attacks share: losses, input gradients, steps and projections that allocate little."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.errors import UsageError
from modelward.core.guard import require_labels
from modelward.imaging.norms import project

LOSSES = ("ce", "margin")


def attack_loss(logits: Tensor, y: Tensor, kind: str, *, targeted: bool) -> Tensor:
    """Return the sum over samples of the loss that the attacker increases.

    ``ce`` is the cross-entropy; ``margin`` is max of the other logits minus the label's logit, whose gradient does not vanish on
    saturated nets. Targeted attacks increase the negative loss with respect to the wanted class.

    Raises
    ------
    InputError
        for a label that the model has no output for.
    """
    require_labels(y, len(logits), logits.shape[1])
    if kind == "ce":
        loss = F.cross_entropy(logits, y, reduction="sum")
    elif kind == "margin":
        own = logits.gather(1, y[:, None]).squeeze(1)
        loss = (logits.scatter(1, y[:, None], -torch.inf).amax(1) - own).sum()
    else:
        message = f"loss is {' or '.join(LOSSES)}, not {kind!r}"
        raise UsageError(message)
    return -loss if targeted else loss


def fooled(logits: Tensor, y: Tensor, *, targeted: bool) -> Tensor:
    """Return a bool tensor (N,): which samples already are where the attacker wants them."""
    hit = logits.argmax(1) == y
    return hit if targeted else ~hit


def gradient(
    model: nn.Module, x: Tensor, y: Tensor, *, kind: str = "ce", targeted: bool = False, bf16: bool = False
) -> tuple[Tensor, Tensor]:
    """Return (input gradient (N, C, H, W), logits (N, K)) of one forward and backward pass."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            logits = model(leaf)
        loss = attack_loss(logits.float(), y, kind, targeted=targeted)
        (grad,) = torch.autograd.grad(loss, leaf)
    return grad, logits.detach().float()


def ascend(x_adv: Tensor, grad: Tensor, origin: Tensor, *, norm: str, step: float, eps: float) -> Tensor:
    """Return ``x_adv`` after one normalised gradient step, projected on the eps-ball around ``origin`` and on [0, 1]."""
    if norm == "linf":
        moved = torch.add(x_adv, grad.sign_(), alpha=step)
        return torch.minimum(torch.maximum(moved, origin - eps, out=moved), origin + eps, out=moved).clamp_(0, 1)
    length = grad.flatten(1).norm(dim=1).clamp_min_(1e-12).view(-1, 1, 1, 1)
    delta = x_adv + grad.mul_(step / length) - origin
    return origin + project((origin + project(delta, norm, eps)).clamp_(0, 1) - origin, norm, eps)
