"""What the gradient attacks share: losses, input gradients, steps and projections that allocate little."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from modelward.core.errors import InputError, UsageError
from modelward.core.guard import require_labels
from modelward.core.result import Trace
from modelward.imaging.norms import project, project_l1_box, unit

ROUNDING = 1e-5

LOSSES = ("ce", "margin", "dlr")
GAP = 0.05  # an L1 step spares pixels that are this close to the face of [0, 1] that they would run into
PIXELS = (5, 20)  # an L1 step moves so many pixels, drawn anew for every step


def margins(logits: Tensor, y: Tensor) -> Tensor:
    """Return the largest other logit less the label's, (N,): positive where the model does not say ``y``.

    Examples
    --------
    >>> import torch
    >>> margins(torch.tensor([[1.0, 3.0, 0.0]]), torch.tensor([0]))
    tensor([2.])
    """
    return logits.scatter(1, y[:, None], -torch.inf).amax(1) - logits.gather(1, y[:, None]).squeeze(1)


def logit_ratio(logits: Tensor, y: Tensor, *, targeted: bool) -> Tensor:
    """Return the difference of logits ratio (N,) of Croce and Hein, "Reliable evaluation of adversarial robustness", ICML 2020.

    Untargeted: (max of the others - z_y) / (z_1 - z_3), with z_1 >= z_2 >= ... the sorted logits. Targeted: ``y`` is wanted, and the
    divisor is z_1 - (z_3 + z_4) / 2; its numerator is the wanted class's lead, as the label to leave is whatever leads. A scale or a
    shift of all logits changes nothing. With three classes the third takes the place of the fourth.

    Raises
    ------
    InputError
        for fewer than three classes: the ratio is constant there.
    """
    if logits.shape[1] < 3:
        message = f"loss 'dlr' needs three classes, the model has {logits.shape[1]}; use loss='margin'"
        raise InputError(message)
    ordered = logits.topk(min(4, logits.shape[1]), dim=1).values
    low = (ordered[:, 2] + ordered[:, -1]) / 2 if targeted else ordered[:, 2]
    lead = margins(logits, y)
    return (-lead if targeted else lead) / (ordered[:, 0] - low).clamp_min(1e-12)


def require_loss(kind: str) -> None:
    """Raise `UsageError` for a loss that does not exist."""
    if kind not in LOSSES:
        message = f"loss is {', '.join(LOSSES[:-1])} or {LOSSES[-1]}, not {kind!r}"
        raise UsageError(message)


def attack_loss(logits: Tensor, y: Tensor, kind: str, *, targeted: bool) -> Tensor:
    """Return the sum over samples of the loss that the attacker increases.

    ``ce`` is the cross-entropy; ``margin`` is the largest other logit minus the label's, whose gradient does not vanish on saturated
    nets; ``dlr`` is the margin in units of the spread of the logits, see `logit_ratio`. Targeted attacks increase the lead of the
    wanted class.

    Raises
    ------
    InputError
        for a label that the model has no output for.
    """
    require_labels(y, len(logits), logits.shape[1])
    require_loss(kind)
    if kind == "dlr":
        return logit_ratio(logits, y, targeted=targeted).sum()
    loss = F.cross_entropy(logits, y, reduction="sum") if kind == "ce" else margins(logits, y).sum()
    return -loss if targeted else loss


def fooled(logits: Tensor, y: Tensor, *, targeted: bool) -> Tensor:
    """Return a bool tensor (N,): which samples already are where the attacker wants them."""
    hit = logits.argmax(1) == y
    return hit if targeted else ~hit


def clearly_fooled(logits: Tensor, y: Tensor, *, targeted: bool) -> Tensor:
    """Return `fooled` without those (N,) that lead by no more than rounding: the same net in another layout or batch could answer otherwise.

    Examples
    --------
    >>> import torch
    >>> clearly_fooled(torch.tensor([[5.0, 5.000001], [5.0, 5.1]]), torch.tensor([0, 0]), targeted=False)
    tensor([False,  True])
    """
    own = logits.gather(1, y[:, None]).squeeze(1)
    rival = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    lead = own - rival if targeted else rival - own
    return fooled(logits, y, targeted=targeted) & (lead > ROUNDING * logits.abs().amax(1))


def leaf_of(x: Tensor) -> Tensor:
    """Return the images (N, C, H, W) as a leaf that wants a gradient, in the channels-last layout; it shares the memory of ``x`` if it can.

    Grey images lie in both layouts at once, and convolutions take the slower one unless the strides name the other.

    Examples
    --------
    >>> import torch
    >>> leaf_of(torch.zeros(2, 1, 28, 28)).stride()
    (784, 1, 28, 1)
    """
    leaf = x.detach().contiguous(memory_format=torch.channels_last)
    _, channels, height, width = x.shape
    if channels == 1:
        leaf = leaf.as_strided(leaf.shape, (height * width, 1, width, 1))
    return leaf.requires_grad_()


def gradient(
    model: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    *,
    kind: str = "ce",
    targeted: bool = False,
    bf16: bool = False,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (input gradient (N, C, H, W), logits (N, K)) of one forward and backward pass; the gradient is 0 outside the mask."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        with torch.autocast(leaf.device.type, dtype=torch.bfloat16, enabled=bf16):
            logits = model(leaf)
        loss = attack_loss(logits.float(), y, kind, targeted=targeted)
        (grad,) = torch.autograd.grad(loss, leaf)
    if 0 in grad.stride():  # a model that sums its input gives all pixels one gradient in one place; callers write into it
        grad = grad.clone(memory_format=torch.contiguous_format)
    return grad if mask is None else grad.mul_(mask), logits.detach().float()


def ascend(x_adv: Tensor, grad: Tensor, origin: Tensor, *, norm: str, step: float, eps: float, pixels: int = PIXELS[1]) -> Tensor:
    """Return ``x_adv`` after one normalised gradient step, projected on the eps-ball around ``origin`` and on [0, 1].

    The step has size ``step`` in ``norm``: every pixel by ``step`` (Linf), along the gradient (L2), or the ``pixels`` pixels with the
    largest gradient by ``step / pixels`` each (L1; Tramer and Boneh, NeurIPS 2019), leaving out those within .05 of the face of [0, 1]
    ahead of them (Maini, Wong, Kolter, ICML 2020). ``grad`` is overwritten.
    """
    if norm == "linf":
        moved = torch.add(x_adv, grad.sign_(), alpha=step)
        return torch.minimum(torch.maximum(moved, origin - eps, out=moved), origin + eps, out=moved).clamp_(0, 1)
    if norm == "l1":
        ahead = torch.where(grad < 0, x_adv, 1 - x_adv)
        size = grad.abs().masked_fill_(ahead <= GAP, 0).flatten(1)
        most = size.topk(min(pixels, size.shape[1]), dim=1)
        jump = torch.zeros_like(size).scatter_(1, most.indices, (most.values > 0).to(size.dtype) * (step / most.values.shape[1]))
        return origin + project_l1_box(x_adv + jump.view_as(grad) * grad.sign_() - origin, origin, eps)
    delta = x_adv + unit(grad).mul_(step) - origin
    return origin + project((origin + project(delta, norm, eps)).clamp_(0, 1) - origin, norm, eps)


def draw_pixels(norm: str, rng: torch.Generator) -> int:
    """Return how many pixels the next step moves in L1; nothing is drawn for other norms."""
    return int(torch.randint(PIXELS[0], PIXELS[1] + 1, (), generator=rng)) if norm == "l1" else PIXELS[1]


def flag_blind(trace: Trace, blind: Tensor, count: int) -> None:
    """Flag samples that an attack left standing because they never had a gradient; ``blind`` is bool."""
    if int(blind.sum()):
        trace.flag(f"zero gradient on {int(blind.sum())} of {count} samples that still stand: try loss='margin' or loss='dlr'")
