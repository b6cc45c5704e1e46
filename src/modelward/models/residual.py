"""Residual networks for small images: ResNet-8/14/20 (He et al. 2016) and WRN-16-w (Zagoruyko, Komodakis 2016)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from modelward.models.architecture import Architecture, Argument, Shapes, by_first


class _Block(nn.Module):
    """The basic residual block with a projection where the shape changes (He et al. 2016, option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(F(x) + shortcut(x))."""
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + self.shortcut(x))


class _WideBlock(nn.Module):
    """The pre-activated block of wide residual networks: normalise and activate before each convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return F(x) + x; where the shape changes, F(x) + a projection of the activated x."""
        active = F.relu(self.bn1(x))
        inner: Tensor = self.conv2(F.relu(self.bn2(self.conv1(active))))
        kept: Tensor = x if self.shortcut is None else self.shortcut(active)
        return kept + inner


def _stages(block: Callable[[int, int, int], nn.Module], inputs: int, widths: tuple[int, ...], blocks: int) -> list[nn.Module]:
    """Return ``blocks`` blocks for each width; every stage but the first halves the image."""
    layers: list[nn.Module] = []
    for stage, outputs in enumerate(widths):
        for index in range(blocks):
            layers.append(block(inputs, outputs, 2 if stage and not index else 1))
            inputs = outputs
    return layers


def resnet(blocks: int) -> Callable[..., nn.Module]:
    """Return the builder of a CIFAR-style residual network with ``3 * 2 * blocks + 2`` layers."""

    def make(channels: int, size: tuple[int, int], classes: int, *, width: int = 16) -> nn.Module:
        del size
        stem = [nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers = _stages(_Block, width, (width, 2 * width, 4 * width), blocks)
        return nn.Sequential(*stem, *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, classes))

    return make


def wrn16(channels: int, size: tuple[int, int], classes: int, *, width: int = 2) -> nn.Module:
    """WRN-16-w: 16 filters first, then three stages of two blocks of 16 w, 32 w and 64 w filters; ``width`` is w, the widening factor."""
    del size
    layers = _stages(_WideBlock, 16, (16 * width, 32 * width, 64 * width), 2)
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, 1, 1, bias=False), *layers, nn.BatchNorm2d(64 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64 * width, classes),
    )  # fmt: skip


def _widening(shapes: Shapes, _names: Mapping[str, object]) -> dict[str, int]:
    return {"width": shapes("body.1.conv1.weight")[0] // 16}


_WIDTH = {"width": Argument(16)}
RESIDUAL = {
    **{
        f"resnet{6 * blocks + 2}": Architecture(
            resnet(blocks), "body.0.weight", f"body.{5 + 3 * blocks}.weight", _WIDTH, by_first("body.0.weight")
        )
        for blocks in (1, 2, 3)
    },
    "wrn16": Architecture(wrn16, "body.0.weight", "body.11.weight", {"width": Argument(2, 1, 20)}, _widening),
}
