"""The caller's model is bit-identical after any call: weights, buffers, mode, gradient flags."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from modelward.core.copies import copied, settle
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


@contextlib.contextmanager
def asked(model: nn.Module) -> Iterator[nn.Module]:
    """Inside the block ``model`` is `frozen`, gets its images as copies, since some write into their input, and has to answer with logits (N, K).

    Examples
    --------
    >>> class Odd(nn.Module):
    ...     def forward(self, x):
    ...         x -= 0.5
    ...         return x.flatten(1), x
    >>> images = torch.zeros(2, 1, 2, 2)
    >>> with asked(Odd()) as model:
    ...     model(images)
    Traceback (most recent call last):
    modelward.core.errors.InputError: the model answers with a tuple; logits (N, K) are asked for: return the one tensor that holds them
    >>> float(images.sum())
    0.0
    """
    hooks = [model.register_forward_pre_hook(_as_copies), model.register_forward_hook(_require_logits)]
    try:
        with frozen(model):
            yield model
    finally:
        for hook in hooks:
            hook.remove()


def _as_copies(_module: nn.Module, inputs: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(given.clone() if isinstance(given, Tensor) else given for given in inputs)


def _require_logits(_module: nn.Module, _inputs: object, outputs: object) -> None:
    """Raise `InputError` for answers that are no table of logits."""
    if isinstance(outputs, Tensor) and outputs.ndim == 2:
        return
    what = f"a tensor of shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else f"a {type(outputs).__name__}"
    message = f"the model answers with {what}; logits (N, K) are asked for: return the one tensor that holds them"
    raise InputError(message)


def private_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy with gradients on and no gradient buffers, to be changed freely."""
    clone = copied(model)
    for parameter in clone.parameters():
        parameter.grad = None
        parameter.requires_grad_(True)
    return clone


def plain_copy(model: nn.Module) -> nn.Module:
    """Return a `private_copy` in which no weight is computed from others: what is written into a layer stays there."""
    return settle(private_copy(model)).requires_grad_(True)


def require_finite(model: nn.Module) -> None:
    """Raise `InputError` when any weight or buffer is NaN or infinite, or none at all, as in a quantised model."""
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor) or tensor.is_quantized:
            message = (
                f"{name!r} of this model is quantised; pass the floating-point model that it was made from, and quantise what comes out"
            )
            raise InputError(message)
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


def require_depth(model: nn.Module, x: Tensor) -> torch.dtype:
    """Return the floating type in which ``model`` is attacked; raise `InputError` where it or the images are too coarse for small changes."""
    well = {torch.float32, torch.float64}
    kind = computes_in(model)
    for what, found in (("images", x.dtype), ("the weights of this model", kind)):
        if found.is_floating_point and found not in well:
            message = f"{what} of type {type_name(found)} are too coarse for changes as small as an attack's; convert with .float() first"
            raise InputError(message)
    return kind


def require_labels(y: Tensor, count: int, classes: int | None = None) -> None:
    """Raise `InputError` unless ``y`` holds ``count`` int64 labels in [0, classes)."""
    if y.shape != (count,) or y.dtype != torch.int64:
        message = f"{count} images need {count} int64 labels, got {y.dtype} with shape {tuple(y.shape)}"
        raise InputError(message)
    if count and (int(y.min()) < 0 or (classes is not None and int(y.max()) >= classes)):
        message = f"labels run from {int(y.min())} to {int(y.max())}, outside [0, {'number of classes' if classes is None else classes})"
        raise InputError(message)


def computes_in(model: nn.Module) -> torch.dtype:
    """Return the floating type of ``model``'s parameters; float32 where it has none or several, or takes images of every type.

    >>> computes_in(nn.Linear(2, 2).bfloat16()), computes_in(nn.Sequential(nn.Linear(2, 2).double(), nn.Linear(2, 2)))
    (torch.bfloat16, torch.float32)
    """
    kinds = float_types(model)
    return next(iter(kinds)) if len(kinds) == 1 and not getattr(model, "casts_images", False) else torch.float32


def float_types(model: nn.Module) -> dict[torch.dtype, str]:
    """Return the floating types of ``model``'s parameters, each with the name of the first parameter of that type."""
    found = dict[torch.dtype, str]()
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            found.setdefault(parameter.dtype, name)
    return found


def require_float32(model: nn.Module, who: str) -> None:
    """Raise `InputError` unless ``model`` can be trained on float32 images by a method that counts on float32.

    Half precisions are too coarse for it; float64 is well where the network casts its images itself.
    """
    well = {torch.float32, torch.float64} if getattr(model, "casts_images", False) else {torch.float32}
    odd = next(((kind, name) for kind, name in float_types(model).items() if kind not in well), None)
    if odd is not None:
        message = f"{who} trains in float32, and {odd[1]!r} of this model is {type_name(odd[0])}; convert the model with .float() first"
        raise InputError(message)


def type_name(kind: torch.dtype) -> str:
    """Return the short name of a type.

    >>> type_name(torch.bfloat16)
    'bfloat16'
    """
    return str(kind).removeprefix("torch.")


def predict(model: nn.Module, pixels: Tensor, *, batch: int = 128) -> Tensor:
    """Return the fp32 logits (N, K) of a uint8 or float image tensor (N, C, H, W), in eval mode, without gradients.

    Batches are moved to the device that works and to the floating type of the model; logits come back in float32 to the device of ``pixels``.

    Raises
    ------
    InputError
        without images; and where a model that is not all float32 fails on them.
    """
    with asked(model):
        return outputs(model, pixels, batch=batch)


def outputs(model: nn.Module, pixels: Tensor, *, batch: int = 128) -> Tensor:
    """Do as `predict`, for a network that answers with something else than logits, such as images."""
    found: list[Tensor] = []
    device, kind = working_device(model), computes_in(model)
    model = lent(model, device)
    with frozen(model), torch.no_grad(), _told_by_type(model):
        for start in range(0, len(pixels), batch):
            part = pixels[start : start + batch].to(device)
            part = part.to(torch.float32).div(255) if part.dtype == torch.uint8 else part
            found.append(model(part if part.dtype == kind else part.to(kind)).float().to(pixels.device))
    if not found:
        raise InputError("no images to predict on")
    return torch.cat(found)


@contextlib.contextmanager
def _told_by_type(model: nn.Module) -> Iterator[None]:
    """Turn what torch raises over a model that is not all float32 into one sentence."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        kinds = [type_name(kind) for kind in float_types(model)]
        if kinds in ([], ["float32"]):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        message = f"this model's weights are {' and '.join(kinds)}, and it fails on images: {reason}; convert it with .float() first"
        raise InputError(message) from error
