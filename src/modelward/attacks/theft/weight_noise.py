"""Weight noise: every layer under Gaussian noise in proportion to its own spread (battery of Lukas et al., arXiv 2108.04974)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from modelward.attacks.theft.finetune import BATTERY, WHITE_BOX
from modelward.core.card import Card
from modelward.core.families import Theft, TheftMethod
from modelward.core.guard import plain_copy
from modelward.core.result import Trace
from modelward.core.view import AttackerView, Labels
from modelward.models.parts import weight_layers


@dataclass(frozen=True, kw_only=True)
class WeightNoise(TheftMethod):
    """Add sigma * std(W) * N(0, 1) to the weights W of every layer; biases and normalisation stay.

    Parameters
    ----------
    sigma
        .01 to .3 is the range that costs a thief little to much.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> model = embedded_model().model
    >>> view = AttackerView.of_model(model, load_data("fashion-mini").test.take(slice(8)), labels="none")
    >>> weight = model.body[9].weight.detach()
    >>> noise = WeightNoise(sigma=0.1).steal(view, rng=generator(0)).model.body[9].weight.detach() - weight
    >>> round(float(noise.std() / weight.std()), 2)
    0.1
    """

    card: ClassVar[Card] = Card(
        name="weight-noise", title="Gaussian noise on the weights", paper=BATTERY, taxonomy=WHITE_BOX, cost="milliseconds"
    )
    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE, Labels.STOLEN, Labels.NONE)

    sigma: float = 0.1

    def __post_init__(self) -> None:
        self._require(sigma=(self.sigma >= 0, ">= 0"))

    @torch.no_grad()
    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        model = plain_copy(view.weights)
        for _, layer in weight_layers(model):
            layer.weight.add_(torch.randn(layer.weight.shape, generator=rng), alpha=self.sigma * float(layer.weight.std(correction=0)))
        trace.steps = 1
        return Theft(model, view.arch, log={"epochs": 0, "sigma": self.sigma})
