"""Batch normalisation over the batch of all processes, on any device, so that many processes train the net that one would."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, distributed, nn

from modelward.training.ranks import Ranks

Norm = nn.modules.batchnorm._BatchNorm  # noqa: SLF001  # the common base has no public name


@contextlib.contextmanager
def synchronised(model: nn.Module, ranks: Ranks) -> Iterator[None]:
    """Let every batch normalisation of ``model`` that is in training mode use the statistics of all processes inside the block.

    torch's own SyncBatchNorm knows CUDA alone. Mean and variance are summed in two rounds in fp32, gradients flow through both.
    """
    layers = [] if ranks.alone else [module for module in model.modules() if isinstance(module, Norm)]
    for layer in layers:
        layer.__dict__["forward"] = MethodType(_normalise(type(layer).forward), layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def _normalise(usual: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """Return the synchronised forward pass of a layer whose own is ``usual``."""

    def forward(layer: Any, x: Tensor) -> Tensor:
        if not layer.training:
            return usual(layer, x)
        wide, axes = x.float(), [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        count = torch.tensor(float(x.numel() // x.shape[1]), device=x.device)
        sums: Tensor = _summed(torch.cat([wide.sum(axes), count[None]]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = wide - mean.view(shape)
        variance: Tensor = _summed((centred * centred).sum(axes)) / count
        _remember(layer, mean.detach(), variance.detach() * count / (count - 1).clamp_min(1))
        normal = centred * torch.rsqrt(variance + layer.eps).view(shape)
        if layer.weight is not None:
            normal = normal * layer.weight.view(shape) + layer.bias.view(shape)
        return normal.to(x.dtype)

    return forward


class _Sum(torch.autograd.Function):
    """The sum over all processes; what each of them owes its part is the sum of what all say."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        """Return the sum."""
        del ctx
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Return the sum of the gradients."""
        del ctx
        total = grad.contiguous().clone()
        distributed.all_reduce(total)
        return total


def _summed(value: Tensor) -> Tensor:
    """Return the sum over all processes, through which gradients flow."""
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total


def _remember(layer: Any, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics as the layer itself does."""
    if layer.running_mean is None:
        return
    layer.num_batches_tracked.add_(1)
    momentum = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean, momentum)
    layer.running_var.lerp_(variance, momentum)
