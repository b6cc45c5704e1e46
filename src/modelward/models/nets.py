"""Architectures by name: image batch (N, C, H, W) in [0, 1] -> logits (N, K), the normalisation inside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from modelward.core import consent
from modelward.core.errors import InputError, UsageError
from modelward.core.nearest import nearest
from modelward.core.rng import forked, generator
from modelward.models import custom
from modelward.models.architecture import Architecture
from modelward.models.efficient import EFFICIENT
from modelward.models.mobile import MOBILE
from modelward.models.net import Net
from modelward.models.plain import PLAIN
from modelward.models.residual import RESIDUAL
from modelward.models.vit import VIT

__all__ = ["ARCHITECTURES", "Architecture", "Net", "build", "describe", "infer"]

ARCHITECTURES: dict[str, Architecture] = {**PLAIN, **RESIDUAL, **MOBILE, **VIT, **EFFICIENT}
CHANNELS = 1024


def describe(arch: str) -> tuple[str, dict[str, int]]:
    """Split ``"resnet8:width=16"`` into its name and arguments; a function's name is one word.

    >>> describe("vit-tiny:width=32,depth=2")
    ('vit-tiny', {'width': 32, 'depth': 2})
    >>> describe("mynets.small:make")
    ('mynets.small:make', {})
    """
    name, _, rest = arch.partition(":")
    if name not in ARCHITECTURES:
        if custom.is_custom(arch):
            return arch, {}
        message = (
            f"there is no architecture {name!r}{nearest(name, ARCHITECTURES)}; known: {' '.join(ARCHITECTURES)}, "
            "or package.module:function for one of your own"
        )
        raise UsageError(message)
    known = ARCHITECTURES[name].arguments
    arguments: dict[str, int] = {}
    for part in filter(None, rest.split(",")):
        option, _, value = part.partition("=")
        bounds = known.get(option)
        if bounds is None or not (value.isascii() and value.isdigit()) or not bounds.low <= int(value) <= bounds.high:
            raise UsageError(_wrong_argument(arch, name))
        arguments[option] = int(value)
    return name, arguments


def _wrong_argument(arch: str, name: str) -> str:
    """Return what is wrong with the arguments of ``arch``."""
    known = ARCHITECTURES[name].arguments
    if not known:
        return f"{arch!r}: {name} takes no arguments"
    words = ", ".join(f"{option}={a.low}..{a.high}" for option, a in known.items())
    return f"{arch!r}: this architecture takes {words}, as in {name}:{','.join(f'{o}={a.default}' for o, a in known.items())}"


def build(
    arch: str,
    *,
    classes: int,
    channels: int = 1,
    size: tuple[int, int] = (28, 28),
    rng: torch.Generator,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Net:
    """Return a freshly initialised network.

    Parameters
    ----------
    arch
        name with arguments, ``"resnet14:width=16"``, or ``"package.module:function"``, which is imported and called.
    classes, channels, size
        number of outputs, input channels, (height, width).
    rng
        source of the initial weights.
    mean, std
        per-channel normalisation; default 0.5 and 0.25, and none for a function's net.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> net = build("lenet5", classes=10, rng=generator(0))
    >>> sum(p.numel() for p in net.parameters())
    61706
    """
    name, arguments = describe(arch)
    if name in ARCHITECTURES:
        with forked(rng):
            body = ARCHITECTURES[name].make(channels, size, classes, **arguments)
        usual = (0.5, 0.25)
    else:
        consent.give([arch])
        body, usual = custom.call(arch, rng=rng), (0.0, 1.0)
        _, found = custom.input_shape(arch, body, [(channels, *size)])
        if found != classes:
            message = f"--arch {arch}: its net has {found} outputs, {classes} classes are wanted"
            raise InputError(message)
    return Net(body, arch, classes=classes, size=size, mean=mean or [usual[0]] * channels, std=std or [usual[1]] * channels).eval()


def infer(arch: str, state: Mapping[str, Tensor], size: tuple[int, int] | None = None, like: tuple[int, int, int] | None = None) -> Net:
    """Return a network of the size of weights ``state``, to be filled with them: classes, channels, width and side are read from the tensors.

    Parameters
    ----------
    arch
        name; arguments count where weights do not tell them, such as the heads of a transformer.
    size
        (height, width); ``None``: what the weights tell.
    like
        (channels, height, width) of the images it will see, where weights tell neither channels nor side; a function's net is tried with it.

    Raises
    ------
    InputError
        for weights of another architecture. Nothing is drawn at random, and no more memory is taken than by ``state``.
    """
    name, given = describe(arch)
    if name not in ARCHITECTURES:
        return _of_function(arch, state, size, like)
    plan = ARCHITECTURES[name]

    def shapes(key: str) -> tuple[int, ...]:
        return _shape(name, state, key)

    arguments = {**plan.defaults, **given, **plan.read(shapes, state)}
    first, classes = shapes(plan.first), shapes(plan.last)[0]
    mean = state.get("mean")
    flat = name == "mlp" and mean is None  # a first layer that tells only the product
    meant = like if like is not None and (math.prod(like) == first[1] if flat else plan.side is None) else None
    channels = int(mean.numel()) if mean is not None else (meant[0] if meant else 1) if flat else first[1]
    beyond = [option for option, a in plan.arguments.items() if not a.low <= arguments[option] <= a.high]
    if beyond or not 1 <= channels <= CHANNELS:
        what = f"{beyond[0]} {arguments[beyond[0]]}" if beyond else f"{channels} input channels"
        message = f"these weights are not a {name}: {what} is out of bounds; pass the right --arch"
        raise InputError(message)
    if size is None:
        side = plan.side(shapes, channels, arguments) if plan.side else plan.usual
        size = meant[1:] if meant else (side, side)
    told = ",".join(f"{option}={value}" for option, value in arguments.items() if value != plan.defaults[option])
    arch = f"{name}:{told}" if told else name
    with torch.device("meta"):
        body = plan.make(channels, size, classes, **arguments)
    _require_held(arch, body, state)
    return _behind(body.to_empty(device="cpu"), arch, classes, channels, size, state)


def _of_function(arch: str, state: Mapping[str, Tensor], size: tuple[int, int] | None, like: tuple[int, int, int] | None) -> Net:
    """Return the net of the user's function, its shape found by trying."""
    body = custom.call(arch, rng=generator(0))
    normalisation = state if custom.is_ours(body, state) else {}  # a tensor called mean may be the module's own
    shapes = custom.candidates(body, like, size)
    if "mean" in normalisation:
        shapes = [shape for shape in shapes if shape[0] == normalisation["mean"].numel()] or shapes
    (channels, *sides), classes = custom.input_shape(arch, body, shapes)
    return _behind(body, arch, classes, channels, (sides[0], sides[1]), normalisation)


def _behind(body: nn.Module, arch: str, classes: int, channels: int, size: tuple[int, int], state: Mapping[str, Tensor]) -> Net:
    """Put ``body`` behind the normalisation that ``state`` holds."""
    flat = {name: state[name].flatten().tolist() for name in ("mean", "std", "order") if name in state}
    mean, std, order = flat.get("mean", [0.0] * channels), flat.get("std", [1.0] * channels), flat.get("order")
    if len(mean) != channels or len(std) != channels or 0 in std:
        message = f"these weights are not a {arch}: its normalisation has {len(mean)} means and {len(std)} spreads for {channels} channels, none may be 0"
        raise InputError(message)
    if order is not None and sorted(order) != list(range(channels)):
        message = f"these weights are not a {arch}: the order of its channels is {order[:8]}, not one of {channels} channels"
        raise InputError(message)
    return Net(body, arch, classes=classes, size=size, mean=mean, std=std, order=order).eval()


def _shape(name: str, state: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    """Return the shape of one of the weight matrices that ``name`` is recognised by."""
    shape = tuple(state[key].shape) if key in state else ()
    if len(shape) < 2 or 0 in shape:
        raise _misfit(name, state, key)
    return shape


def _misfit(arch: str, state: Mapping[str, Tensor], key: str) -> InputError:
    """Return the error for a tensor that is absent or of another shape than in ``arch``."""
    what = f"has shape {tuple(state[key].shape)}" if key in state else "is missing"
    return InputError(f"these weights are not a {arch}: tensor {key!r} {what}; pass the right --arch (known: {' '.join(ARCHITECTURES)})")


def _require_held(arch: str, body: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Refuse weights too few to fill ``body`` before it takes memory: a small file could ask for terabytes."""
    wanted = {f"body.{key}": tensor for key, tensor in body.state_dict().items()}
    if sum(map(Tensor.numel, wanted.values())) > sum(map(Tensor.numel, state.values())):
        raise _misfit(arch, state, next((key for key in wanted if key not in state or state[key].shape != wanted[key].shape), "body"))
