"""What a trigger search may find: many masks with patterns, or many residuals, held in stacked tensors so that one pass serves them all."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.errors import UsageError

KINDS = ("trigger", "direct", "residual")
LATENT, HIDDEN, SPREAD = 32, 64, 0.3


class Triggers(nn.Module, ABC):
    """``count`` triggers that are searched for at once; the first axis of every parameter runs over them.

    Parameters
    ----------
    count
        R, number of triggers.
    shape
        (C, H, W) of the images.
    """

    def __init__(self, count: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.count, self.shape = count, shape

    @abstractmethod
    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return images under every trigger, (R, N, C, H, W), and the size (R,) of each trigger in pixels.

        ``x`` is (1, N, C, H, W), the same images for all, or (R, N, C, H, W), each trigger's own; ``z`` is (R, D, 32), where D divides N.
        """

    @abstractmethod
    def pictures(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return masks (R, 1, H, W) and patterns (R, C, H, W), both in [0, 1]."""

    @torch.no_grad()
    def keep(self, chosen: Tensor, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Go on with some triggers only, and with what ``optimizer`` knows of them."""
        for parameter in self.parameters():
            state = optimizer.state[parameter] if optimizer is not None else {}
            state |= {name: value[chosen].clone() for name, value in state.items() if value.ndim}
            parameter.data = parameter[chosen].clone()
            parameter.grad = None
        self.count = len(chosen)

    @torch.no_grad()
    def put(self, places: Tensor, other: Triggers) -> None:
        """Take over the triggers of ``other`` at ``places``."""
        for mine, theirs in zip(self.parameters(), other.parameters(), strict=True):
            mine[places] = theirs


class _Masked(Triggers):
    """Triggers that are laid over images: x' = (1 - m) x + m p."""

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images under every mask and pattern, and the mean sum of each mask over the draws."""
        masks, patterns = self.draws(z)
        parts = x.unflatten(1, (z.shape[1], -1))  # every draw serves its share of the images
        mask, pattern = masks[:, :, None], patterns[:, :, None]
        laid = parts + mask * (pattern - parts)
        return laid.flatten(1, 2), masks.flatten(2).sum(2).mean(1)

    def pictures(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean mask and the mean pattern, weighted by the mask."""
        masks, patterns = self.draws(z)
        return masks.mean(1), (masks * patterns).sum(1) / masks.sum(1).clamp_min(1e-6)

    @abstractmethod
    def draws(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return masks (R, D, 1, H, W) and patterns (R, D, C, H, W) for D latent points."""


class DirectTriggers(_Masked):
    """One mask and one pattern each, free pixel by pixel, as Neural Cleanse searches; the latent point is not looked at."""

    def __init__(self, count: int, shape: tuple[int, int, int], *, rng: torch.Generator) -> None:
        super().__init__(count, shape)
        channels, height, width = shape
        self.mask = nn.Parameter(torch.randn(count, 1, height, width, generator=rng) * 0.1)
        self.pattern = nn.Parameter(torch.randn(count, channels, height, width, generator=rng) * 0.1)

    def draws(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same mask and pattern for every draw."""
        shape = (self.count, z.shape[1], -1, *self.shape[1:])
        return self.mask.sigmoid()[:, None].expand(shape), self.pattern.sigmoid()[:, None].expand(shape)


class GeneratedTriggers(_Masked):
    """A generator each, from a latent point of 32 numbers to a mask and a pattern."""

    def __init__(self, count: int, shape: tuple[int, int, int], *, rng: torch.Generator) -> None:
        super().__init__(count, shape)
        outputs = (1 + shape[0]) * shape[1] * shape[2]
        self.first = nn.Parameter(torch.randn(count, LATENT, HIDDEN, generator=rng) / math.sqrt(LATENT))
        self.first_bias = nn.Parameter(torch.randn(count, 1, HIDDEN, generator=rng) * 0.5)
        self.last = nn.Parameter(torch.randn(count, HIDDEN, outputs, generator=rng) * 0.1 / math.sqrt(HIDDEN))
        self.last_bias = nn.Parameter(torch.zeros(count, 1, outputs))

    def draws(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the generators make of latent points (R, D, 32)."""
        hidden = torch.baddbmm(self.first_bias, z, self.first).relu()
        made = torch.baddbmm(self.last_bias, hidden, self.last).sigmoid()
        mask, pattern = made.view(self.count, z.shape[1], -1, *self.shape[1:]).split([1, self.shape[0]], dim=2)
        return mask, pattern


class Residuals(Triggers):
    """A small convolutional network each, from an image to what is added to it: x' = clip(x + G(x)), as AdvGAN attacks."""

    WIDTH = 8

    def __init__(self, count: int, shape: tuple[int, int, int], *, rng: torch.Generator) -> None:
        super().__init__(count, shape)
        channels, width = shape[0], self.WIDTH
        self.first = nn.Parameter(torch.randn(count, width, channels, 5, 5, generator=rng) / math.sqrt(25 * channels))
        self.middle = nn.Parameter(torch.randn(count, width, width, 5, 5, generator=rng) / math.sqrt(25 * width))
        self.last = nn.Parameter(torch.randn(count, channels, width, 5, 5, generator=rng) * 0.3 / math.sqrt(25 * width))
        self.common = nn.Parameter(torch.zeros(count, *shape))

    def residual(self, x: Tensor) -> Tensor:
        """Return what every generator adds to images (1 or R, N, C, H, W): (R, N, C, H, W) in [-1, 1]."""
        hidden = F.conv2d(x.transpose(0, 1).flatten(1, 2), self.first.flatten(0, 1), padding=2, groups=len(x)).relu()
        hidden = F.conv2d(hidden, self.middle.flatten(0, 1), padding=2, groups=self.count).relu()
        made = F.conv2d(hidden, self.last.flatten(0, 1), padding=2, groups=self.count)
        added: Tensor = (made.unflatten(1, (self.count, -1)).transpose(0, 1) + self.common[:, None]).tanh()
        return added

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the changed images and the mean sum of what was added, without its sign."""
        del z
        added = self.residual(x)
        return (x + added).clamp(0, 1), added.abs().sum((2, 3, 4)).mean(1) / self.shape[0]

    def pictures(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return how much is added to a grey image, and that image afterwards."""
        del z
        grey = torch.full((1, 1, *self.shape), 0.5)
        added = self.residual(grey)[:, 0]
        return added.abs().mean(1, keepdim=True), (grey[0] + added).clamp(0, 1)


def make_triggers(kind: str, count: int, shape: tuple[int, int, int], *, rng: torch.Generator) -> Triggers:
    """Return ``count`` fresh triggers for images of ``shape``.

    Raises
    ------
    UsageError
        unless ``kind`` is ``"trigger"``, ``"direct"`` or ``"residual"``.

    Examples
    --------
    >>> made = make_triggers("trigger", 10, (3, 8, 8), rng=torch.Generator().manual_seed(0))
    >>> changed, sizes = made(torch.rand(1, 6, 3, 8, 8, generator=torch.Generator()), latent(10, 2, rng=torch.Generator().manual_seed(1)))
    >>> changed.shape, sizes.shape
    (torch.Size([10, 6, 3, 8, 8]), torch.Size([10]))
    """
    known: dict[str, type[GeneratedTriggers | DirectTriggers | Residuals]] = {
        "trigger": GeneratedTriggers,
        "direct": DirectTriggers,
        "residual": Residuals,
    }
    if kind not in known:
        message = f"a trigger search is {', '.join(KINDS)}, not {kind!r}"
        raise UsageError(message)
    return known[kind](count, shape, rng=rng)


def latent(count: int, draws: int, *, rng: torch.Generator) -> Tensor:
    """Return latent points (count, draws, 32), normal with variance .3."""
    return torch.randn(count, draws, LATENT, generator=rng) * math.sqrt(SPREAD)


class Critic(nn.Module):
    """Tells clean images from changed ones: (N, C, H, W) -> logits (N,), high for clean."""

    def __init__(self, channels: int, *, rng: torch.Generator, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(width, channels, 3, 3, generator=rng) / math.sqrt(9 * channels))
        self.middle = nn.Parameter(torch.randn(2 * width, width, 3, 3, generator=rng) / math.sqrt(9 * width))
        self.last = nn.Parameter(torch.randn(1, 2 * width, 3, 3, generator=rng) / math.sqrt(18 * width))

    def forward(self, x: Tensor) -> Tensor:
        """Return one number an image, the mean over its patches."""
        hidden = F.leaky_relu(F.conv2d(x, self.first, stride=2, padding=1), 0.2)
        hidden = F.leaky_relu(F.conv2d(hidden, self.middle, stride=2, padding=1), 0.2)
        made: Tensor = F.conv2d(hidden, self.last, padding=1).mean((1, 2, 3))
        return made
