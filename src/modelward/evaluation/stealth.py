"""How much a mark in weights gives itself away: its layers beside the same layers of models that carry none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from modelward.core.key import Key
from modelward.evaluation.rows import Row
from modelward.models.parts import weight_layers

FEWEST, MOST = 3, 1000  # clean models of the same architecture; weights of a layer that are looked at

Weights = NDArray[np.float64]


def kolmogorov_smirnov(first: Weights, second: Weights) -> float:
    """Return the largest distance between two empirical distribution functions, in [0, 1].

    Examples
    --------
    >>> kolmogorov_smirnov(np.array([0.0, 1.0]), np.array([0.0, 1.0])), kolmogorov_smirnov(np.array([0.0, 1.0]), np.array([2.0]))
    (0.0, 1.0)
    """
    both = np.concatenate([first, second])
    shares = [np.searchsorted(np.sort(sample), both, side="right") / len(sample) for sample in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def oddness(suspect: Weights, clean: Sequence[Weights]) -> tuple[float, float]:
    """Return how far a layer's weights lie from those of all other models, and the rank p of that among the same figure of each clean model.

    Each model is held against the pool of all others, so that under exchangeable models every rank is as likely: p is exact.

    Examples
    --------
    >>> usual = [np.array([-1.0, 0.0, 1.0]) + shift for shift in (0.0, 0.1, 0.2)]
    >>> oddness(np.array([5.0, 6.0, 7.0]), usual)
    (1.0, 0.25)
    """
    models = [suspect, *clean]
    found = [kolmogorov_smirnov(one, np.concatenate([*models[:i], *models[i + 1 :]])) for i, one in enumerate(models)]
    return found[0], sum(value >= found[0] for value in found) / len(models)


def marked_layers(key: Key) -> list[str]:
    """Return the names of the layers that carry the mark of a key; none for a mark that is not in weights.

    Examples
    --------
    >>> marked_layers(Key("m", "paper", "", {"layer": "body.3"})), marked_layers(Key("m", "paper", "", {"gates": [["a", "b"]]}))
    (['body.3'], ['a'])
    """
    if "layer" in key.facts:
        return [key.fact(str, "layer")]
    return [str(conv) for conv, _ in key.facts.get("gates", ())]


def weight_stealth(model: nn.Module, key: Key, clean: Sequence[nn.Module]) -> list[Row]:
    """Return the row ``stealth``: the smallest rank p over the marked layers, from Kolmogorov-Smirnov distances to clean models of the same shapes.

    Small means that the histogram of weights shows the mark. The layers that carry none stand beside it, ``unmarked`` in the row's extra: training
    for a mark changes them as well, and where they are as odd, it is not the mark that is seen. Nothing is returned for a mark that is not in
    weights, or with fewer than three clean models.
    """
    named = marked_layers(key)
    own, shapes = _layers(model), _shapes(model)
    alike = [_layers(one) for one in clean if _shapes(one) == shapes]
    if not named or len(alike) < FEWEST:
        return []
    found = {name: oddness(weights, [layers[name] for layers in alike]) for name, weights in own.items()}
    told = {name: {"distance": distance, "p": p} for name, (distance, p) in found.items()}
    marked, others = ({name: facts for name, facts in told.items() if (name in named) is side} for side in (True, False))
    if not marked:
        return []
    extra: dict[str, Any] = {
        "layers": marked,
        "unmarked": others,
        "least_unmarked_p": min((one["p"] for one in others.values()), default=None),
    }
    return [Row(metric="stealth", value=min(one["p"] for one in marked.values()), n=len(alike), unit="p", extra=extra)]


def _layers(model: nn.Module) -> Mapping[str, Weights]:
    """Return the weights of every layer, of a large one its quantiles."""
    return {name: _quantiles(layer.weight.detach().cpu().double().flatten().numpy()) for name, layer in weight_layers(model)}


def _quantiles(weights: Weights) -> Weights:
    """Return at most 1,000 weights, in order and evenly spaced among all: a distance of distributions needs no more."""
    ordered = np.sort(weights)
    return ordered[np.linspace(0, len(ordered) - 1, min(len(ordered), MOST)).round().astype(np.int64)]


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of every layer's weights."""
    return {name: tuple(layer.weight.shape) for name, layer in weight_layers(model)}
