"""Weights into a network: every name and shape must match, and floating types stay as they are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modelward.core.copies import computed, settle
from modelward.core.errors import InputError
from modelward.core.guard import frozen, type_name
from modelward.core.rng import forked, generator
from modelward.models.custom import aligned
from modelward.models.names import completed, unwrapped
from modelward.models.net import Net
from modelward.models.nets import ARCHITECTURES

KINDS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
NORMALISATION = {"mean", "std", "order"}


def fill(model: Net, tensors: dict[str, Tensor], name: str) -> None:
    """Copy ``tensors`` into ``model``, which takes their floating types; every name and shape must match, normalisation buffers may be absent.

    Raises
    ------
    InputError
        for tensors of another architecture, for weights that are no floats, and for a mix of floating types that the network cannot compute with.
    """
    if any(name in tensors or f"body.{name}" in tensors for name in computed(model.body)):
        settle(model.body)  # such a file holds what the weights compute to
    wanted = model.state_dict()
    own = model.arch.partition(":")[0] not in ARCHITECTURES
    tensors = unwrapped(tensors, {**wanted, **model.body.state_dict()})
    if own:
        tensors = aligned(model.body, completed(model.body, tensors))
    tensors = completed(model, tensors)
    missing = sorted(set(wanted) - set(tensors) - NORMALISATION)
    extra = sorted(set(tensors) - set(wanted))
    wrong = [key for key in wanted if key in tensors and wanted[key].shape != tensors[key].shape]
    if missing or extra or wrong:
        key = (missing or extra or wrong)[0]
        what = (
            "is missing" if missing
            else "has no place" if extra
            else f"has shape {tuple(tensors[key].shape)}, wanted {tuple(wanted[key].shape)}"
        )  # fmt: skip
        what = f"tensor {key.removeprefix('body.') if own else key!r} {what}"
        message = f"{name} does not fit {model.arch}: {what}; pass the architecture it was trained with in --arch"
        raise InputError(message)
    place(model, tensors, name)
    _require_computes(model, tensors, name)


def place(model: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Copy ``tensors`` to the parameters and buffers of these names and shapes, which take their types: nothing is rounded on the way.

    Raises
    ------
    InputError
        for weights that are no floats torch computes with.
    """
    buffers, parameters = model.named_buffers(remove_duplicate=False), model.named_parameters(remove_duplicate=False)
    places: dict[str, Tensor] = {**model.state_dict(), **dict(buffers), **dict(parameters)}  # a state dict's own tensors cannot change type
    with torch.no_grad():
        for key, tensor in tensors.items():
            held = places[key]
            if held.is_floating_point() and tensor.dtype not in KINDS:
                message = f"{name}: tensor {key!r} is {type_name(tensor.dtype)}; weights are {', '.join(map(type_name, KINDS))}"
                raise InputError(message)
            if held.dtype != tensor.dtype and key.rpartition(".")[2] != "order":  # an index has one type
                held.data = held.data.to(tensor.dtype)
            held.copy_(tensor)


def _require_computes(model: Net, tensors: Mapping[str, Tensor], name: str) -> None:
    """Raise `InputError` where the weights are of several floating types, and the network fails over that."""
    kinds = dict[torch.dtype, str]()
    for key, tensor in sorted(tensors.items()):
        if tensor.is_floating_point() and key not in NORMALISATION:
            kinds.setdefault(tensor.dtype, key)
    if len(kinds) < 2:
        return
    try:
        with forked(generator(0)), frozen(model), torch.no_grad():
            model(torch.zeros(1, model.channels, *model.size))
    except RuntimeError as error:
        (first, one), (second, other), *_ = kinds.items()
        message = (
            f"{name}: tensor {other!r} is {type_name(second)} and {one!r} {type_name(first)}, and {model.arch} cannot compute with both; "
            "save all its weights in one type, as model.float() does"
        )
        raise InputError(message) from error
