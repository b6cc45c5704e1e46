"""Networks without branches: MLP, LeNet-5, a small CNN."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from modelward.core.errors import UsageError
from modelward.models.architecture import Architecture, Argument, Shapes, by_first


def mlp(channels: int, size: tuple[int, int], classes: int, *, width: int = 256) -> nn.Module:
    """Two hidden layers on the flattened image."""
    inputs = channels * size[0] * size[1]
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes))


def lenet5(channels: int, size: tuple[int, int], classes: int, *, width: int = 6) -> nn.Module:
    """LeNet-5 with ReLU and max pooling (LeCun et al. 1998); 61,706 parameters on 28x28 grey images with 10 classes."""
    left = [(side // 2 - 4) // 2 for side in size]
    if min(left) < 1:
        message = f"lenet5 needs images of at least 12x12, got {size[0]}x{size[1]}"
        raise UsageError(message)
    wide = width * 8 // 3
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, wide, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(wide * left[0] * left[1], width * 20), nn.ReLU(),
        nn.Linear(width * 20, width * 14), nn.ReLU(),
        nn.Linear(width * 14, classes),
    )  # fmt: skip


def cnn(channels: int, size: tuple[int, int], classes: int, *, width: int = 16) -> nn.Module:
    """Three convolutions with batch normalisation and pooling, global average, one linear layer."""
    if min(size) < 8:
        message = f"cnn needs images of at least 8x8, got {size[0]}x{size[1]}"
        raise UsageError(message)
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, width), (width, 2 * width), (2 * width, 4 * width)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, classes))


def _mlp_side(shapes: Shapes, channels: int, _arguments: Mapping[str, int]) -> int:
    return math.isqrt(shapes("body.1.weight")[1] // channels)


def _lenet5_side(shapes: Shapes, _channels: int, _arguments: Mapping[str, int]) -> int:
    wide = shapes("body.3.weight")[0]
    return (math.isqrt(shapes("body.7.weight")[1] // wide) * 2 + 4) * 2


PLAIN = {
    "mlp": Architecture(mlp, "body.1.weight", "body.5.weight", {"width": Argument(256)}, by_first("body.1.weight"), _mlp_side),
    "lenet5": Architecture(lenet5, "body.0.weight", "body.11.weight", {"width": Argument(6)}, by_first("body.0.weight"), _lenet5_side),
    "cnn": Architecture(cnn, "body.0.weight", "body.14.weight", {"width": Argument(16)}, by_first("body.0.weight")),
}
