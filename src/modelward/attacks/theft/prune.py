"""Weight pruning (Zhu and Gupta, "To prune, or not to prune", 2017; battery of Lukas et al., arXiv 2108.04974)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.errors import UsageError
from modelward.core.families import Theft, TheftMethod
from modelward.core.guard import plain_copy
from modelward.core.result import Trace
from modelward.core.view import AttackerView, Labels
from modelward.models.parts import weight_layers


def smallest(magnitudes: Tensor, fraction: float) -> Tensor:
    """Return a bool mask of exactly round(fraction * n) smallest entries of a flat tensor."""
    mask = torch.zeros_like(magnitudes, dtype=torch.bool)
    mask[magnitudes.argsort(stable=True)[: round(fraction * magnitudes.numel())]] = True
    return mask


def check(sparsity: float, scope: str) -> None:
    """Raise `UsageError` unless ``sparsity`` lies in [0, 1] and ``scope`` is known."""
    if not 0 <= sparsity <= 1 or scope not in {"layer", "global"}:
        message = f"sparsity lies in [0, 1] and scope is 'layer' or 'global', got {sparsity} and {scope!r}"
        raise UsageError(message)


@torch.no_grad()
def prune(model: nn.Module, sparsity: float, scope: str) -> list[tuple[Tensor, Tensor]]:
    """Zero the smallest weights of ``model`` in place; return every weight with the bool mask of what was zeroed."""
    weights = [layer.weight for _, layer in weight_layers(model)]
    flat = [weight.abs().flatten() for weight in weights]
    sizes = [weight.numel() for weight in weights]
    masks = smallest(torch.cat(flat), sparsity).split(sizes) if scope == "global" else [smallest(f, sparsity) for f in flat]
    pairs = [(weight, mask.view_as(weight)) for weight, mask in zip(weights, masks, strict=True)]
    for weight, mask in pairs:
        weight[mask] = 0
    return pairs


@dataclass(frozen=True, kw_only=True)
class Prune(TheftMethod):
    """Zero the smallest weights by magnitude; biases and normalisation stay.

    Parameters
    ----------
    sparsity
        fraction of the weights to zero, in [0, 1].
    scope
        ``"layer"``: that fraction of each layer; ``"global"``: of all layers together.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test.take(slice(8)), labels="none")
    >>> round(Prune(sparsity=0.3).steal(view, rng=generator(0)).log["sparsity"], 3)
    0.3
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
        check(self.sparsity, self.scope)

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        del rng
        model = plain_copy(view.weights)
        pairs = prune(model, self.sparsity, self.scope)
        trace.steps = 1
        zeroed = sum(int(mask.sum()) for _, mask in pairs)
        return Theft(model, view.arch, log={"epochs": 0, "sparsity": zeroed / sum(mask.numel() for _, mask in pairs), "zeroed": zeroed})
