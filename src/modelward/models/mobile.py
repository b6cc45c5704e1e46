"""Inverted residuals for small images, after MobileNetV2 (Sandler et al., CVPR 2018, arXiv 1801.04381)."""

from __future__ import annotations

from torch import Tensor, nn

from modelward.models.architecture import Architecture, Argument, by_first

EXPANSION = 4


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution with batch normalisation."""
    return [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]


class InvertedResidual(nn.Module):
    """Widen by a 1x1 convolution, filter every channel by itself, narrow again without activation; add the input where the shape stays.

    Parameters
    ----------
    inputs, outputs, stride
        channels in and out, step of the depthwise convolution.
    expansion
        how many times wider it is inside.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        widen = [*_conv(inputs, inner, 1), nn.ReLU6()] if expansion > 1 else []
        self.layers = nn.Sequential(*widen, *_conv(inner, inner, 3, stride, inner), nn.ReLU6(), *_conv(inner, outputs, 1))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output (N, outputs, H / stride, W / stride)."""
        inner: Tensor = self.layers(x)
        return x + inner if self.adds else inner


def mobilenet(channels: int, size: tuple[int, int], classes: int, *, width: int = 16) -> nn.Module:
    """MobileNetV2's blocks in seven layers: the first at full size, three stages that halve the image, a 1x1 convolution, one linear layer."""
    del size
    layers: list[nn.Module] = [*_conv(channels, width, 3), nn.ReLU6(), InvertedResidual(width, width, 1, 1)]
    inputs = width
    for outputs in (max(1, 3 * width // 2), 2 * width, 4 * width):
        layers += [InvertedResidual(inputs, outputs, 2, EXPANSION), InvertedResidual(outputs, outputs, 1, EXPANSION)]
        inputs = outputs
    layers += [*_conv(inputs, 8 * width, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, classes)]
    return nn.Sequential(*layers)


MOBILE = {
    "mobilenet": Architecture(mobilenet, "body.0.weight", "body.15.weight", {"width": Argument(16, 1, 256)}, by_first("body.0.weight"))
}
