"""Which images InFIP asks: those that most candidates are sure of, and on which their maps differ."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from modelward.core.errors import InputError
from modelward.core.images import ImageSet
from modelward.ownership.candidates import Candidates
from modelward.ownership.heatmaps import balanced
from modelward.ownership.probes import MIN_PROBES

Heat = Callable[[nn.Module, Tensor, Tensor], Tensor]


def chosen(
    candidates: Candidates, data: ImageSet, heat: Heat, *, count: int, pool: int, confidence: float, rng: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return positions (N,) and classes (N,) of the probes, and every candidate's maps of them, float16 (m + 1, R, N, H, W).

    The class that is explained is the one that most candidates give, and an image is as sure as their mean probability of it.

    Parameters
    ----------
    heat
        (model, uint8 pixels, classes) -> maps.
    count, pool, confidence
        probes, images looked at a probe, and the probability from which candidates are sure.

    Raises
    ------
    InputError
        when too few images serve.
    """
    known = len(data.classes)  # other models lack what outputs the owner's has beyond the classes
    free = torch.randperm(len(data), generator=rng)[: max(count * pool, len(data) // 2)]  # which half is looked at is a secret
    mean = torch.stack([logits.softmax(1)[:, :known].double() for logits in candidates.answers(data.pixels[free])]).mean(0)
    sure, classes = mean.max(1)
    worth = torch.where(sure >= confidence, 1.0, sure) + 1e-3 * torch.rand(len(sure), generator=rng)
    first = balanced(classes, worth, count * pool)
    index, classes = free[first], classes[first]
    if len(index) < MIN_PROBES:
        message = f"infip: {len(index)} images serve as probes, {MIN_PROBES} are needed; pass more images"
        raise InputError(message)
    maps = torch.stack([heat(model, data.pixels[index], classes).half() for model in candidates.models])
    if pool > 1 and len(candidates.models) > 1:
        spread = (maps.double() - maps.double().mean(0)).flatten(3).norm(dim=3).mean((0, 1))
        kept = balanced(classes, spread, count)
    else:
        kept = torch.arange(min(count, len(index)))
    return index[kept], classes[kept], maps[:, :, kept]
