"""Where the heavy work is done: models and images stay where they are, training, answers and attacks run on the device that was asked for."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from modelward.core.copies import copied

_asked: ContextVar[str] = ContextVar("modelward_device", default="cpu")


@contextlib.contextmanager
def computing(device: str) -> Iterator[None]:
    """Let training, `predict` and attacks inside the block run on ``device`` where a model lies on the CPU.

    >>> with computing("meta"):
    ...     working_device(nn.Linear(2, 2))
    device(type='meta')
    """
    token = _asked.set(device)
    try:
        yield
    finally:
        _asked.reset(token)


def device_of(model: nn.Module) -> torch.device:
    """Return the device that ``model`` lies on; the CPU for one without weights.

    >>> device_of(nn.Linear(2, 2)), device_of(nn.ReLU())
    (device(type='cpu'), device(type='cpu'))
    """
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        return tensor.device
    return torch.device("cpu")


@functools.cache
def bf16_is_native() -> bool:
    """Return whether this processor multiplies bf16 by itself (AVX512-BF16, AMX, or Arm's BF16).

    torch says that every AVX-512 processor supports bf16; one that only emulates it trains about half as fast with it as in float32.
    """
    found = torch.cpu.get_capabilities()
    return any(bool(found.get(flag)) for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def bf16_is_faster(device: torch.device) -> bool:
    """Return whether bf16 autocast is faster than float32 on ``device``: the CPU or the accelerator multiplies bf16 by itself.

    >>> bf16_is_faster(torch.device("cpu")) == bf16_is_native()
    True
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bf16_is_native()


def working_device(model: nn.Module) -> torch.device:
    """Return where to work with ``model``: where it lies, else, from the CPU, the device that was asked for."""
    own = device_of(model)
    return torch.device(_asked.get()) if own.type == "cpu" else own


def lent(model: nn.Module, device: torch.device) -> nn.Module:
    """Return ``model`` itself when it lies on ``device``, else a copy there: the caller's stays where it is."""
    return model if device_of(model) == device else copied(model).to(device)


@contextlib.contextmanager
def moved(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Put ``model`` itself on ``device`` inside the block, and back after it."""
    own = device_of(model)
    if own != device:
        model.to(device)
    try:
        yield
    finally:
        if own != device:
            model.to(own)


class Following(TorchFunctionMode):
    """Make new tensors on a device inside the block, so that a method written for the CPU runs there as it is.

    Draws are made on the CPU, from the CPU generator that they name, and moved: every device draws the same numbers.

    Examples
    --------
    >>> with Following(torch.device("meta")):
    ...     drawn = torch.rand(2, generator=torch.Generator()), torch.zeros(3), torch.zeros(3, device="cpu")
    >>> [tensor.device.type for tensor in drawn]
    ['meta', 'meta', 'cpu']
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``; a maker of tensors that names no device gets ours."""
        del types
        given = kwargs or {}
        if func not in _makers() or given.get("device") is not None:
            return func(*args, **given)
        if given.get("generator") is not None:
            return func(*args, **given).to(self.device)
        return func(*args, **{**given, "device": self.device})


@functools.cache
def _makers() -> set[Callable[..., Any]]:
    """Return torch's makers of tensors."""
    made: set[Callable[..., Any]] = set(_device_constructors())
    return made


@contextlib.contextmanager
def following(device: torch.device) -> Iterator[None]:
    """Make new tensors on ``device`` inside the block; on the CPU that is so anyway."""
    if device.type == "cpu":
        yield
        return
    with Following(device):
        yield
