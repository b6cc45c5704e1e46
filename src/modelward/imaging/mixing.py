"""Mixing images: mixup and CutMix for training, and the single-patch CutMix of SAC's probes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modelward.core.errors import UsageError


def _beta(alpha: float, rng: torch.Generator) -> float:
    """Draw from Beta(alpha, alpha) as a ratio of gamma variables, from ``rng`` alone (Johnk 1964 for alpha < 1, else by rejection)."""
    if not alpha > 0:
        message = f"alpha must be positive, got {alpha}"
        raise UsageError(message)
    while True:
        u, v = torch.rand(2, generator=rng, dtype=torch.float64).tolist()
        if alpha <= 1:
            a, b = u ** (1 / alpha), v ** (1 / alpha)
            if 0 < a + b <= 1:
                return float(a / (a + b))
        elif v <= (4 * u * (1 - u)) ** (alpha - 1):
            return float(u)


def mixup(x: Tensor, targets: Tensor, *, rng: torch.Generator, alpha: float = 0.2) -> tuple[Tensor, Tensor]:
    """Return convex combinations of images (N, C, H, W) and targets (N, K) with a shuffled batch (Zhang et al., ICLR 2018)."""
    weight, order = _beta(alpha, rng), torch.randperm(len(x), generator=rng)
    return torch.lerp(x[order], x, weight), torch.lerp(targets[order], targets, weight)


def cutmix_batch(x: Tensor, targets: Tensor, *, rng: torch.Generator, alpha: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return images with a rectangle from a shuffled batch, targets mixed by its true area (Yun et al., ICCV 2019)."""
    share, order = _beta(alpha, rng), torch.randperm(len(x), generator=rng)
    height, width = x.shape[2:]
    side = math.sqrt(1 - share)
    row, column = (int(torch.randint(0, size, (), generator=rng)) for size in (height, width))
    half_height, half_width = round(height * side) // 2, round(width * side) // 2
    top, bottom = max(0, row - half_height), min(height, row + half_height)
    left, right = max(0, column - half_width), min(width, column + half_width)
    mixed = x.clone()
    mixed[:, :, top:bottom, left:right] = x[order][:, :, top:bottom, left:right]
    weight = 1 - (bottom - top) * (right - left) / (height * width)
    return mixed, torch.lerp(targets[order], targets, weight)


def sac_cutmix(x: Tensor, *, rng: torch.Generator, side: float = 0.2, transpose: bool = False, border: float = 0.3) -> Tensor:
    """Return images (N, C, H, W) with one square patch of side ``side * W``, the same place for all, from a shuffled batch.

    The centre is drawn again until it lies within ``border * W`` of an edge, so that the object in the middle stays.

    Parameters
    ----------
    transpose
        also swap rows and columns of the result.
    """
    height, width = x.shape[2:]
    size = max(1, round(side * width))
    while True:
        row, column = (int(torch.randint(0, limit, (), generator=rng)) for limit in (height, width))
        if min(row, height - 1 - row) <= border * height or min(column, width - 1 - column) <= border * width:
            break
    top, left = (min(max(0, centre - size // 2), limit - size) for centre, limit in ((row, height), (column, width)))
    mixed = x.clone()
    mixed[:, :, top : top + size, left : left + size] = x[torch.randperm(len(x), generator=rng)][:, :, top : top + size, left : left + size]
    return mixed.transpose(2, 3).contiguous() if transpose else mixed
