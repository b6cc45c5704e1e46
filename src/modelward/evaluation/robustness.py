"""Robust accuracy: which images an attack cannot turn, for floats and after rounding to 8 bits."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from modelward.core.families import EvasionMethod
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.rng import generator, spawn
from modelward.imaging.quantise import as_8bit

CHUNK = 128


@dataclass
class Robust:
    """What an attack left.

    Parameters
    ----------
    correct, robust, robust_8bit
        bool (N,): classified correctly as it is; still after the attack; still after the attacked image is rounded to 8 bits.
    flags
        reasons not to trust it.
    seconds
        time of the attack.
    worst
        the largest change of a pixel.
    """

    correct: Tensor
    robust: Tensor
    robust_8bit: Tensor
    flags: list[str] = field(default_factory=list)
    seconds: float = 0.0
    worst: float = 0.0


def robust_under(
    method: EvasionMethod, model: nn.Module, images: ImageSet, *, rng: torch.Generator, correct: Tensor | None = None
) -> Robust:
    """Attack the images that are classified correctly; those that are not count as lost and cost nothing.

    Parameters
    ----------
    method
        the attack.
    model
        image batch -> logits.
    images
        (N, C, H, W) with labels.
    rng
        one seed is drawn from it.
    correct
        which images are classified correctly, when the caller knows.
    """
    if correct is None:
        correct = predict(model, images.pixels).argmax(1) == images.labels
    found, seed = Robust(correct, correct.clone(), correct.clone()), spawn(rng)
    for chunk in correct.nonzero().squeeze(1).split(max(1, len(images)) if method.universal else CHUNK):
        x, y = images.batch(chunk), images.labels[chunk]
        result = method.run(model, x, y, rng=generator((seed + int(chunk[0])) % 2**63))
        found.robust[chunk] = predict(model, result.value).argmax(1) == y
        found.robust_8bit[chunk] = predict(model, as_8bit(result.value)).argmax(1) == y
        found.worst = max(found.worst, float((result.value - x).abs().max()))
        found.flags += [flag for flag in result.flags if flag not in found.flags]
        found.seconds += result.seconds
    return found
