"""The memory layout that a network is trained in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

BLOCK = 16
"""Channels that a block of the library behind convolutions holds, at most."""


def layout(model: nn.Module) -> torch.memory_format:
    """Return channels last, which trains faster, but for networks with a strided 1x1 convolution of few channels.

    For those the gradient of the weights is wrong, or the process dies, on processors without AVX-512
    (https://github.com/uxlfoundation/oneDNN/issues/6035).

    Examples
    --------
    >>> layout(nn.Conv2d(3, 8, 3, stride=2)), layout(nn.Conv2d(4, 8, 1, stride=2))
    (torch.channels_last, torch.contiguous_format)
    """
    return torch.contiguous_format if any(map(_risky, model.modules())) else torch.channels_last


def laid_out(x: Tensor, memory: torch.memory_format) -> Tensor:
    """Return images (N, C, H, W) in a layout, whose strides say it: those of one channel may pass for either until they are copied.

    >>> grey = torch.zeros(2, 1, 4, 4).contiguous(memory_format=torch.channels_last)
    >>> grey = grey.as_strided(grey.shape, (16, 1, 4, 1))
    >>> grey.is_contiguous(), laid_out(grey, torch.contiguous_format).stride()
    (True, (16, 16, 4, 1))
    """
    return x.clone(memory_format=memory) if memory == torch.contiguous_format else x.contiguous(memory_format=memory)


def _risky(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d):
        return False
    return set(module.kernel_size) == {1} and max(module.stride) > 1 and module.in_channels // module.groups < BLOCK
