"""Heads with more or fewer outputs: the last linear layer or 1x1 convolution of any network, found by following its graph from the logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from modelward.core.errors import InputError
from modelward.core.guard import private_copy
from modelward.core.rng import forked
from modelward.models.channels import POOLS, traced
from modelward.models.net import Net
from modelward.models.parts import WeightLayer, head

PASSING = (nn.Flatten, nn.Identity, nn.Dropout, nn.Softmax, nn.LogSoftmax, *POOLS)
PASSING_CALLS = (
    torch.flatten, torch.squeeze, torch.mean, F.adaptive_avg_pool2d, F.avg_pool2d, F.dropout, F.softmax, F.log_softmax,
    "flatten", "squeeze", "mean", "view", "reshape", "contiguous", "softmax", "log_softmax",
)  # fmt: skip
REFUSAL = "this {} has no linear head: its logits come from no linear layer or 1x1 convolution that can be followed, so no output can be added or taken"


def find_head(model: nn.Module) -> tuple[str, WeightLayer]:
    """Return name and layer whose rows give the logits: the last linear layer, or 1x1 convolution, before nothing but pooling and flattening.

    Raises
    ------
    InputError
        when the logits come from something else.

    Examples
    --------
    >>> find_head(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()))[0]
    '2'
    """
    found = _followed(model) or _by_position(model)
    if found is None:
        message = REFUSAL.format(type(model).__name__)
        raise InputError(message)
    return found


def _followed(model: nn.Module) -> tuple[str, WeightLayer] | None:
    """Return the layer that the logits come from; ``None`` where somebody's own forward function hides it.

    A graph that shows the logits to come from something else is believed: `_by_position` is not asked then.
    """
    try:
        root, graph = traced(model)
    except InputError:
        return None
    modules = dict(root.named_modules())
    node = next(node for node in reversed(graph.nodes) if node.op == "output").all_input_nodes[0]
    while True:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1):
            return next(name for name, found in model.named_modules() if found is module), module
        passed = isinstance(module, PASSING) or (node.op in {"call_function", "call_method"} and node.target in PASSING_CALLS)
        if not passed or not node.all_input_nodes:
            if module is not None and not type(module).__module__.startswith("torch."):
                return None
            message = REFUSAL.format(type(model).__name__)
            raise InputError(message)
        node = node.all_input_nodes[0]


def _by_position(model: nn.Module) -> tuple[str, WeightLayer] | None:
    """Return the layer that was registered last, if it has as many rows as the network says it has classes."""
    try:
        name, layer = head(model)
    except InputError:
        return None
    return (name, layer) if len(layer.weight) == getattr(model, "classes", None) else None


def widen_head(model: nn.Module, extra: int = 1, *, rng: torch.Generator) -> nn.Module:
    """Return a copy of ``model`` with ``extra`` further outputs, drawn as a fresh layer's are; the logits of the others stay what they were.

    The files and the store read a `Net` of a named architecture back with its new number of outputs; an architecture of the user's own is a
    function that makes as many outputs as it says, and has to be named with one that makes more.

    Parameters
    ----------
    model
        image batch -> logits (N, K).
    extra
        number of outputs to add: one for the class of key images, more to hide how many there are.

    Raises
    ------
    InputError
        for a network without a linear head.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> from modelward.models import build
    >>> net = build("resnet8:width=4", classes=10, size=(8, 8), rng=generator(0))
    >>> wide, x = widen_head(net, 2, rng=generator(1)).eval(), torch.zeros(1, 1, 8, 8)
    >>> wide.classes, bool(torch.allclose(wide(x)[:, :10], net(x), atol=1e-6))
    (12, True)
    """
    if extra < 1:
        message = f"a head is widened by at least one output, got {extra}"
        raise InputError(message)
    made = private_copy(model)
    name, old = find_head(made)
    with forked(rng):
        fresh = _like(old, extra)
    rows = torch.cat([old.weight.detach(), fresh.weight.detach().to(old.weight)])
    bias = torch.cat([old.bias.detach(), fresh.bias.detach().to(old.bias)]) if old.bias is not None and fresh.bias is not None else None
    return _with_head(made, name, old, rows, bias)


def drop_outputs(model: nn.Module, kept: Sequence[int]) -> nn.Module:
    """Return a copy of ``model`` that has only the outputs ``kept``, in that order.

    Raises
    ------
    InputError
        for outputs that it does not have, none at all, or a network without a linear head.

    Examples
    --------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 5))
    >>> few, x = drop_outputs(net, [3, 0]), torch.ones(1, 1, 2, 2)
    >>> bool(torch.allclose(few(x), net(x)[:, [3, 0]]))
    True
    """
    made = private_copy(model)
    name, old = find_head(made)
    if not kept or not all(0 <= output < len(old.weight) for output in kept):
        message = f"a network of {len(old.weight)} outputs cannot keep the outputs {list(kept)[:8]}"
        raise InputError(message)
    chosen = torch.tensor(list(kept))
    return _with_head(made, name, old, old.weight.detach()[chosen], None if old.bias is None else old.bias.detach()[chosen])


def mix_outputs(model: nn.Module, mixing: torch.Tensor, shift: torch.Tensor) -> nn.Module:
    """Return a copy of ``model`` whose logits are ``mixing @ logits + shift``, folded into its head.

    Parameters
    ----------
    mixing, shift
        (J, K) and (J,), for J outputs made of K.

    Raises
    ------
    InputError
        for a network without a linear head, or one without biases.

    Examples
    --------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> mixed, x = mix_outputs(net, torch.ones(1, 3), torch.ones(1)), torch.rand(2, 1, 2, 2, generator=torch.Generator())
    >>> bool(torch.allclose(mixed(x), net(x).sum(1, keepdim=True) + 1, atol=1e-5))
    True
    """
    made = private_copy(model)
    name, old = find_head(made)
    if old.bias is None:
        raise InputError("the outputs of a head without biases cannot be mixed with a shift")
    kind = old.weight.dtype
    rows = (mixing.to(kind) @ old.weight.detach().flatten(1)).view(len(mixing), *old.weight.shape[1:])
    return _with_head(made, name, old, rows, mixing.to(kind) @ old.bias.detach() + shift.to(kind))


def _like(old: WeightLayer, outputs: int) -> WeightLayer:
    """Return a fresh layer that reads what ``old`` reads."""
    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, outputs, bias=old.bias is not None)
    return nn.Conv2d(old.in_channels, outputs, 1, stride=old.stride, padding=old.padding, bias=old.bias is not None)  # type: ignore[arg-type]


def _with_head(model: nn.Module, name: str, old: WeightLayer, weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    """Put a layer of other rows in place of ``old``."""
    parent, _, last = name.rpartition(".")
    if not last:
        raise InputError("this model is a single layer; put it into a torch.nn.Sequential first")
    with torch.device("meta"):
        new = _like(old, len(weight))
    new.weight = nn.Parameter(weight.clone())
    if bias is not None:
        new.bias = nn.Parameter(bias.clone())
    new.training = old.training
    setattr(model.get_submodule(parent), last, new)
    if isinstance(model, Net):
        model.classes = len(weight)
    return model
