"""Put the neurons of a group in another order or at another scale, without changing what the network answers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modelward.models.channels import Group


def by_channel(weight: Tensor, channels: int) -> Tensor:
    """Return a view (O, C, columns a channel, ...) of the weights that read C channels."""
    return weight.view(weight.shape[0], channels, -1, *weight.shape[2:])


@torch.no_grad()
def reorder(group: Group, order: Tensor) -> None:
    """Put channel ``order[i]`` of a group in place i; weights are changed in place."""
    for layer in group.writers:
        for tensor in (*layer.parameters(), *layer.buffers()):
            if tensor.ndim:
                tensor.copy_(tensor[order].clone())
    for reader in group.readers:
        columns = by_channel(reader.weight.contiguous(), group.size)
        reader.weight.copy_(columns[:, order].reshape(reader.weight.shape))


@torch.no_grad()
def rescale(group: Group, scale: Tensor) -> None:
    """Multiply what writes each channel of a group by ``scale`` (C,), positive, and undo it behind; weights are changed in place.

    Batch normalisation takes the scale a up in its statistics: mean * a, a^2 (variance + eps) - eps. A channel that hardly varies keeps its scale:
    its variance would be negative.
    """
    for norm in group.absorbers:
        variance = norm.running_var if norm.running_var is not None else torch.ones(group.size)
        scale = torch.where(scale**2 * (variance + norm.eps) > norm.eps * 2, scale, 1.0)
    for layer in group.writers:
        _rows(layer, scale)
    for reader in group.readers:
        columns = by_channel(reader.weight.contiguous(), group.size)
        reader.weight.copy_((columns / scale.view(1, -1, *[1] * (columns.ndim - 2))).reshape(reader.weight.shape))
    for filtered in group.filters:
        filtered.weight.div_(scale.view(-1, 1, 1, 1))
    for norm in group.absorbers:
        if norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.mul_(scale)
            norm.running_var.copy_(scale**2 * (norm.running_var + norm.eps) - norm.eps)


def _rows(layer: nn.Module, scale: Tensor) -> None:
    """Multiply the weights and biases that write each channel."""
    for tensor in layer.parameters(recurse=False):
        tensor.mul_(scale.view(-1, *[1] * (tensor.ndim - 1)))
