"""Which images InFIP asks: those that the owner's model is sure of, and on which its maps are least like those of independent models."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from modelward.core.errors import InputError
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.ownership.heatmaps import balanced, nearness
from modelward.ownership.probes import MIN_PROBES

Heat = Callable[[nn.Module, Tensor, Tensor], Tensor]


def chosen(
    model: nn.Module, data: ImageSet, references: Sequence[nn.Module], heat: Heat,
    *, count: int, pool: int, confidence: float, rng: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:  # fmt: skip
    """Return positions (N,) and classes (N,) of the probes, the owner's maps (R, N, H, W) of them, and those of every reference that has any.

    Parameters
    ----------
    heat
        (model, uint8 pixels, classes) -> maps.
    count, pool, confidence
        probes, candidates a probe, and the probability from which the model is sure.

    Raises
    ------
    InputError
        when too few images serve.
    """
    probabilities = predict(model, data.pixels).softmax(1)
    sure, classes = probabilities[:, : len(data.classes)].max(1)  # other models lack what outputs the owner's has beyond the classes
    worth = torch.where(sure >= confidence, 1.0, sure) + 1e-3 * torch.rand(len(sure), generator=rng)
    index = balanced(classes, worth, count * (pool if references else 1))
    if len(index) < MIN_PROBES:
        message = f"infip: {len(index)} images serve as probes, {MIN_PROBES} are needed; pass more images"
        raise InputError(message)
    classes = classes[index]
    maps, others = heat(model, data.pixels[index], classes), list[Tensor]()
    for one in references:
        with contextlib.suppress(InputError):  # of layers that relevance has no rule for
            others.append(heat(one, data.pixels[index], classes))
    kept = balanced(classes, -nearness(maps, others), count) if len(others) > 1 else torch.arange(min(count, len(index)))
    return index[kept], classes[kept], maps[:, kept], [one[:, kept] for one in others]
