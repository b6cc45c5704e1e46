"""Feature collisions (Sabour et al., ICLR 2016, arXiv 1511.05122): images that a network's features take for others, within a small change."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.errors import InputError
from modelward.core.guard import frozen
from modelward.core.progress import advance
from modelward.keys.derive import stream
from modelward.models.parts import head

Features = Callable[[Tensor], Tensor]
STEPS, FEW = 30, 64


@contextlib.contextmanager
def penultimate(model: nn.Module) -> Iterator[Features]:
    """Give the function from images (N, C, H, W) to what enters the last layer, (N, F); the model is as before after the block.

    Examples
    --------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3))
    >>> with penultimate(net) as phi:
    ...     phi(torch.zeros(2, 3, 2, 2)).shape
    torch.Size([2, 5])
    """
    seen: list[Tensor] = []
    handle = head(model)[1].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))

    def features(x: Tensor) -> Tensor:
        seen.clear()
        model(x)
        return seen[-1].flatten(1)

    try:
        with frozen(model):
            yield features
    finally:
        handle.remove()


def require_takes(model: nn.Module, images: Tensor) -> None:
    """Raise `InputError` unless the surrogate takes images (N, C, H, W) of this shape."""
    channels, height, width = images.shape[1:]
    size, own = getattr(model, "size", None), getattr(model, "channels", None)
    said = (
        f"the surrogate takes {own} channels of {size[0]}x{size[1]}"
        if size is not None and own is not None
        else "the surrogate fails on them"
    )
    fits = size is None or own is None or (own, *size) == (channels, height, width)
    if fits:
        try:
            with torch.no_grad(), penultimate(model) as phi:
                phi(images[:1].float() / 255)
        except (RuntimeError, ValueError, IndexError):
            fits = False
    if not fits:
        message = (
            f"the images have {channels} channels of {height}x{width}, and {said}; bring a surrogate that was trained on images like these"
        )
        raise InputError(message)


@dataclass(frozen=True, kw_only=True)
class Shifts:
    """What may be done to an image: each block of each channel is shifted by one multiple of ``unit``, at most ``eps``, never past 0 or 255.

    Parameters
    ----------
    eps, unit
        grey levels.
    block
        side of the blocks; 1 is a shift of each pixel.
    steps, batch
        steps of the search, and images that are searched for together.

    Examples
    --------
    >>> x = torch.tensor([[[[0, 9], [250, 255]]]], dtype=torch.uint8)
    >>> low, high = Shifts(eps=16, unit=8, block=1).limits(x)
    >>> low.int().flatten().tolist(), high.int().flatten().tolist()
    ([0, -1, -2, -2], [2, 2, 0, 0])
    """

    eps: int
    unit: int
    block: int
    steps: int = STEPS
    batch: int = 256

    def limits(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the least and the largest shift (N, C, h, w) of every block, in units."""
        below, above = -self._most(255 - pixels.float()) + 255, self._most(pixels.float())
        reach = self.eps // self.unit
        return -(below // self.unit).clamp(max=reach), ((255 - above) // self.unit).clamp(max=reach)

    def _most(self, x: Tensor) -> Tensor:
        """Return the largest pixel of every block; blocks at the lower and the right edge may be smaller."""
        return F.max_pool2d(x, self.block, ceil_mode=True) if self.block > 1 else x

    def spread(self, shifts: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return grey levels (N, C, H, W) of shifts (N, C, h, w) in units."""
        grown = shifts * self.unit
        if self.block > 1:
            grown = grown.repeat_interleave(self.block, 2).repeat_interleave(self.block, 3)
        return grown[:, :, : shape[-2], : shape[-1]]

    def search(self, model: nn.Module, pixels: Tensor, guides: Tensor, *, start: Tensor | None = None) -> Tensor:
        """Return the shifts (N, C, h, w), int16 in units, under which images come nearest to the features of their guides.

        Projected descent on the squared distance by the sign of its gradient, in steps of 2 eps / 30; what is judged, and kept, are whole
        units, so nothing is lost when they are stored.

        Parameters
        ----------
        model
            the surrogate.
        pixels, guides
            uint8 (N, C, H, W): the images, and the guide of each.
        start
            shifts (N, C, h, w) to start from; none where absent.
        """
        begin = torch.zeros_like(self.limits(pixels)[0]) if start is None else start.float()
        with penultimate(model) as phi:
            found = []
            for first in range(0, len(pixels), self.batch):
                part = slice(first, first + self.batch)
                found.append(self._search(phi, pixels[part], guides[part], begin[part]))
                advance("features", min(first + self.batch, len(pixels)), len(pixels))
        return torch.cat(found) if found else begin.to(torch.int16)

    def _search(self, phi: Features, pixels: Tensor, guides: Tensor, moving: Tensor) -> Tensor:
        """Do as `search`, for one batch."""
        x, (low, high) = pixels.float(), self.limits(pixels)
        with torch.no_grad():
            wanted = phi(guides.float() / 255)
        best, least = moving, torch.full((len(x),), torch.inf)
        for number in range(self.steps + 1):
            moving.requires_grad_(True)
            gap = self._gaps(phi, x, moving, wanted)
            better = gap.detach() < least
            least = torch.where(better, gap.detach(), least)
            best = torch.where(better[:, None, None, None], moving.detach().round(), best)
            if number == self.steps:
                break
            (slope,) = torch.autograd.grad(gap.sum(), moving)
            moving = _within(moving.detach() - self._step * slope.sign(), low, high)
        return best.detach().to(torch.int16)

    def together(self, model: nn.Module, pixels: Tensor, guides: Tensor, groups: Tensor, *, rounds: int = STEPS) -> Tensor:
        """Return shifts (N, C, h, w), int16 in units, that all images of a group share, as far as the range of each allows it.

        What many images have in common is what a network learns first. The shift of a group comes of ``rounds`` steps, each on the mean
        distance of 64 of its images to the guide of the first.

        Parameters
        ----------
        groups
            int64 (N,): the images with one number share their shift.
        """
        low, high = self.limits(pixels)
        shifts = torch.zeros_like(low)
        with penultimate(model) as phi:
            for group in groups.unique().tolist():
                own = torch.nonzero(groups == group).flatten()
                with torch.no_grad():
                    wanted = phi(guides[own[:1]].float() / 255)
                common = torch.zeros_like(low[:1])
                for number in range(rounds):
                    few = own[(torch.arange(min(FEW, len(own))) + number * FEW) % len(own)]
                    common.requires_grad_(True)
                    gap = self._gaps(phi, pixels[few].float(), _within(common.expand(len(few), -1, -1, -1), low[few], high[few]), wanted)
                    (slope,) = torch.autograd.grad(gap.mean(), common)
                    common = (common.detach() - self._step * slope.sign()).clamp(-self.eps / self.unit, self.eps / self.unit)
                shifts[own] = _within(common.expand(len(own), -1, -1, -1), low[own], high[own])
        return shifts.round().to(torch.int16)

    def dealt(self, pixels: Tensor, groups: Tensor, *, square: int, secret: bytes) -> Tensor:
        """Return shifts (N, C, h, w), int16 in units, that all images of a group share: ``eps`` up or down in each square, as the secret has it.

        Squares are coarse and the pattern is the same left and right, so that flips, crops and blur leave it; as far as the range of each image allows.

        Parameters
        ----------
        groups
            int64 (N,): the images with one number share their pattern.
        square
            side of the squares in pixels, a multiple of ``block``.
        """
        low, high = self.limits(pixels)
        shape, side = low.shape[1:], max(1, square // self.block)
        shifts = torch.zeros_like(low)
        for group in groups.unique().tolist():
            own = groups == group
            common = _mirrored(shape, side, secret, str(group)) * (self.eps // self.unit)
            shifts[own] = _within(common.expand(int(own.sum()), *shape), low[own], high[own])
        return shifts.to(torch.int16)

    @property
    def _step(self) -> float:
        """The length of a step, in units."""
        return 2 * self.eps / self.unit / STEPS

    def _gaps(self, phi: Features, x: Tensor, moving: Tensor, wanted: Tensor) -> Tensor:
        """Return the squared distance (N,) of images under whole shifts to features; the gradient passes the rounding by."""
        whole = moving + (moving.round() - moving).detach()
        return (phi((x + self.spread(whole, x.shape)) / 255) - wanted).square().sum(1)


def _mirrored(shape: tuple[int, ...], side: int, secret: bytes, what: str) -> Tensor:
    """Return signs (C, h, w) in squares of ``side`` blocks, the same left and right."""
    channels, height, width = shape
    half = -(-width // 2)
    signs = torch.randint(0, 2, (channels, -(-height // side), -(-half // side)), generator=stream(secret, "pattern", what)) * 2.0 - 1
    left = signs.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, :height, :half]
    return torch.cat([left, left[:, :, : width // 2].flip(2)], 2)


def _within(shifts: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return shifts inside their limits."""
    return torch.minimum(torch.maximum(shifts, low), high)
