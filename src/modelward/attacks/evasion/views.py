"""Other ways to look at an image, which keep a gradient attack from fitting one net too closely."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def diversify(x: Tensor, shrink: float, *, rng: torch.Generator) -> Tensor:
    """Return the batch (N, C, H, W) resized to a random side in [shrink, 1] times its own and padded with zeros at random to (H, W).

    Differentiable. One size and one place for the batch (Xie et al., "Improving transferability of adversarial examples with input
    diversity", CVPR 2019).

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> seen = diversify(torch.ones(1, 1, 10, 10), 0.5, rng=generator(0))
    >>> seen.shape, 25 <= int(seen.sum()) <= 100
    (torch.Size([1, 1, 10, 10]), True)
    """
    height, width = x.shape[-2:]
    lowest = max(1, min(math.floor(shrink * height), height - 1)) if shrink < 1 else height  # small images are resized too
    rows = int(torch.randint(lowest, height + 1, (), generator=rng))
    columns = max(1, round(width * rows / height))
    top = int(torch.randint(0, height - rows + 1, (), generator=rng))
    left = int(torch.randint(0, width - columns + 1, (), generator=rng))
    small = F.interpolate(x, (rows, columns), mode="bilinear", align_corners=False)
    return F.pad(small, (left, width - columns - left, top, height - rows - top))


def gaussian(side: int) -> Tensor:
    """Return the normalised Gaussian (side,) that spans three standard deviations to each side.

    Examples
    --------
    >>> [round(value, 3) for value in gaussian(3).tolist()]
    [0.011, 0.978, 0.011]
    """
    weight = torch.exp(-torch.linspace(-3, 3, side).square() / 2) if side > 1 else torch.ones(1)
    return weight / weight.sum()


def blur(grad: Tensor, weight: Tensor) -> Tensor:
    """Return ``grad`` (N, C, H, W) smoothed by the separable kernel ``weight`` (side,), zeros outside.

    The gradient of an attack on all small shifts of an image at once (Dong et al., "Evading defenses to transferable adversarial
    examples by translation-invariant attacks", CVPR 2019).
    """
    flat, side = grad.reshape(-1, 1, *grad.shape[-2:]), len(weight)
    flat = F.conv2d(flat, weight.view(1, 1, side, 1), padding=(side // 2, 0))
    return F.conv2d(flat, weight.view(1, 1, 1, side), padding=(0, side // 2)).view(grad.shape)
