"""Weight pruning (Zhu and Gupta, "To prune, or not to prune", 2017; battery of Lukas et al., arXiv 2108.04974)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.errors import UsageError
from modelward.core.families import Theft, TheftMethod
from modelward.core.guard import private_copy
from modelward.core.result import Trace
from modelward.core.view import AttackerView, Labels
from modelward.models.parts import weight_layers


def smallest(magnitudes: Tensor, fraction: float) -> Tensor:
    """Return a bool mask of exactly round(fraction * n) smallest entries of a flat tensor."""
    mask = torch.zeros_like(magnitudes, dtype=torch.bool)
    mask[magnitudes.argsort(stable=True)[: round(fraction * magnitudes.numel())]] = True
    return mask


@dataclass(frozen=True, kw_only=True)
class Prune(TheftMethod):
    """Zero the smallest weights by magnitude; biases and normalisation stay.

    Parameters
    ----------
    sparsity
        fraction of the weights to zero, in [0, 1].
    scope
        ``"layer"``: that fraction of each layer; ``"global"``: of all layers together.
    """

    card: ClassVar[Card] = Card(
        name="prune",
        title="magnitude pruning without fine-tuning",
        paper="Zhu, Gupta: To prune, or not to prune, 2017, arXiv 1710.01878",
        taxonomy=Taxonomy(Scenario.WHITE_BOX, Mechanism.MODEL_MODIFICATION),
        cost="milliseconds",
    )
    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE, Labels.STOLEN, Labels.NONE)

    sparsity: float = 0.5
    scope: str = "layer"

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity <= 1 or self.scope not in {"layer", "global"}:
            message = f"sparsity lies in [0, 1] and scope is 'layer' or 'global', got {self.sparsity} and {self.scope!r}"
            raise UsageError(message)

    @torch.no_grad()
    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        del rng
        model = private_copy(view.weights)
        weights = [layer.weight for _, layer in weight_layers(model)]
        sizes = [weight.numel() for weight in weights]
        flat = [weight.abs().flatten() for weight in weights]
        masks = (
            smallest(torch.cat(flat), self.sparsity).split(sizes) if self.scope == "global" else [smallest(f, self.sparsity) for f in flat]
        )
        for weight, mask in zip(weights, masks, strict=True):
            weight[mask.view_as(weight)] = 0
        trace.steps = 1
        zeroed = sum(int(mask.sum()) for mask in masks)
        return Theft(model, view.arch, log={"epochs": 0, "sparsity": zeroed / sum(sizes), "zeroed": zeroed})
