"""Sizes of image differences (N, C, H, W), projections on norm balls, random points in them."""

from __future__ import annotations

import torch
from torch import Tensor

from modelward.core.errors import UsageError

NORMS = ("linf", "l2", "l1")


def linf(delta: Tensor) -> Tensor:
    """Return the largest absolute change of each sample (N,)."""
    if not delta[0:1].numel():
        return delta.new_zeros(len(delta))
    return delta.abs().flatten(1).amax(1)


def l2(delta: Tensor) -> Tensor:
    """Return the Euclidean norm of each sample (N,)."""
    return (delta * delta).flatten(1).sum(1).sqrt()


def l1(delta: Tensor) -> Tensor:
    """Return the sum of absolute changes of each sample (N,)."""
    return delta.abs().flatten(1).sum(1)


def l0_fraction(delta: Tensor) -> Tensor:
    """Return the share of changed pixels of each sample (N,); a pixel counts once for all its channels."""
    return (delta != 0).any(1).flatten(1).float().mean(1)


def project(delta: Tensor, norm: str, eps: float) -> Tensor:
    """Return the nearest point of the ``eps``-ball to each sample of ``delta``.

    >>> import torch
    >>> project(torch.tensor([3.0, 4.0]).view(1, 1, 1, 2), "l2", 1.0).flatten().tolist()
    [0.6000000238418579, 0.800000011920929]
    """
    if norm == "linf":
        return delta.clamp(-eps, eps)
    if norm == "l2":
        return delta * (eps / l2(delta).clamp_min(1e-12)).clamp_max(1).view(-1, 1, 1, 1)
    if norm == "l1":
        return project_l1(delta, eps)
    message = f"norm is {', '.join(NORMS)}, not {norm!r}"
    raise UsageError(message)


def project_l1(delta: Tensor, eps: float) -> Tensor:
    """Return the nearest point of the L1 ball, by sorting and soft thresholding (Duchi et al., ICML 2008)."""
    if eps <= 0 or not delta.numel():
        return torch.zeros_like(delta)
    flat = delta.flatten(1)
    ordered = flat.abs().sort(dim=1, descending=True).values
    excess = ordered.cumsum(1) - eps
    counts = torch.arange(1, flat.shape[1] + 1, dtype=flat.dtype)
    last = (ordered * counts > excess).sum(1, keepdim=True).clamp_min(1)
    shift = (excess.gather(1, last - 1) / last).clamp_min(0)
    inside = (flat.abs().sum(1, keepdim=True) <= eps).to(flat.dtype)
    return (flat.sign() * (flat.abs() - shift * (1 - inside)).clamp_min(0)).view_as(delta)


def random_in_ball(shape: tuple[int, ...], norm: str, eps: float, *, rng: torch.Generator, on_sphere: bool = False) -> Tensor:
    """Return uniform random points (N, C, H, W) of the ``eps``-ball, or of its surface.

    Parameters
    ----------
    on_sphere
        L2: length exactly ``eps``; Linf: every pixel at -eps or +eps.
    """
    if norm == "linf":
        noise = torch.rand(shape, generator=rng).mul_(2).sub_(1)
        return (torch.where(noise < 0, -1.0, 1.0) if on_sphere else noise).mul_(eps)
    if norm == "l2":
        direction = torch.randn(shape, generator=rng)
        direction /= l2(direction).clamp_min(1e-12).view(-1, 1, 1, 1)
        if on_sphere or not shape[0]:
            return direction.mul_(eps)
        radius = torch.rand((shape[0], 1, 1, 1), generator=rng) ** (1 / direction[0].numel())
        return direction.mul_(radius).mul_(eps)
    message = f"random points are drawn in linf or l2, not in {norm!r}"
    raise UsageError(message)
