"""Small filters of images (N, C, H, W) in [0, 1]: mean, median, fewer levels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from modelward.core.errors import UsageError


def _windows(x: Tensor, size: int) -> Tensor:
    """Return (N, C, H, W, size * size): what lies around every pixel, edges repeated."""
    if size < 1 or size % 2 == 0:
        message = f"the side of a window is odd and positive, got {size}"
        raise UsageError(message)
    half = size // 2
    return F.pad(x, (half, half, half, half), mode="replicate").unfold(2, size, 1).unfold(3, size, 1).flatten(4)


def mean_filter(x: Tensor, size: int = 3) -> Tensor:
    """Return the mean over the window of ``size`` x ``size`` pixels around each pixel.

    >>> import torch
    >>> mean_filter(torch.eye(3).view(1, 1, 3, 3))[0, 0, 1, 1]
    tensor(0.3333)
    """
    return _windows(x, size).mean(-1)


def median_filter(x: Tensor, size: int = 3) -> Tensor:
    """Return the median over the window of ``size`` x ``size`` pixels around each pixel.

    >>> import torch
    >>> dot = torch.zeros(1, 1, 5, 5)
    >>> dot[0, 0, 2, 2] = 1
    >>> float(median_filter(dot).sum())
    0.0
    """
    return _windows(x, size).median(-1).values


def round_levels(x: Tensor, levels: int) -> Tensor:
    """Return ``x`` rounded to the nearest of ``levels`` equally spaced values from 0 to 1; raises `UsageError` for fewer than 2.

    >>> import torch
    >>> round_levels(torch.tensor([0.0, 0.3, 0.6, 1.0]), 3).tolist()
    [0.0, 0.5, 0.5, 1.0]
    """
    if levels < 2:
        message = f"an image has at least 2 levels, got {levels}"
        raise UsageError(message)
    return x.mul(levels - 1).add(0.5).floor().clamp(0, levels - 1).div(levels - 1)
