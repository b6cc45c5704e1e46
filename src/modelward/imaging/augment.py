"""Random changes that keep what an image shows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def random_shift(x: Tensor, most: int, *, rng: torch.Generator) -> Tensor:
    """Return images (N, C, H, W), each moved by up to ``most`` pixels in both directions, its edge repeated.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> x = torch.zeros(1, 1, 5, 5)
    >>> x[0, 0, 2, 2] = 1
    >>> moved = random_shift(x, 1, rng=generator(3))
    >>> moved.shape, float(moved.sum())
    (torch.Size([1, 1, 5, 5]), 1.0)
    """
    if not most:
        return x
    n, _, height, width = x.shape
    padded = F.pad(x, (most, most, most, most), mode="replicate")
    top, left = torch.randint(0, 2 * most + 1, (2, n), generator=rng).unbind()
    rows, columns = top[:, None] + torch.arange(height), left[:, None] + torch.arange(width)
    return padded[torch.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
