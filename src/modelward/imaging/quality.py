"""Image quality: PSNR and SSIM per sample."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from modelward.core.errors import InputError


def _same(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim != 4:
        message = f"two image batches (N, C, H, W) of the same shape are compared, got {tuple(a.shape)} and {tuple(b.shape)}"
        raise InputError(message)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio (N,) in dB of images in [0, 1]; infinite for equal images.

    >>> import torch
    >>> round(float(psnr(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 0.1))), 3)
    20.0
    """
    _same(a, b)
    return -10 * torch.log10((a.double() - b.double()).square().flatten(1).mean(1))


def ssim(a: Tensor, b: Tensor, *, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Return the structural similarity (N,) of images in [0, 1] (Wang et al. 2004), averaged over pixels and channels.

    A Gaussian window of ``window`` pixels, C1 = .01^2, C2 = .03^2, valid positions only; images smaller than the window use a window of their
    size.
    """
    _same(a, b)
    side = min(window, a.shape[2], a.shape[3])
    grid = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    line = torch.exp(-(grid**2) / (2 * sigma**2))
    kernel = (line[:, None] * line[None, :] / line.sum() ** 2).expand(a.shape[1], 1, side, side)

    def mean(image: Tensor) -> Tensor:
        return F.conv2d(image, kernel, groups=a.shape[1])

    x, y = a.double(), b.double()
    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    values = ((2 * mx * my + c1) * (2 * cov + c2)) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return values.flatten(1).mean(1)
