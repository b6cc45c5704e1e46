"""Weights into a network: every name and shape must match."""

from __future__ import annotations

import torch
from torch import Tensor

from modelward.core.errors import InputError
from modelward.models.custom import aligned
from modelward.models.net import Net
from modelward.models.nets import ARCHITECTURES


def fill(model: Net, tensors: dict[str, Tensor], name: str) -> None:
    """Copy ``tensors`` into ``model``; every name and shape must match, normalisation buffers may be absent."""
    wanted = model.state_dict()
    own = model.arch.partition(":")[0] not in ARCHITECTURES
    if own:
        tensors = aligned(model.body, tensors)
    missing = sorted(set(wanted) - set(tensors) - {"mean", "std", "order"})
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
    with torch.no_grad():
        for key, tensor in tensors.items():
            wanted[key].copy_(tensor)
