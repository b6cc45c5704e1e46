"""The caller's model is bit-identical after any call: weights, buffers, mode, gradient flags."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from modelward.core.devices import lent, working_device
from modelward.core.errors import InputError


def state_digest(state: Mapping[str, Tensor] | nn.Module) -> str:
    """Return the SHA-256 over sorted name, type, shape and bytes of every parameter and buffer."""
    tensors = state.state_dict() if isinstance(state, nn.Module) else state
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


@contextlib.contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Put ``model`` in eval mode without parameter gradients inside the block; restore every flag after it."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for module, _ in modes:
        module.training = False
    for parameter, _ in flags:
        parameter.requires_grad_(False)
    try:
        yield model
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def private_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy with gradients on and no gradient buffers, to be changed freely."""
    clone = copy.deepcopy(model)
    for parameter in clone.parameters():
        parameter.grad = None
        parameter.requires_grad_(True)
    return clone


def require_finite(model: nn.Module) -> None:
    """Raise `InputError` when any weight or buffer is NaN or infinite."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            message = f"weight {name!r} holds NaN or infinite values; the file is damaged or the training diverged"
            raise InputError(message)


def require_batch(x: Tensor) -> None:
    """Raise `InputError` unless ``x`` is a float image batch (N, C, H, W) in [0, 1]."""
    if x.ndim != 4 or not x.is_floating_point():
        message = f"an image batch is a float tensor (N, C, H, W) in [0, 1], got {x.dtype} with shape {tuple(x.shape)}"
        raise InputError(message)
    if x.numel() == 0:
        return
    low, high = x.aminmax()
    if not (torch.isfinite(low) and torch.isfinite(high)):
        raise InputError("the image batch holds NaN or infinite pixels")
    if low < 0 or high > 1:
        message = f"pixels run from {low:.3g} to {high:.3g}; modelward wants [0, 1] with the normalisation inside the model"
        raise InputError(message)


def require_labels(y: Tensor, count: int, classes: int | None = None) -> None:
    """Raise `InputError` unless ``y`` holds ``count`` int64 labels in [0, classes)."""
    if y.shape != (count,) or y.dtype != torch.int64:
        message = f"{count} images need {count} int64 labels, got {y.dtype} with shape {tuple(y.shape)}"
        raise InputError(message)
    if count and (int(y.min()) < 0 or (classes is not None and int(y.max()) >= classes)):
        message = f"labels run from {int(y.min())} to {int(y.max())}, outside [0, {'number of classes' if classes is None else classes})"
        raise InputError(message)


def predict(model: nn.Module, pixels: Tensor, *, batch: int = 512) -> Tensor:
    """Return the fp32 logits (N, K) of a uint8 or float image tensor (N, C, H, W), in eval mode, without gradients.

    Batches are moved to the device that works, logits come back to that of ``pixels``.
    """
    outputs: list[Tensor] = []
    device = working_device(model)
    model = lent(model, device)
    with frozen(model), torch.no_grad():
        for start in range(0, len(pixels), batch):
            part = pixels[start : start + batch].to(device)
            outputs.append(model(part.to(torch.float32).div(255) if part.dtype == torch.uint8 else part).float().to(pixels.device))
    if not outputs:
        raise InputError("no images to predict on")
    return torch.cat(outputs)
