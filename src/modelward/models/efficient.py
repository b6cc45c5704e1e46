"""EfficientNet-Lite (Tan, Le: EfficientNet, ICML 2019, arXiv 1905.11946; the Lite family drops squeeze-and-excitation and swish)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from modelward.models.architecture import Architecture

# (expansion, kernel, stride, filters, layers) of the seven stages at width and depth 1
STAGES = ((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1))
SCALES = {"efficientnet-lite0": (1.0, 1.0, 224), "efficientnet-lite1": (1.0, 1.1, 240), "efficientnet-lite2": (1.1, 1.2, 260)}
STEM, HEAD = 32, 1280


class SameConv(nn.Conv2d):
    """A convolution with the padding called SAME: ceil(side / stride) outputs, the odd pixel of padding on the right and below."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # the name in nn.Conv2d
        """Return (N, outputs, ceil(H / stride), ceil(W / stride))."""
        pads: list[int] = []
        for side, kernel, stride in zip(input.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            lack = max(0, (math.ceil(side / stride) - 1) * stride + kernel - side)
            pads += [lack // 2, lack - lack // 2]
        return F.conv2d(F.pad(input, pads), self.weight, self.bias, self.stride, groups=self.groups)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution with batch normalisation."""
    conv = SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)]


class _Block(nn.Module):
    """Widen, filter each channel, narrow; add the input where the shape stays."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = nn.Sequential(*_conv(inputs, inner, 1), nn.ReLU6()) if expansion > 1 else nn.Identity()
        self.depthwise = nn.Sequential(*_conv(inner, inner, kernel, stride, inner), nn.ReLU6())
        self.project = nn.Sequential(*_conv(inner, outputs, 1))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H / stride, W / stride)."""
        inner: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + inner if self.adds else inner


def scaled(filters: int, width: float) -> int:
    """Return ``filters`` times ``width`` as a multiple of 8 that is no more than a tenth below it.

    >>> [scaled(filters, 1.1) for filters in (16, 24, 40, 320)]
    [16, 24, 48, 352]
    """
    wanted = filters * width
    near = max(8, int(wanted + 4) // 8 * 8)
    return near if near >= 0.9 * wanted else near + 8


def efficientnet_lite(width: float, depth: float) -> Callable[..., nn.Module]:
    """Return the builder at a width and a depth; first layer, last convolution, and the depth of the first and last stage stay as they are."""

    def make(channels: int, size: tuple[int, int], classes: int) -> nn.Module:
        del size
        blocks, inputs = list[nn.Module](), STEM
        for stage, (expansion, kernel, stride, filters, layers) in enumerate(STAGES):
            outputs = scaled(filters, width)
            count = layers if stage in {0, len(STAGES) - 1} else math.ceil(layers * depth)
            for index in range(count):
                blocks.append(_Block(inputs, outputs, kernel, 1 if index else stride, expansion))
                inputs = outputs
        head = [*_conv(inputs, HEAD, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(HEAD, classes)]
        return nn.Sequential(nn.Sequential(*_conv(channels, STEM, 3, 2), nn.ReLU6()), nn.Sequential(*blocks), nn.Sequential(*head))

    return make


_RENAMES = (
    (r"_conv_stem\.", "0.0."), (r"_bn0\.", "0.1."), (r"_conv_head\.", "2.0."), (r"_bn1\.", "2.1."), (r"_fc\.", "2.5."),
    (r"_blocks\.(\d+)\._expand_conv\.", r"1.\1.expand.0."), (r"_blocks\.(\d+)\._bn0\.", r"1.\1.expand.1."),
    (r"_blocks\.(\d+)\._depthwise_conv\.", r"1.\1.depthwise.0."), (r"_blocks\.(\d+)\._bn1\.", r"1.\1.depthwise.1."),
    (r"_blocks\.(\d+)\._project_conv\.", r"1.\1.project.0."), (r"_blocks\.(\d+)\._bn2\.", r"1.\1.project.1."),
)  # fmt: skip


def renamed(key: str) -> str:
    """Return the name that a weight of the published PyTorch files has here; a name that is not theirs stays as it is.

    >>> renamed("_blocks.3._bn2.running_var")
    'body.1.3.project.1.running_var'
    """
    for pattern, ours in _RENAMES:
        if match := re.match(pattern, key):
            return f"body.{match.expand(ours)}{key[match.end() :]}"
    return key


EFFICIENT = {
    name: Architecture(efficientnet_lite(width, depth), "body.0.0.weight", "body.2.5.weight", usual=side)
    for name, (width, depth, side) in SCALES.items()
}
