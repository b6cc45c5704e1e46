"""The nodes of a traced network as relevance sees them: each knows its value, and whose relevance its own is."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from modelward.core.errors import InputError
from modelward.models.channels import ELEMENTWISE, SUMS, Norm
from modelward.models.relevance_rules import Rule, alpha_beta, box, leaf, proportional, pull, squares

MEANS = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
MEAN_CALLS = (F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, "mean")
MOVES = (nn.Flatten, nn.MaxPool2d, nn.AdaptiveMaxPool2d)
MOVE_CALLS = (
    torch.flatten, torch.cat, torch.reshape, torch.squeeze, F.max_pool2d, F.adaptive_max_pool2d, torch.max_pool2d,
    "flatten", "view", "reshape", "squeeze", "contiguous", "transpose", "permute",
)  # fmt: skip
THROUGH_CALLS = (
    F.relu, torch.relu, F.relu6, F.leaky_relu, F.gelu, F.silu, F.hardswish, F.elu, torch.tanh, torch.sigmoid, "relu", "relu_", "tanh", "sigmoid",
)  # fmt: skip
FIXED_CALLS = (
    *SUMS, operator.sub, operator.isub, operator.mul, operator.imul, operator.truediv, operator.itruediv, torch.sub, torch.mul, torch.div,
    "add", "sub", "mul", "div",
)  # fmt: skip
DIVISIONS = (operator.truediv, operator.itruediv, torch.div, "div")
NUMBERS = ("size", "dim", getattr, len)
STILL = (nn.Identity, nn.Dropout, nn.Dropout2d)
STILL_CALLS = (F.dropout, F.dropout2d)
Values = dict[fx.Node, Any]


@dataclass(eq=False)
class Step:
    """One node: its kind, the module or function that it calls, and the batch normalisation folded into it.

    Parameters
    ----------
    kind
        ``layer``: weights; ``scale``: a batch normalisation of its own; ``through``: an activation; ``move``: every output is one input;
        ``mean``, ``sum``: proportional; ``fixed``: a number or a buffer is added or multiplied by; ``still``: does nothing; ``number``: no tensor
        with relevance.
    """

    node: fx.Node
    kind: str
    call: Callable[..., Any] | None = None
    layer: nn.Conv2d | nn.Linear | None = None
    norm: Norm | None = None
    sources: tuple[fx.Node, ...] = field(default=())

    def apply(self, values: Values) -> Any:
        """Return the node's value; nothing here depends on whether the network is in training mode."""
        if self.kind == "still":
            return values[self.sources[0]]
        if self.kind == "layer":
            weight, bias = self.weights()
            return self.linear(values[self.sources[0]], weight) + self.lifted(bias)
        if self.kind == "scale":
            factor, shift = norm_factors(self.norm)  # type: ignore[arg-type]
            x = values[self.sources[0]]
            return x * lifted(factor, x.ndim) + lifted(shift, x.ndim)
        args: Any = fx.node.map_arg(self.node.args, values.__getitem__)
        kwargs: Any = fx.node.map_arg(self.node.kwargs, values.__getitem__)
        return self.call(*args, **kwargs)  # type: ignore[misc]

    def weights(self) -> tuple[Tensor, Tensor]:
        """Return the layer's weights and bias with the batch normalisation behind it folded in."""
        weight, bias = self.layer.weight, self.layer.bias  # type: ignore[union-attr]
        bias = weight.new_zeros(weight.shape[0]) if bias is None else bias
        if self.norm is None:
            return weight, bias
        factor, shift = norm_factors(self.norm)
        return weight * lifted(factor, weight.ndim, 0), bias * factor + shift

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return the layer without bias, with other weights."""
        if isinstance(self.layer, nn.Conv2d):
            made: Tensor = self.layer._conv_forward(x, weight, None)  # noqa: SLF001  # padding modes and all
            return made
        return F.linear(x, weight)

    def lifted(self, bias: Tensor) -> Tensor:
        """Return ``bias`` in the shape that adds to the layer's outputs."""
        return bias.view(-1, 1, 1) if isinstance(self.layer, nn.Conv2d) else bias

    def share(self, relevance: Tensor, values: Values, rule: Rule, bounds: tuple[Tensor, Tensor] | None, *, keep: bool,
              centred: bool = False) -> list[Tensor]:  # fmt: skip
        """Return the relevance of each source, given that of the node.

        ``bounds``: of its input, where that is made of pixels alone, so that what is fixed only says in what units; ``centred``: take the mean
        over the outputs off the weights first.
        """
        if self.kind in {"through", "still"}:
            return [relevance]
        inputs = [values[source] for source in self.sources]
        if self.kind == "layer":
            return [self._layer(relevance, inputs[0], rule, bounds, keep=keep, centred=centred)]
        if self.kind == "scale":
            return [self._scale(relevance, inputs[0], rule, keep=keep)]
        if self.kind == "fixed":
            return [
                relevance if bounds is not None or rule.alpha is not None else self._fixed(relevance, inputs[0], values, rule, keep=keep)
            ]
        if self.kind == "move":
            with torch.enable_grad():
                leaves = [leaf(x) for x in inputs]
                return list(pull(self._again(values, leaves), leaves, relevance, keep=keep))
        return proportional(
            lambda *leaves: self._again(values, leaves), self._parts(inputs, values, rule), relevance, eps=rule.eps, keep=keep
        )

    def _fixed(self, relevance: Tensor, x: Tensor, values: Values, rule: Rule, *, keep: bool) -> Tensor:
        """Share among input and what is added to it."""
        shift = self._again(values, [torch.zeros_like(x)])
        return proportional(lambda x: self._again(values, [x]) - shift, [x], relevance, eps=rule.eps, bias=shift, keep=keep)[0]

    def _parts(self, inputs: list[Tensor], values: Values, rule: Rule) -> list[Tensor]:
        """Return what of the inputs counts: all for epsilon; sizes for means, and for sums the terms that pull the way the sum goes."""
        if rule.alpha is None:
            return inputs
        if self.kind == "mean":
            return [x.abs() for x in inputs]
        rising = values[self.node] >= 0
        return [x * ((x >= 0) == rising) for x in inputs]

    def _again(self, values: Values, leaves: Any) -> Tensor:
        """Return the node's value with other tensors at its sources."""
        return self.apply({**values, **dict(zip(self.sources, leaves, strict=True))})  # type: ignore[no-any-return]

    def _layer(self, relevance: Tensor, x: Tensor, rule: Rule, bounds: tuple[Tensor, Tensor] | None, *, keep: bool,
               centred: bool) -> Tensor:  # fmt: skip
        with torch.set_grad_enabled(keep):
            weight, bias = self.weights()
            if centred:
                weight, bias = weight - weight.mean(0), bias - bias.mean()
        if bounds is not None and rule.pixels == "box":
            return box(self.linear, x, *bounds, weight, relevance, keep=keep)
        if bounds is not None and rule.pixels == "squares":
            return squares(self.linear, x, weight, relevance, keep=keep)
        if rule.alpha is not None:
            return alpha_beta(self.linear, x, weight, relevance, rule.alpha, keep=keep)
        return proportional(
            lambda x: self.linear(x, weight), [x], relevance, eps=rule.eps, bias=self.lifted(bias), keep=keep
        )[0]  # fmt: skip

    def _scale(self, relevance: Tensor, x: Tensor, rule: Rule, *, keep: bool) -> Tensor:
        """Share among input and shift (epsilon); every other rule ignores the shift, and what is left has one input."""
        if rule.alpha is not None:
            return relevance
        factor, shift = (lifted(part, x.ndim) for part in norm_factors(self.norm))  # type: ignore[arg-type]
        return proportional(lambda x: x * factor, [x], relevance, eps=rule.eps, bias=shift, keep=keep)[0]


def norm_factors(norm: Norm) -> tuple[Tensor, Tensor]:
    """Return the factor and the shift (C,) of a batch normalisation that uses its running statistics."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise InputError("relevance needs batch normalisation with running statistics; this one has none")
    factor = (variance + norm.eps).rsqrt() * (1 if norm.weight is None else norm.weight)
    return factor, (0 if norm.bias is None else norm.bias) - mean * factor


def lifted(vector: Tensor, dims: int, at: int = 1) -> Tensor:
    """Return ``vector`` with ``dims`` dimensions, its own at position ``at``."""
    return vector.view(*[1] * at, -1, *[1] * (dims - at - 1))


def plan(root: nn.Module, graph: fx.Graph) -> list[Step]:
    """Return the steps of a traced network, the input's first, batch normalisation folded into the layer before it where that is possible.

    Raises
    ------
    InputError
        for a node that no rule is known for, by its name.
    """
    modules = dict(root.named_modules())
    steps: dict[fx.Node, Step] = {}
    for node in graph.nodes:
        if node.op in {"placeholder", "output"}:
            continue
        carrying = tuple(source for source in node.all_input_nodes if source not in steps or steps[source].kind != "number")
        step = steps[node] = (
            _step(node, modules, carrying) if node.op != "get_attr" else Step(node, "number", _kept(root, str(node.target)))
        )
        before = steps.get(step.sources[0]) if step.kind == "scale" else None
        if before is not None and before.kind == "layer" and before.norm is None and len(before.node.users) == 1:
            before.norm, step.kind = step.norm, "still"
    return list(steps.values())


def _is_fixed(node: fx.Node, sources: tuple[fx.Node, ...]) -> bool:
    """Return whether one tensor is shifted or scaled by something that does not depend on it."""
    if node.target not in FIXED_CALLS or len(sources) != 1 or node.args.count(sources[0]) != 1:
        return False
    return node.target not in DIVISIONS or node.args[0] is sources[0]


def _kept(root: nn.Module, name: str) -> Callable[[], Tensor]:
    """Return a call that gives a parameter or a buffer as it is then."""
    return lambda: operator.attrgetter(name)(root)


def _step(node: fx.Node, modules: dict[str, nn.Module], sources: tuple[fx.Node, ...]) -> Step:
    """Return one node's step."""
    made = None
    if node.op == "call_module" and len(sources) == 1:
        made = _of_module(node, modules[str(node.target)], sources)
    elif node.op in {"call_function", "call_method"}:
        made = _of_call(node, sources)
    if made is None:
        raise InputError(_unknown(node, modules))
    return made


def _of_module(node: fx.Node, module: nn.Module, sources: tuple[fx.Node, ...]) -> Step | None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        return Step(node, "layer", layer=module, sources=sources)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return Step(node, "scale", norm=module, sources=sources)
    for kind, types in (("still", STILL), ("mean", MEANS), ("move", MOVES), ("through", ELEMENTWISE)):
        if isinstance(module, types):
            return Step(node, kind, module, sources=sources)
    return None


def _of_call(node: fx.Node, sources: tuple[fx.Node, ...]) -> Step | None:
    call: Any = _method(str(node.target)) if node.op == "call_method" else node.target
    if not sources or node.target in NUMBERS:
        return Step(node, "number", call)
    if _is_fixed(node, sources):
        return Step(node, "fixed", call, sources=sources)
    for kind, calls in (("still", STILL_CALLS), ("mean", MEAN_CALLS), ("move", MOVE_CALLS), ("through", THROUGH_CALLS), ("sum", SUMS)):
        if node.target in calls:
            return Step(node, kind, call, sources=sources)
    return None


def _unknown(node: fx.Node, modules: dict[str, nn.Module]) -> str:
    """Return what is to be said of a node without a rule."""
    what = type(modules[str(node.target)]).__name__ if node.op == "call_module" else getattr(node.target, "__name__", str(node.target))
    return (
        f"no relevance rule is known for {node.name!r} ({what}); relevance passes through linear and convolutional layers, batch normalisation, "
        "activations, pooling, sums, concatenation, flattening and dropout"
    )


def _method(name: str) -> Callable[..., Any]:
    """Return the call of a tensor method."""
    return lambda tensor, *args, **kwargs: getattr(tensor, name)(*args, **kwargs)
