"""Weight quantisation (Hubara et al., "Quantized neural networks", 2018; battery of Lukas et al., arXiv 2108.04974)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.errors import UsageError
from modelward.core.families import Theft, TheftMethod
from modelward.core.guard import plain_copy
from modelward.core.result import Trace
from modelward.core.view import AttackerView, Labels
from modelward.models.parts import weight_layers


@dataclass(frozen=True, kw_only=True)
class Quantise(TheftMethod):
    """Round the weights of each layer to ``2**bits`` equally spaced levels between their minimum and maximum.

    Parameters
    ----------
    bits
        1 to 16; the values are stored as floats again.
    """

    card: ClassVar[Card] = Card(
        name="quantise",
        title="uniform per-tensor weight quantisation",
        paper="Hubara, Courbariaux, Soudry, El-Yaniv, Bengio: Quantized neural networks, JMLR 2018, arXiv 1609.07061",
        taxonomy=Taxonomy(Scenario.WHITE_BOX, Mechanism.MODEL_MODIFICATION),
        cost="milliseconds",
    )
    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE, Labels.STOLEN, Labels.NONE)

    bits: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            message = f"bits lies in 1..16, got {self.bits}"
            raise UsageError(message)

    @torch.no_grad()
    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        del rng
        model = plain_copy(view.weights)
        for _, layer in weight_layers(model):
            low, high = layer.weight.aminmax()
            scale = (high - low) / (2**self.bits - 1)
            if scale > 0:
                layer.weight.sub_(low).div_(scale).round_().mul_(scale).add_(low)
        trace.steps = 1
        return Theft(model, view.arch, log={"epochs": 0, "bits": self.bits})
