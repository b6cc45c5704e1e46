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


def unit(grad: Tensor) -> Tensor:
    """Return every sample of gradients (N, C, H, W) at length 1, however short it is; one that is 0 stays 0.

    The largest entry is divided by first: squares of small numbers vanish.

    >>> import torch
    >>> unit(torch.tensor([3e-30, 4e-30, 0, 0]).view(2, 1, 1, 2)).flatten().tolist()
    [0.6000000238418579, 0.800000011920929, 0.0, 0.0]
    """
    top = grad.abs().flatten(1).amax(1).view(-1, 1, 1, 1)
    scaled = grad / top.where(top > 0, 1)
    length: Tensor = scaled.flatten(1).norm(dim=1).clamp_min_(1).view(-1, 1, 1, 1)
    return scaled / length


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
    """Return the nearest point of the L1 ball, by sorting and soft thresholding (Duchi et al., ICML 2008).

    >>> import torch
    >>> project_l1(torch.tensor([3.0, -1.0, 2.0]).view(1, 1, 1, 3), 3.0).flatten().tolist()
    [2.0, -0.0, 1.0]
    """
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


def project_l1_box(delta: Tensor, origin: Tensor, eps: float) -> Tensor:
    """Return the nearest point to ``delta`` of the L1 ball cut with the box: ``origin`` plus the result stays in [0, 1].

    One projection after the other is not the nearest point (Croce and Hein, "Mind the box", ICML 2021). The nearest one shrinks every
    pixel by the same amount s and cuts it at the box, with the s that leaves a total of ``eps``. The total falls piecewise linearly in s,
    with corners at a pixel's size (it is gone) and at its size less its room (it leaves the face of the box): sorting them finds s.

    Parameters
    ----------
    delta, origin
        changes and images (N, C, H, W), the images in [0, 1].
    eps
        radius, pixels in [0, 1].

    Examples
    --------
    >>> import torch
    >>> project_l1_box(torch.tensor([3.0, 1.0]).view(1, 1, 1, 2), torch.tensor([0.5, 0.0]).view(1, 1, 1, 2), 1.0).flatten().tolist()
    [0.5, 0.5]
    """
    if eps <= 0 or not delta.numel():
        return torch.zeros_like(delta)
    flat, start = delta.flatten(1), origin.flatten(1)
    size, room = flat.abs(), torch.where(flat < 0, start, 1 - start)
    kept = torch.minimum(size, room)
    over = kept.sum(1) > eps
    if bool(over.any()):
        high, space = size[over], room[over]
        corners, order = torch.cat([high, (high - space).clamp_min(0)], 1).sort(dim=1, descending=True)
        slope = torch.where(order < high.shape[1], 1.0, -1.0).cumsum(1)  # pixels that are between their two corners
        total = torch.cat([high.new_zeros(len(high), 1), (slope[:, :-1] * -corners.diff(dim=1)).cumsum(1)], 1)
        at = ((total <= eps).sum(1, keepdim=True) - 1).clamp_min(0)
        shift = corners.gather(1, at) - (eps - total.gather(1, at)) / slope.gather(1, at).clamp_min(1)
        kept[over] = torch.minimum((high - shift).clamp_min(0), space)
    # rounding must not leave the ball: the last correction is a factor just below one, and the box is convex around the image
    return (flat.sign() * kept * (eps / kept.sum(1, keepdim=True).clamp_min(1e-30)).clamp_max(1)).view_as(delta)


def random_in_ball(
    shape: tuple[int, ...], norm: str, eps: float, *, rng: torch.Generator, on_sphere: bool = False, mask: Tensor | None = None
) -> Tensor:
    """Return uniform random points (N, C, H, W) of the ``eps``-ball, or of its surface.

    Parameters
    ----------
    on_sphere
        L2 and L1: size exactly ``eps``; Linf: every pixel at -eps or +eps.
    mask
        zeros and ones of the same shape: the ball is that of the pixels with 1, the others are 0.
    """
    if norm == "linf":
        noise = torch.rand(shape, generator=rng).mul_(2).sub_(1)
        noise = (torch.where(noise < 0, -1.0, 1.0) if on_sphere else noise).mul_(eps)
        return noise if mask is None else noise.mul_(mask)
    if norm not in NORMS:
        message = f"norm is {', '.join(NORMS)}, not {norm!r}"
        raise UsageError(message)
    if norm == "l2":
        direction, size = torch.randn(shape, generator=rng), l2
    else:  # exponential sizes with random signs, divided by their sum, are uniform on the L1 sphere
        signs = torch.rand(shape, generator=rng).sub_(0.5).sign_()
        direction, size = torch.empty(shape).exponential_(generator=rng).mul_(signs), l1
    if mask is not None:
        direction.mul_(mask)
    direction /= size(direction).clamp_min(1e-12).view(-1, 1, 1, 1)
    if on_sphere or not shape[0]:
        return direction.mul_(eps)
    free = float(direction[0].numel()) if mask is None else mask.flatten(1).sum(1).clamp_min(1).view(-1, 1, 1, 1)
    radius = torch.rand((shape[0], 1, 1, 1), generator=rng) ** (1 / free)
    return direction.mul_(radius).mul_(eps)
