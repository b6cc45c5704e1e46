"""Clip what sticks out of a tensor, then fine-tune: a thief who cannot tell which of the far values were moved takes all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.theft.finetune import FTAL
from modelward.attacks.theft.undoing import card
from modelward.core.card import Card
from modelward.core.result import Trace


@dataclass(frozen=True, kw_only=True)
class ClipOutliers(FTAL):
    """Clip every weight to the middle ``keep`` of its tensor's values, then fine-tune all layers.

    Parameters
    ----------
    keep
        share of the entries of a weight tensor that stay as they are, in (0, 1]; biases, scales and shifts are left alone.
    epochs, lr, batch, optimizer, images
        of fine-tuning.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test.take(slice(64)))
    >>> 0.04 < ClipOutliers(keep=0.95, epochs=1).steal(view, rng=generator(0)).log["clipped"] < 0.06
    True
    """

    card: ClassVar[Card] = card("clip-outliers", "clip the values that stick out, then fine-tune", "10 epochs on the thief's images")

    epochs: int = 10
    keep: float = 0.98

    def __post_init__(self) -> None:
        self._require(keep=(0 < self.keep <= 1, "in (0, 1]"))

    @torch.no_grad()
    def _prepare(self, model: nn.Module, pixels: Tensor, targets: Tensor, *, rng: torch.Generator, trace: Trace) -> dict[str, Any]:
        del pixels, targets, rng, trace
        weights, clipped = [tensor for tensor in model.parameters() if tensor.ndim >= 2], 0
        for weight in weights:
            low, high = ends(weight, self.keep)
            clipped += int(((weight < low) | (weight > high)).sum())
            weight.clamp_(low, high)
        return {"clipped": clipped / sum(weight.numel() for weight in weights)}


def ends(tensor: Tensor, keep: float) -> tuple[Tensor, Tensor]:
    """Return the two values between which the middle ``keep`` of the entries lies.

    >>> [float(end) for end in ends(torch.arange(101.0), 0.9)]
    [5.0, 95.0]
    """
    values = tensor.detach().reshape(-1).sort().values
    cut = round((1 - keep) / 2 * (len(values) - 1))
    return values[cut], values[len(values) - 1 - cut]
