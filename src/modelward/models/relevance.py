"""Relevance maps: which pixels a logit comes from, by Deep Taylor decomposition and layer-wise relevance propagation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from modelward.core.errors import InputError, UsageError
from modelward.core.guard import float_types
from modelward.core.nearest import nearest
from modelward.models.channels import traced
from modelward.models.net import Net
from modelward.models.relevance_rules import RULES, Rule
from modelward.models.relevance_steps import Step, Values, plan

MOST = 256  # images in one pass


class Relevance:
    r"""The relevance of pixels for logits, layer by layer from the logit to the image.

    ``dtd`` is Deep Taylor decomposition (Montavon et al., Pattern Recognition 65, 2017, arXiv 1512.02479): the z+ rule inside,
    :math:`R_i = \sum_j a_i w^+_{ij} / \sum_{i'} a_{i'} w^+_{i'j} \, R_j`, and zB at the pixels, whose bounds [0, 1] go through the network's own
    normalisation. ``w2`` has the rule for unbounded inputs at the pixels. ``epsilon`` and ``alpha2-beta1`` are those of Bach et al. (PLoS ONE 10(7),
    2015). Batch normalisation is folded into the layer before it, max pooling gives all to the winner, average pooling and sums share
    proportionally, activations pass relevance on. Where an input of an inner layer is negative (no ReLU before it), z+ shares among the contributions
    that are positive; so it does not need non-negative activations. Biases get nothing, except under ``epsilon``, where they absorb.

    Parameters
    ----------
    model
        image batch -> logits; evaluated as in eval mode whatever its mode, and never changed.
    contrast
        explain the logit's lead over the mean of all logits: the last linear layer's weights less their mean over the classes. What is added to all
        logits alike changes no answer, and then changes no map.

    Raises
    ------
    InputError
        for a network that cannot be traced, or a node that no rule is known for, by its name.

    Examples
    --------
    >>> from modelward import embedded_model, load_data
    >>> model, images = embedded_model().model, load_data("fashion-mini").test.take(slice(4))
    >>> maps = Relevance(model).maps(images.batch(slice(None)), images.labels)
    >>> maps.shape, bool((maps >= 0).all())
    (torch.Size([4, 1, 28, 28]), True)
    """

    def __init__(self, model: nn.Module, *, contrast: bool = False) -> None:
        root, graph = traced(model)
        self.steps: list[Step] = plan(root, graph)
        self.net = model if isinstance(model, Net) else None
        self.kind = next(iter(float_types(root)), torch.float32)
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        self.input, self.output = inputs[0], next(node for node in graph.nodes if node.op == "output").args[0]
        if not isinstance(self.output, fx.Node) or not self.steps:
            raise InputError("relevance needs a network that returns one tensor of logits")
        self.contrast = contrast

    def maps(
        self, x: Tensor, classes: Tensor, *, rule: str | Rule = "dtd", start: str = "logit", differentiable: bool = False
    ) -> Tensor:  # fmt: skip
        """Return the relevance (N, C, H, W) of every pixel for one logit per image.

        Parameters
        ----------
        x
            float images (N, C, H, W) in [0, 1].
        classes
            the logit that is explained, int64 (N,).
        rule
            a name in `RULES`, or a `Rule`.
        start
            ``logit``: a map sums to the logit where nothing is lost; ``one``: to 1, so that the sign and size of the logit play no part.
        differentiable
            keep the graph, so that the maps have gradients to the weights.
        """
        chosen = named(rule)
        parts = zip(x.split(MOST), classes.split(MOST), strict=True)
        return torch.cat([self._maps(images, labels, chosen, start, keep=differentiable).to(x.dtype) for images, labels in parts])

    def _maps(self, x: Tensor, classes: Tensor, rule: Rule, start: str, *, keep: bool) -> Tensor:
        with torch.set_grad_enabled(keep):
            inside, *ends = (v if v.dtype == self.kind else v.to(self.kind) for v in self._normalised(x))
            values, bounds = self._forward(inside, (ends[0], ends[1]))
            logits: Tensor = values[self.output]
            self._require(logits, classes)
            picked = classes.view(-1, 1)
            size = logits.gather(1, picked) if start == "logit" else logits.new_ones(len(x), 1)
            relevance = torch.zeros_like(logits).scatter(1, picked, size)
        found = self._backward(relevance, values, bounds, rule, keep=keep)
        if self.net is None or self.net.order is None:
            return found
        return torch.zeros_like(found).index_add(1, self.net.order, found)

    def _normalised(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the images as the body sees them, and the lowest and highest values that they could have."""
        low, high = torch.zeros_like(x[:1]), torch.ones_like(x[:1])
        if self.net is None:
            return x, low, high
        net = self.net
        if x.shape[1:] != (net.channels, *net.size):
            message = f"{net.arch} takes images of shape {(net.channels, *net.size)}, got {tuple(x.shape[1:])}"
            raise InputError(message)
        x, low, high = ((v if net.order is None else v[:, net.order]) for v in (x, low, high))
        return (x - net.mean) / net.std, (low - net.mean) / net.std, (high - net.mean) / net.std

    def _forward(self, x: Tensor, ends: tuple[Tensor, Tensor]) -> tuple[Values, dict[fx.Node, tuple[Tensor, Tensor]]]:
        """Return every node's value, and the bounds of those that are pixels, only moved."""
        values: Values = {self.input: x}
        bounds = {self.input: ends}
        for step in self.steps:
            values[step.node] = step.apply(values)
            if step.kind in {"move", "still", "fixed"} and all(source in bounds for source in step.sources):
                low, high = (step.apply({**values, **{s: bounds[s][end] for s in step.sources}}) for end in (0, 1))
                if low.shape[1:] == values[step.node].shape[1:]:
                    bounds[step.node] = (torch.minimum(low, high), torch.maximum(low, high))
        return values, bounds

    def _backward(
        self, relevance: Tensor, values: Values, bounds: Mapping[fx.Node, tuple[Tensor, Tensor]], rule: Rule, *, keep: bool
    ) -> Tensor:
        """Return the relevance of the input."""
        held: dict[fx.Node, Tensor] = {self.output: relevance}
        for step in reversed(self.steps):
            if step.node not in held:
                continue
            ends = bounds.get(step.sources[0]) if step.kind in {"layer", "fixed"} else None
            centred = self.contrast and step.kind == "layer" and step.node is self.output
            shares = step.share(held.pop(step.node), values, rule, ends, keep=keep, centred=centred)
            for source, share in zip(step.sources, shares, strict=True):
                held[source] = held[source] + share if source in held else share
        return held[self.input]

    def _require(self, logits: Tensor, classes: Tensor) -> None:
        """Raise `InputError` unless there is a logit for each class."""
        if logits.ndim != 2 or len(logits) != len(classes):
            message = f"relevance starts at logits (N, K), one class an image; got {tuple(logits.shape)} and {len(classes)} classes"
            raise InputError(message)
        if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < logits.shape[1]:
            message = f"class {int(classes.max())} is to be explained, and this model has {logits.shape[1]} logits"
            raise InputError(message)


def named(rule: str | Rule) -> Rule:
    """Return a rule by its name.

    >>> named("epsilon").eps
    1e-06
    """
    if isinstance(rule, Rule):
        return rule
    if rule not in RULES:
        message = f"there is no relevance rule {rule!r}{nearest(rule, RULES)}; known: {', '.join(RULES)}"
        raise UsageError(message)
    return replace(RULES[rule])
