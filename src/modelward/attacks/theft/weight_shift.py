"""Weight shifting (battery of Lukas et al., arXiv 2108.04974): filters lose what they have in common, then the model is fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.theft.finetune import BATTERY, FTAL, WHITE_BOX
from modelward.core.card import Card
from modelward.core.result import Trace
from modelward.models.parts import head, weight_layers


@dataclass(frozen=True, kw_only=True)
class WeightShift(FTAL):
    """Move the filters W (O, I, h, w) of every convolution to W - shift * mean_o(W) + noise * std(W) * N(0, 1), then fine-tune all layers.

    In a network without convolutions the hidden linear layers are moved.

    Parameters
    ----------
    shift
        lambda; the paper's is 1.5 or 2.5.
    noise
        share of each layer's standard deviation.
    epochs
        of fine-tuning; the paper's is 10, here 3.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test.take(slice(64)))
    >>> WeightShift(epochs=1).steal(view, rng=generator(0)).log["shifted"]
    2
    """

    card: ClassVar[Card] = Card(
        name="weight-shift",
        title="shift the filters, then fine-tune",
        paper=BATTERY,
        taxonomy=WHITE_BOX,
        cost="3 epochs on the thief's images",
    )

    epochs: int = 3
    shift: float = 1.5
    noise: float = 0.1

    def __post_init__(self) -> None:
        self._require(shift=(self.shift >= 0, ">= 0"), noise=(self.noise >= 0, ">= 0"))

    @torch.no_grad()
    def _prepare(self, model: nn.Module, pixels: Tensor, targets: Tensor, *, rng: torch.Generator, trace: Trace) -> dict[str, Any]:
        del pixels, targets, trace
        last = head(model)[1]
        layers = [layer for _, layer in weight_layers(model) if layer is not last]
        moved = [layer for layer in layers if isinstance(layer, nn.Conv2d)] or layers
        for layer in moved:
            weight = layer.weight
            drawn = torch.randn(weight.shape, generator=rng).mul_(self.noise * float(weight.std()))
            weight.sub_(weight.mean(0, keepdim=True), alpha=self.shift).add_(drawn)
        return {"shifted": len(moved)}
