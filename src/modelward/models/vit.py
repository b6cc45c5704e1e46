"""A small vision transformer (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929): patches, class token, pre-normalised attention blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.errors import UsageError
from modelward.models.architecture import Architecture, Argument, Shapes


class Tokens(nn.Module):
    """Cut images into patches, embed each linearly, put the class token before them and add learned positions.

    Images whose sides are no multiple of ``patch`` are padded with zeros on the right and below.
    """

    def __init__(self, channels: int, size: tuple[int, int], patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.embed = nn.Conv2d(channels, width, patch, patch)
        self.first = nn.Parameter(torch.empty(1, 1, width))
        self.position = nn.Parameter(torch.empty(1, 1 + math.ceil(size[0] / patch) * math.ceil(size[1] / patch), width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw class token and positions from a normal distribution of standard deviation 0.02, cut at two of them."""
        for parameter in (self.first, self.position):
            nn.init.trunc_normal_(parameter, std=0.02, a=-0.04, b=0.04)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (N, 1 + patches, width) of images (N, C, H, W)."""
        x = F.pad(x, (0, -x.shape[3] % self.patch, 0, -x.shape[2] % self.patch))
        patches = self.embed(x).flatten(2).transpose(1, 2)
        return torch.cat([self.first.expand(len(x), -1, -1), patches], 1) + self.position


class Attention(nn.Module):
    """Multi-head self-attention, written out so that it can be differentiated twice."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return softmax(q k^T / sqrt(d)) v of every head, joined and projected, (N, T, width)."""
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)).softmax(-1)
        joined: Tensor = self.out((weights @ v).transpose(1, 2).reshape(n, tokens, width))
        return joined


class _Layer(nn.Module):
    """Attention and a two-layer perceptron, each on normalised tokens and added to them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens (N, T, width)."""
        x = x + self.attention(self.norm1(x))
        mixed: Tensor = x + self.mlp(self.norm2(x))
        return mixed


class VisionTransformer(nn.Module):
    """Tokens, ``depth`` layers, and a linear head on the normalised class token."""

    def __init__(self, channels: int, size: tuple[int, int], classes: int, *, patch: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.tokens = Tokens(channels, size, patch, width)
        self.layers = nn.Sequential(*(_Layer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K)."""
        logits: Tensor = self.head(self.norm(self.layers(self.tokens(x))[:, 0]))
        return logits


def vit_tiny(
    channels: int, size: tuple[int, int], classes: int, *, patch: int = 4, width: int = 64, depth: int = 4, heads: int = 4
) -> nn.Module:
    """Return the body; ``width`` is divided among the ``heads``."""
    if width % heads:
        message = f"vit-tiny: width must be a multiple of heads, got width={width}, heads={heads}"
        raise UsageError(message)
    return VisionTransformer(channels, size, classes, patch=patch, width=width, depth=depth, heads=heads)


def _read(shapes: Shapes, names: Mapping[str, object]) -> dict[str, int]:
    """Read all but the number of heads, which leaves no trace in the shapes."""
    width, _, patch, *_ = (*shapes("body.tokens.embed.weight"), 0)
    depth = sum(name.startswith("body.layers.") and name.endswith(".norm1.weight") for name in names)
    return {"patch": patch, "width": width, "depth": depth}


def _side(shapes: Shapes, _channels: int, arguments: Mapping[str, int]) -> int:
    return math.isqrt(max(0, shapes("body.tokens.position")[1] - 1)) * arguments["patch"]


VIT = {
    "vit-tiny": Architecture(
        vit_tiny, "body.tokens.embed.weight", "body.head.weight",
        {"patch": Argument(4, 1, 32), "width": Argument(64), "depth": Argument(4, 1, 32), "heads": Argument(4, 1, 32)}, _read, _side,
    )
}  # fmt: skip
