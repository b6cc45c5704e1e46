"""Images made by gradient descent: Adam over a batch in which every image stops by itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]
_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8


def descend(loss: Loss, x: Tensor, *, steps: int, lr: float, radius: float = 1.0) -> Tensor:
    """Return images (N, C, H, W) in [0, 1], at most ``radius`` from ``x`` in Linf, after up to ``steps`` Adam steps each.

    An image whose own loss is 0 is left where it is and costs no further pass, so that what becomes of it does not depend on its neighbours.

    Parameters
    ----------
    loss
        ``(images (n, C, H, W), their positions in x (n,)) -> losses (n,)``, none below 0 where 0 means done.
    x
        where the images start, (N, C, H, W) in [0, 1]; not changed.
    steps, lr
        of Adam; ``lr`` in pixels of [0, 1] a step.

    Examples
    --------
    >>> far = torch.tensor([0.2, 0.9]).view(2, 1, 1, 1)
    >>> descend(lambda z, _: (0.5 - z.flatten(1).amax(1)).relu(), far, steps=50, lr=0.1).flatten() >= 0.5
    tensor([True, True])
    """
    low, high = (x - radius).clamp_min_(0), (x + radius).clamp_max_(1)
    made, mean, square = x.detach().clone(), torch.zeros_like(x), torch.zeros_like(x)
    active = torch.arange(len(x))
    for step in range(1, steps + 1):
        leaf = made[active].requires_grad_()
        with torch.enable_grad():
            losses = loss(leaf, active)
            (grad,) = torch.autograd.grad(losses.sum(), leaf)
        going = losses.detach() != 0
        active, grad = active[going], grad[going]
        if not len(active):
            break
        mean[active] = _FIRST * mean[active] + (1 - _FIRST) * grad
        square[active] = _SECOND * square[active] + (1 - _SECOND) * grad.square()
        size = (square[active] / (1 - _SECOND**step)).sqrt_().add_(_TINY)
        moved = made[active] - lr * (mean[active] / (1 - _FIRST**step)) / size
        made[active] = torch.minimum(torch.maximum(moved, low[active]), high[active])
    return made
