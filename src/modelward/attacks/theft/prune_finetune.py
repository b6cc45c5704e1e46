"""Weight pruning and fine-tuning of what is left (Han et al., "Learning both weights and connections", NeurIPS 2015; battery of Lukas et al.)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.theft.finetune import FTAL, WHITE_BOX
from modelward.attacks.theft.prune import check, prune
from modelward.core.card import Card
from modelward.core.families import Theft
from modelward.core.result import Trace
from modelward.core.view import AttackerView


@dataclass(frozen=True, kw_only=True)
class PruneFinetune(FTAL):
    """Zero the smallest weights, then train the others: the zeroed ones stay zero.

    Parameters
    ----------
    sparsity, scope
        as in `Prune`.
    epochs
        of fine-tuning, 1 as in the battery.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test.take(slice(64)))
    >>> theft = PruneFinetune(sparsity=0.5).steal(view, rng=generator(0))
    >>> float((theft.model.body[9].weight == 0).float().mean())
    0.5
    """

    card: ClassVar[Card] = Card(
        name="prune-ft", title="magnitude pruning with fine-tuning",
        paper="Han, Pool, Tran, Dally: Learning both weights and connections for efficient neural networks, NeurIPS 2015, arXiv 1506.02626",
        taxonomy=WHITE_BOX, cost="1 epoch on the thief's images",
    )  # fmt: skip

    epochs: int = 1
    sparsity: float = 0.5
    scope: str = "layer"

    def __post_init__(self) -> None:
        check(self.sparsity, self.scope)

    def _prepare(self, model: nn.Module, pixels: Tensor, targets: Tensor, *, rng: torch.Generator, trace: Trace) -> dict[str, Any]:
        del pixels, targets, rng
        kept = prune(model, self.sparsity, self.scope)
        for weight, mask in kept:  # decay and momentum of a weight at zero without gradient are zero
            trace.notes.setdefault("hooks", []).append(weight.register_hook(lambda grad, mask=mask: grad.masked_fill(mask, 0)))
        zeroed = sum(int(mask.sum()) for _, mask in kept)
        return {"sparsity": zeroed / sum(mask.numel() for _, mask in kept), "zeroed": zeroed}

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        try:
            return super()._steal(view, rng=rng, trace=trace)
        finally:
            for hook in trace.notes.pop("hooks", []):
                hook.remove()
