"""Nets written another way than ours: classes with a forward of their own, no shared builder, no common attribute names."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


def _grey(x: Tensor) -> Tensor:
    """Centre images in [0, 1] as this author always does."""
    return (x - 0.4) * 2.5


class LeNet(nn.Module):
    """LeNet-5 with ReLU and max pooling; the pooling is left out where the image is too small for it."""

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5, padding=0 if side >= 16 else 2)
        self.pool = nn.MaxPool2d(2)
        left = (side // 2 - 4) // 2 if side >= 16 else side // 4
        self.fc1 = nn.Linear(16 * left * left, 120)
        self.fc2 = nn.Linear(120, 84)
        self.out = nn.Linear(84, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv1(_grey(x))).relu()
        x = self.pool(self.conv2(x)).relu().flatten(1)
        return self.out(self.fc2(self.fc1(x).relu()).relu())


class Strided(nn.Module):
    """Three strided convolutions, no pooling, no normalisation."""

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(channels, 16, 3, stride=2, padding=1)
        self.b = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.c = nn.Conv2d(32, 32, 3, stride=2, padding=1)
        left = -(-side // 8)
        self.out = nn.Linear(32 * left * left, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.leaky_relu(self.a(_grey(x)), 0.1)
        x = nn.functional.leaky_relu(self.b(x), 0.1)
        return self.out(nn.functional.leaky_relu(self.c(x), 0.1).flatten(1))


class VGGLike(nn.Module):
    """Four 3x3 convolutions with BatchNorm, pooling after the first three, then one hidden layer."""

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        widths = (channels, 8, 16, 24, 24)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[1:])
        self.hidden = nn.Linear(24 * (side // 8) ** 2, 64)
        self.out = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = _grey(x)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = conv(x) if i == 3 else nn.functional.max_pool2d(conv(x), 2)
            x = norm(x).relu()
        return self.out(self.hidden(x.flatten(1)).relu())


class Mixer(nn.Module):
    """A small MLP-Mixer (Tolstikhin et al. 2021): patches of a quarter of the side, two blocks of token and channel mixing."""

    def __init__(self, channels: int, side: int, classes: int, *, width: int = 48, blocks: int = 2) -> None:
        super().__init__()
        patch = max(2, side // 7)
        tokens = (side // patch) ** 2
        self.stem = nn.Conv2d(channels, width, patch, stride=patch)
        self.before = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.across = nn.ModuleList(nn.Sequential(nn.Linear(tokens, 64), nn.GELU(), nn.Linear(64, tokens)) for _ in range(blocks))
        self.between = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks))
        self.within = nn.ModuleList(nn.Sequential(nn.Linear(width, 96), nn.GELU(), nn.Linear(96, width)) for _ in range(blocks))
        self.out = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(_grey(x)).flatten(2).transpose(1, 2)
        for before, across, between, within in zip(self.before, self.across, self.between, self.within, strict=True):
            x = x + across(before(x).transpose(1, 2)).transpose(1, 2)
            x = x + within(between(x))
        return self.out(x.mean(1))


class Wide(nn.Module):
    """One wide hidden layer on the flattened image."""

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels * side * side, 512)
        self.out = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.hidden(_grey(x).flatten(1))))


class _Residual(nn.Module):
    """Two 3x3 convolutions with BatchNorm beside a 1x1 shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.bn2(self.two(self.bn1(self.one(x)).relu())) + self.skip(x)).relu()


class ResLike(nn.Module):
    """A strided stem and two residual blocks, global average."""

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 12, 3, 2 if side >= 16 else 1, 1)
        self.first, self.second = _Residual(12, 16, 1), _Residual(16, 32, 2)
        self.out = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.second(self.first(self.stem(_grey(x)).relu())).mean((2, 3)))


NETS: dict[str, type[nn.Module]] = {
    "lenet": LeNet, "strided": Strided, "vgg": VGGLike, "mixer": Mixer, "wide": Wide, "res": ResLike,
}  # fmt: skip
