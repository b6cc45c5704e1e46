"""Parts of any network, found generically: its head, its weight layers, a fresh copy."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from modelward.core.errors import InputError
from modelward.core.guard import plain_copy
from modelward.core.rng import forked
from modelward.models.net import Net

WeightLayer = nn.Linear | nn.Conv2d


def weight_layers(model: nn.Module) -> Iterator[tuple[str, WeightLayer]]:
    """Yield the linear and convolutional layers by name, in module order."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            yield name, module


def head(model: nn.Module) -> tuple[str, WeightLayer]:
    """Return the last linear (or 1x1 convolutional) layer: the one whose outputs are the logits.

    Raises
    ------
    InputError
        when the network ends in neither.
    """
    layers = [(name, layer) for name, layer in weight_layers(model) if isinstance(layer, nn.Linear) or layer.kernel_size == (1, 1)]
    if not layers:
        raise InputError("this network has no linear head; retraining its last layer is not possible")
    linear = [pair for pair in layers if isinstance(pair[1], nn.Linear)]
    return linear[-1] if linear else layers[-1]


def reinitialise(module: nn.Module, *, rng: torch.Generator) -> None:
    """Draw new initial weights for every layer of ``module``, in place."""
    with forked(rng):
        for layer in module.modules():
            reset = getattr(layer, "reset_parameters", None)
            if callable(reset):
                reset()


def fresh_like(model: nn.Module, *, rng: torch.Generator) -> nn.Module:
    """Return an untrained network of the same architecture."""
    clone = plain_copy(model)
    reinitialise(clone, rng=rng)
    return clone


def replace_head(model: nn.Module, classes: int, *, rng: torch.Generator) -> tuple[str, nn.Module]:
    """Put a new last layer with ``classes`` outputs in place of the old one; return its name and the layer.

    Raises
    ------
    InputError
        when the network ends in no linear (or 1x1 convolutional) layer.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    >>> replace_head(net, 3, rng=generator(0))
    ('1', Linear(in_features=12, out_features=3, bias=True))
    """
    name, old = head(model)
    with forked(rng):
        new: nn.Module = (
            nn.Linear(old.in_features, classes, bias=old.bias is not None)
            if isinstance(old, nn.Linear)
            else nn.Conv2d(old.in_channels, classes, 1, stride=old.stride, bias=old.bias is not None)  # type: ignore[arg-type]
        )
    parent, _, last = name.rpartition(".")
    if not last or model is old:
        raise InputError("this model is a single layer; a new last layer would leave nothing of it")
    setattr(model.get_submodule(parent), last, new.to(old.weight.dtype))
    if isinstance(model, Net):
        model.classes = classes
    return name, new
