"""Architectures of the user's own: ``package.module:function``, imported from the current folder and called without arguments."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from modelward.core import consent
from modelward.core.copies import copied
from modelward.core.errors import InputError, UnsafeFileError
from modelward.core.guard import computes_in, frozen
from modelward.core.nearest import nearest
from modelward.core.rng import forked, generator

Shape = tuple[int, int, int]
SIDES = (32, 28, 224, 64, 96, 128, 299)


def is_custom(arch: str) -> bool:
    """Return whether ``arch`` names a function.

    >>> is_custom("mynets.small:make"), is_custom("resnet8:width=32"), is_custom("resnet8")
    (True, False, False)
    """
    module, _, function = arch.partition(":")
    return function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def modules_of(arch: str) -> tuple[str, ...]:
    """Return the module that a result depends on when it depends on ``arch``: none for the architectures that have a name."""
    if not is_custom(arch):
        return ()
    _function(arch)
    return (arch.partition(":")[0],)


def call(arch: str, *, rng: torch.Generator) -> nn.Module:
    """Import the function that ``arch`` names, call it without arguments, and return a copy of the module it made, in eval mode.

    The current folder is the last place that is searched. Torch's global generator is forked and seeded from ``rng``.

    Raises
    ------
    UnsafeFileError
        when nobody named it in this process: code runs only because a person asked for it.
    InputError
        when it cannot be imported, fails, or returns something else.
    """
    function = _function(arch)
    with forked(rng), _told(arch, "raised"), here():
        made = function()
    if not isinstance(made, nn.Module):
        message = f"--arch {arch}: it returned a {type(made).__name__}; the function takes no arguments and returns a torch.nn.Module"
        raise InputError(message)
    return copied(made).eval()  # a function may hand out one module again and again


def _function(arch: str) -> Callable[[], object]:
    """Return the function that ``arch`` names."""
    if not consent.is_given(arch):
        message = f"{arch} is code, and it is imported only when you name it: pass --arch {arch} if you trust it"
        raise UnsafeFileError(message)
    name, _, attribute = arch.partition(":")
    importlib.invalidate_caches()
    with forked(generator(0)), _told(arch, "importing it raised"), here():
        module = importlib.import_module(name)
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        where = getattr(module, "__file__", None) or name
        message = f"--arch {arch}: {where} has no function {attribute!r}{nearest(attribute, known)}"
        raise InputError(message)
    found: Callable[[], object] = function
    return found


@contextlib.contextmanager
def here() -> Iterator[None]:
    """Make the current folder the last place where modules are searched, inside the block."""
    folder = str(Path.cwd())
    absent = folder not in sys.path
    if absent:
        sys.path.append(folder)
    try:
        yield
    finally:
        if absent:
            with contextlib.suppress(ValueError):
                sys.path.remove(folder)


@contextlib.contextmanager
def _told(arch: str, did: str) -> Iterator[None]:
    """Turn whatever the user's code raises into one sentence."""
    try:
        yield
    except (Exception, SystemExit) as error:
        lines = str(error).splitlines()
        message = f"--arch {arch}: {did} {type(error).__name__}{': ' + lines[0] if lines else ''}"
        raise InputError(message) from error


def input_shape(arch: str, body: nn.Module, shapes: Sequence[Shape]) -> tuple[Shape, int]:
    """Return the first of ``shapes`` (C, H, W) that ``body`` takes, and the number of classes it then answers with.

    Raises
    ------
    InputError
        when it takes none of them, or answers with something else than logits (N, K).
    """
    reasons = list[str]()
    for shape in shapes:
        try:
            with forked(generator(0)), frozen(body), torch.no_grad():
                logits = body(torch.zeros(2, *shape, dtype=computes_in(body)))
        except Exception as error:  # noqa: BLE001  # somebody else's code raises whatever it likes
            reasons.append(f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}")
            continue
        if isinstance(logits, Tensor) and logits.ndim == 2 and len(logits) == 2 and logits.is_floating_point():
            return shape, logits.shape[1]
        what = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        reasons.append(f"it answers with {what}, not with logits (N, K)")
    tried = ", ".join("x".join(map(str, shape)) for shape in shapes[:4])
    message = f"--arch {arch}: the net takes no images of {tried} (channels x height x width): {reasons[0]}; pass --size H,W"
    raise InputError(message)


def candidates(body: nn.Module, like: Shape | None, size: tuple[int, int] | None) -> list[Shape]:
    """Return the input shapes worth trying, the likely ones first: those of the data, then the channels of the first convolution."""
    conv = next((module for module in body.modules() if isinstance(module, nn.Conv2d)), None)
    channels = dict.fromkeys([*([like[0]] if like else []), *([conv.in_channels] if conv else []), 3, 1])
    sizes = [size] if size else [*([like[1:]] if like else []), *((side, side) for side in SIDES)]
    return [(count, *chosen) for chosen in sizes for count in channels]


def is_ours(body: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Return whether ``state`` is that of a `Net` around ``body``, as modelward saves it, and not that of ``body`` itself."""
    return all(f"body.{name}" in state for name in body.state_dict())


def aligned(body: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state`` with the names it has in a `Net` around ``body``."""
    return dict(state) if is_ours(body, state) else {f"body.{name}": tensor for name, tensor in state.items()}
