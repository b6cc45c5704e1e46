"""Copies of networks whose weights may be computed from others: by torch's parametrisations, or by the older hooks of weight_norm and spectral_norm."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm, remove_spectral_norm
from torch.nn.utils.weight_norm import WeightNorm, remove_weight_norm


def copied(model: nn.Module) -> nn.Module:
    """Return a deep copy; what a hook computed last, which torch refuses to copy, is taken as it is.

    Examples
    --------
    >>> with torch.no_grad():
    ...     net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> same = copied(net)
    >>> same is net, bool((same[1].weight == net[1].weight).all())
    (False, True)
    """
    memo: dict[int, object] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(model, memo)


@torch.no_grad()
def settle(model: nn.Module) -> nn.Module:
    """Turn every computed weight into a parameter that holds what it computes to, in place, and return the network; what it answers stays.

    Whoever writes into ``layer.weight`` of a parametrised layer writes into a copy that the next pass throws away.

    Examples
    --------
    >>> net = nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(4, 2)))
    >>> sorted(name for name, _ in settle(net).named_parameters())
    ['1.bias', '1.weight']
    """
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            _settle_parametrised(module)
        for hook in list(module._forward_pre_hooks.values()):  # noqa: SLF001 - the only place where torch keeps these two
            if isinstance(hook, WeightNorm):
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(module, hook.name)
    return model


def _settle_parametrised(module: nn.Module) -> None:
    """Do as `settle`, for one module: torch's own way takes the weights from all copies of the module, since they share a class that is made for them."""
    names: list[str] = list(getattr(module, "parametrizations"))  # noqa: B009 - an attribute that torch adds
    values = {name: getattr(module, name).detach().clone() for name in names}
    del module.parametrizations
    module.__class__ = type(module).__bases__[0]
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))


def computed(model: nn.Module) -> list[str]:
    """Return the names of weights that are computed from others.

    >>> computed(nn.Sequential(nn.Linear(2, 2), nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))))
    ['1.weight']
    """
    found = []
    for prefix, module in model.named_modules():
        names: list[str] = list(getattr(module, "parametrizations", ())) if parametrize.is_parametrized(module) else []
        names += [hook.name for hook in module._forward_pre_hooks.values() if isinstance(hook, WeightNorm | SpectralNorm)]  # noqa: SLF001 - as above
        found += [f"{prefix}.{name}" if prefix else name for name in names]
    return found
