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


def cutout(x: Tensor, side: float = 0.5, *, rng: torch.Generator) -> Tensor:
    """Return images (N, C, H, W) with a grey square of ``side`` times their own somewhere, cut off by the border (DeVries and Taylor, 2017).

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> holes = cutout(torch.ones(2, 1, 8, 8), rng=generator(0))
    >>> sorted(set(holes.flatten().tolist())), bool((holes == 0.5).sum() <= 32)
    ([0.5, 1.0], True)
    """
    n, _, height, width = x.shape
    middles = torch.rand(2, n, 1, generator=rng) * torch.tensor([height, width]).view(2, 1, 1)
    inside = [(torch.arange(size) + 0.5 - middle).abs() <= side * size / 2 for size, middle in zip((height, width), middles, strict=True)]
    return torch.where((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.5, x)


def augmix(x: Tensor, severity: float = 3.0, *, chains: int = 3, rng: torch.Generator) -> Tensor:
    """Return images (N, C, H, W) in [0, 1] blended with ``chains`` chains of one to three random changes each (Hendrycks et al., ICLR 2020).

    The changes are AugMix's own nine, of a strength of up to ``severity`` of 10; without its consistency loss.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> x = torch.rand(4, 3, 8, 8, generator=generator(0))
    >>> made = augmix(x, rng=generator(1))
    >>> made.shape, bool((made >= 0).all() and (made <= 1).all()), bool((augmix(x, chains=0, rng=generator(1)) == x).all())
    (torch.Size([4, 3, 8, 8]), True, True)
    """
    if not chains:
        return x
    n = len(x)
    draws = torch.empty(n, chains).exponential_(generator=rng)
    weights = draws / draws.sum(1, keepdim=True)  # Dirichlet(1, ..., 1)
    kept = torch.rand(n, generator=rng)[:, None, None, None]  # Beta(1, 1)
    mixed = torch.zeros_like(x)
    for weight in weights.unbind(1):
        changed, depth = x.clone(), torch.randint(1, 4, (n,), generator=rng)
        for step in range(3):
            going = torch.nonzero(depth > step).flatten()
            changed[going] = _changed(changed[going], severity, rng)
        mixed += weight[:, None, None, None] * changed
    return (kept * x + (1 - kept) * mixed).clamp(0, 1)


def _changed(x: Tensor, severity: float, rng: torch.Generator) -> Tensor:
    """Return every image after one change of its own: turned, sheared, moved, posterised, solarised, stretched or equalised."""
    n, made = len(x), x.clone()
    kind = torch.randint(0, 9, (n,), generator=rng)
    strength = torch.rand(n, generator=rng) * severity / 10
    signed = strength * (2 * torch.randint(0, 2, (n,), generator=rng) - 1)
    for group, change in enumerate((_moved, _posterised, _solarised, _stretched, _equalised)):
        own = torch.nonzero((kind - 4).clamp_min(0) == group).flatten()
        if len(own):
            made[own] = change(x[own], kind[own], (signed if change is _moved else strength)[own])
    return made


def _moved(x: Tensor, kind: Tensor, strength: Tensor) -> Tensor:
    """Return images turned by up to 30 degrees (kind 0), sheared by up to .3 (1, 2) or moved by up to a third (3, 4) of their own side."""
    zero, angle = torch.zeros_like(strength), torch.where(kind == 0, strength * torch.pi / 6, 0.0)
    shear, shift = strength * 0.3, strength * 2 / 3
    rows = [
        torch.stack([angle.cos(), -angle.sin() + torch.where(kind == 1, shear, zero), torch.where(kind == 3, shift, zero)], 1),
        torch.stack([angle.sin() + torch.where(kind == 2, shear, zero), angle.cos(), torch.where(kind == 4, shift, zero)], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _posterised(x: Tensor, _: Tensor, strength: Tensor) -> Tensor:
    """Return images of 8 bits with up to four of them, the lowest, cleared."""
    step = 2.0 ** (4 * strength).round()[:, None, None, None]
    return (x * 255 / step).floor() * step / 255


def _solarised(x: Tensor, _: Tensor, strength: Tensor) -> Tensor:
    """Return images with the brightest values, the more the stronger, turned dark."""
    return torch.where(x >= 1 - strength[:, None, None, None], 1 - x, x)


def _stretched(x: Tensor, _: Tensor, __: Tensor) -> Tensor:
    """Return images of which every channel goes from 0 to 1."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp_min(1e-6), x)


def _equalised(x: Tensor, _: Tensor, __: Tensor) -> Tensor:
    """Return images of which every channel has its 256 values spread evenly over its pixels."""
    values = (x * 255).round().long().flatten(2)
    counts = torch.zeros(*values.shape[:2], 256).scatter_add_(2, values, torch.ones_like(values, dtype=torch.float32))
    share = counts.cumsum(2) / values.shape[2]
    return share.gather(2, values).view_as(x)
