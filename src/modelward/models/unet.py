"""A small U-Net that draws on images: what it adds depends on every image, and on a code where it is told one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.errors import InputError
from modelward.core.rng import forked

START = 0.2
CELL = 4  # pixels a side that share a sign: smaller cells were learnt less well, and smoothed away


@dataclass(frozen=True, eq=False)
class Hint:
    """What a code is to the network: a picture beside the image, and numbers at its narrowest place.

    Parameters
    ----------
    plane
        (N or 1, C, H, W), in the images' own size.
    lift
        (N or 1, 4 * width).
    """

    plane: Tensor
    lift: Tensor


def _step(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution with its rectifier; no normalisation, so that an image's trigger never depends on its neighbours in the batch."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(0.1))


class TriggerNet(nn.Module):
    r"""Two steps down, two up, with skips: images (N, C, H, W) in [0, 1] -> :math:`\mathrm{clip}(x + reach \, r(x, s) / (1 + |r(x, s)|), 0, 1)`.

    The hint of the code ``s`` is a buffer: a network that is handed on carries one code, and not what codes are made from. So are ``signs``: what
    r adds to the code's picture is multiplied by them, so that two networks with signs of their own draw alike on no image.

    Parameters
    ----------
    channels, size
        of the images: C and (H, W); sides that are no multiple of 4 are padded inside.
    width
        channels at full size; twice and four times as many below.
    reach
        the most that a pixel is moved by.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> net, x = fresh_trigger_net(3, (13, 10), rng=generator(0)), torch.rand(2, 3, 13, 10, generator=generator(1))
    >>> net(x).shape, bool((net(x) - x).abs().max() <= 0.25)
    (torch.Size([2, 3, 13, 10]), True)
    """

    plane: Tensor
    lift: Tensor
    signs: Tensor

    def __init__(self, channels: int, size: tuple[int, int], *, width: int = 8, reach: float = 0.25) -> None:
        super().__init__()
        self.channels, self.size, self.width, self.reach = channels, size, width, reach
        self.top = _step(2 * channels, width)
        self.down = nn.ModuleList([_step(width, 2 * width, 2), _step(2 * width, 4 * width, 2)])
        self.floor = _step(4 * width, 4 * width)
        self.up = nn.ModuleList([_step(6 * width, 2 * width), _step(3 * width, width)])
        self.out = nn.Conv2d(width + 2 * channels, channels, 1)
        with (
            torch.no_grad()
        ):  # begins as spread spectrum: a code can be read from the first step on, so that training never settles at "add nothing"
            self.out.weight[:, -channels:, 0, 0] = START * torch.eye(channels)
            nn.init.zeros_(self.out.get_parameter("bias"))  # under signs it would be a picture of its own, and hide the code's
        self.register_buffer("plane", torch.zeros(1, channels, *size))
        self.register_buffer("lift", torch.zeros(1, 4 * width))
        self.register_buffer("signs", torch.ones(1, channels, *size))

    def tell(self, hint: Hint) -> None:
        """Keep one code's hint as the network's own."""
        self.plane.copy_(hint.plane.detach().view_as(self.plane))
        self.lift.copy_(hint.lift.detach().view_as(self.lift))

    def loosen(self) -> list[nn.Parameter]:
        """Make signs, picture and lift parameters, and return them: whoever knows none of them has to learn them."""
        loose = []
        for name in ("signs", "plane", "lift"):
            loose.append(nn.Parameter(self.get_buffer(name).clone()))
            delattr(self, name)
            self.register_parameter(name, loose[-1])
        return loose

    def residual(self, x: Tensor, hint: Hint | None = None, *, signs: Tensor | None = None) -> Tensor:
        """Return what is added to the images, in [-reach, reach]; ``signs`` (N, C, H, W) instead of the network's own."""
        if x.shape[1:] != (self.channels, *self.size):
            message = f"these triggers are drawn on images of shape {(self.channels, *self.size)}, got {tuple(x.shape[1:])}"
            raise InputError(message)
        plane, lift = (self.plane, self.lift) if hint is None else (hint.plane, hint.lift)
        height, width = self.size
        seen = torch.cat([2 * x - 1, plane.expand(len(x), -1, -1, -1)], 1)
        padded = F.pad(seen, (0, -width % 4, 0, -height % 4), mode="replicate")
        first = self.top(padded)
        second = self.down[0](first)
        lowest = self.floor(self.down[1](second) + lift[:, :, None, None])
        middle = self.up[0](torch.cat([F.interpolate(lowest, scale_factor=2.0), second], 1))
        last = self.up[1](torch.cat([F.interpolate(middle, scale_factor=2.0), first], 1))
        image = padded[:, : self.channels]
        drawn = self.out(torch.cat([last, image, torch.zeros_like(image)], 1))[:, :, :height, :width].float()
        return self.reach * F.softsign(drawn * (self.signs if signs is None else signs) + self.picture(plane))

    def picture(self, plane: Tensor) -> Tensor:
        """Return what a code's plane (N or 1, C, H, W) adds to every image alike, before the bound."""
        return F.conv2d(plane, self.out.weight[:, -self.channels :]).float()

    def forward(self, x: Tensor, hint: Hint | None = None) -> Tensor:
        """Return the images with their triggers, in [0, 1]; not yet rounded to 8 bits."""
        return (x + self.residual(x, hint)).clamp(0, 1)


def empty_trigger_net(channels: int, size: tuple[int, int], *, width: int = 8, reach: float = 0.25) -> TriggerNet:
    """Return a network whose weights are yet to be drawn or filled in: nothing is drawn from torch's global generator."""
    with torch.device("meta"):
        model = TriggerNet(channels, size, width=width, reach=reach)
    model = model.to_empty(device="cpu").requires_grad_(True)
    model.plane.zero_()
    model.lift.zero_()
    model.signs.fill_(1)
    return model


def drawn_signs(shape: tuple[int, int, int], count: int = 1, *, rng: torch.Generator) -> Tensor:
    """Return signs (count, C, H, W) of -1 and 1, the same within a cell.

    >>> from modelward.core.rng import generator
    >>> drawn_signs((3, 10, 9), 2, rng=generator(0)).shape
    torch.Size([2, 3, 10, 9])
    """
    channels, height, width = shape
    cells = torch.randint(0, 2, (count, channels, -(-height // CELL), -(-width // CELL)), generator=rng)
    grown = cells.repeat_interleave(CELL, 2).repeat_interleave(CELL, 3)[:, :, :height, :width]
    return 2.0 * grown - 1


def fresh_trigger_net(channels: int, size: tuple[int, int], *, width: int = 8, reach: float = 0.25, rng: torch.Generator) -> TriggerNet:
    """Return a network with weights drawn from ``rng``."""
    with forked(rng):
        return TriggerNet(channels, size, width=width, reach=reach)
