"""Common corruptions by name and severity 1-5, for small images, after ImageNet-C / CIFAR-10-C (Hendrycks and Dietterich, ICLR 2019).

The tables are those of CIFAR-10-C where it has the kind; others are marked. Noise comes from the passed generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from modelward.core.errors import UsageError
from modelward.core.nearest import nearest
from modelward.imaging.codecs import JPEG_SEVERITY, roundtrip
from modelward.imaging.quantise import to_float, to_uint8

Corruption = Callable[[Tensor, float, torch.Generator], Tensor]


def gaussian_noise(x: Tensor, sigma: float, *, rng: torch.Generator) -> Tensor:
    """Return ``x`` with normal noise of standard deviation ``sigma``, clamped to [0, 1]."""
    return x.add(torch.randn(x.shape, generator=rng), alpha=sigma).clamp_(0, 1)


def uniform_noise(x: Tensor, width: float, *, rng: torch.Generator) -> Tensor:
    """Return ``x`` with uniform noise in [-width, width], clamped to [0, 1]."""
    return x.add(torch.rand(x.shape, generator=rng).mul_(2).sub_(1), alpha=width).clamp_(0, 1)


def shot_noise(x: Tensor, photons: float, *, rng: torch.Generator) -> Tensor:
    """Return ``x`` as seen with ``photons`` photons at white."""
    return torch.poisson(x * photons, generator=rng).div_(photons).clamp_(0, 1)


def impulse_noise(x: Tensor, amount: float, *, rng: torch.Generator) -> Tensor:
    """Return ``x`` with a share ``amount`` of its values set to black or white."""
    draw = torch.rand(x.shape, generator=rng)
    return torch.where(draw < amount / 2, 0.0, torch.where(draw > 1 - amount / 2, 1.0, x))


def speckle_noise(x: Tensor, sigma: float, *, rng: torch.Generator) -> Tensor:
    """Return ``x`` with noise in proportion to its brightness."""
    return (x + x * sigma * torch.randn(x.shape, generator=rng)).clamp_(0, 1)


def _convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Return every channel of ``x`` convolved with one odd-sized kernel (h, w), edges repeated."""
    channels, (height, width) = x.shape[1], kernel.shape
    padded = F.pad(x, (width // 2, width // 2, height // 2, height // 2), mode="replicate")
    return F.conv2d(padded, kernel.expand(channels, 1, height, width).to(x.dtype), groups=channels)


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Return ``x`` blurred with a Gaussian of ``sigma`` pixels; separable, differentiable."""
    radius = max(1, math.ceil(3 * sigma))
    weights = torch.exp(-(torch.arange(-radius, radius + 1).float() ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    return _convolve(_convolve(x, weights[None, :]), weights[:, None])


def defocus_blur(x: Tensor, radius: float) -> Tensor:
    """Return ``x`` blurred with a disk of ``radius`` pixels."""
    half = max(1, math.ceil(radius))
    grid = torch.arange(-half, half + 1).float()
    disk = (radius + 0.5 - (grid[:, None] ** 2 + grid[None, :] ** 2).sqrt()).clamp(0, 1)
    return _convolve(x, disk / disk.sum())


def motion_blur(x: Tensor, length: float) -> Tensor:
    """Return ``x`` moved horizontally by ``length`` pixels during the exposure."""
    size = max(3, 2 * int(length // 2) + 1)
    return _convolve(x, torch.full((1, size), 1 / size))


def contrast(x: Tensor, factor: float) -> Tensor:
    """Return ``x`` with its distance to each channel's mean multiplied by ``factor``."""
    mean = x.mean((2, 3), keepdim=True)
    return ((x - mean) * factor + mean).clamp(0, 1)


def brightness(x: Tensor, shift: float) -> Tensor:
    """Return ``x`` brighter by ``shift``."""
    return (x + shift).clamp(0, 1)


def saturate(x: Tensor, factor: float) -> Tensor:
    """Return ``x`` with its distance to grey multiplied by ``factor``; grey images stay."""
    if x.shape[1] == 1:
        return x
    grey = x.mean(1, keepdim=True)
    return ((x - grey) * factor + grey).clamp(0, 1)


def pixelate(x: Tensor, scale: float) -> Tensor:
    """Return ``x`` shrunk to ``scale`` of its size and enlarged again without smoothing."""
    small = (max(1, round(x.shape[2] * scale)), max(1, round(x.shape[3] * scale)))
    return F.interpolate(F.interpolate(x, small, mode="area"), x.shape[2:], mode="nearest")


def _codec(name: str) -> Corruption:
    return lambda x, quality, _: to_float(roundtrip(to_uint8(x), name, int(quality)))


_TABLE: dict[str, tuple[Corruption, tuple[float, float, float, float, float]]] = {
    "gaussian_noise": (lambda x, v, rng: gaussian_noise(x, v, rng=rng), (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (lambda x, v, rng: shot_noise(x, v, rng=rng), (500, 250, 100, 75, 50)),
    "impulse_noise": (lambda x, v, rng: impulse_noise(x, v, rng=rng), (0.01, 0.02, 0.03, 0.05, 0.07)),
    "speckle_noise": (lambda x, v, rng: speckle_noise(x, v, rng=rng), (0.06, 0.10, 0.12, 0.16, 0.20)),
    "uniform_noise": (lambda x, v, rng: uniform_noise(x, v, rng=rng), (0.05, 0.08, 0.12, 0.16, 0.20)),  # ours
    "gaussian_blur": (lambda x, v, _: gaussian_blur(x, v), (0.4, 0.6, 0.7, 0.8, 1.0)),
    "defocus_blur": (lambda x, v, _: defocus_blur(x, v), (0.3, 0.4, 0.5, 1.0, 1.5)),
    "motion_blur": (lambda x, v, _: motion_blur(x, v), (3, 3, 5, 5, 7)),  # ours: horizontal
    "contrast": (lambda x, v, _: contrast(x, v), (0.75, 0.5, 0.4, 0.3, 0.15)),
    "brightness": (lambda x, v, _: brightness(x, v), (0.05, 0.10, 0.15, 0.20, 0.30)),
    "saturate": (lambda x, v, _: saturate(x, v), (0.3, 0.1, 1.5, 2.0, 2.5)),
    "pixelate": (lambda x, v, _: pixelate(x, v), (0.95, 0.90, 0.85, 0.75, 0.65)),
    "jpeg": (_codec("jpeg"), (25, 18, 15, 10, 7)),
    "jpeg2000": (_codec("jpeg2000"), (25, 18, 15, 10, 7)),  # ours: the scale of `codecs`
    "webp": (_codec("webp"), (25, 18, 15, 10, 7)),  # ours
}
CORRUPTIONS = tuple(_TABLE)


def corrupt(x: Tensor, name: str, severity: int, *, rng: torch.Generator) -> Tensor:
    """Return float images (N, C, H, W) in [0, 1] under the corruption ``name`` at ``severity`` 1 to 5.

    Raises
    ------
    UsageError
        for an unknown name or severity.

    Examples
    --------
    >>> import torch
    >>> corrupt(torch.full((1, 1, 8, 8), 0.5), "brightness", 1, rng=torch.Generator()).unique().tolist()
    [0.550000011920929]
    """
    if name not in _TABLE:
        message = f"there is no corruption {name!r}{nearest(name, _TABLE)}; known: {', '.join(_TABLE)}"
        raise UsageError(message)
    if severity not in {1, 2, 3, 4, 5}:
        message = f"severity is 1 to 5, not {severity}"
        raise UsageError(message)
    apply, levels = _TABLE[name]
    return apply(x, levels[severity - 1], rng)


assert _TABLE["jpeg"][1] == JPEG_SEVERITY  # noqa: S101  # one table, named twice
