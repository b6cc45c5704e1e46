"""Undo a lock of a few parameters by gradients: the entry that promises most is searched for its best value, again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from modelward.attacks.theft.undoing import bench, card
from modelward.core.card import Card
from modelward.core.families import Theft, TheftMethod
from modelward.core.result import Trace
from modelward.core.view import AttackerView, Labels
from modelward.marking.saliency import Saliency, lockable


@dataclass(frozen=True, kw_only=True)
class UndoGradient(TheftMethod):
    r"""Take the entry with the largest :math:`|g_j| (\max W - \min W)`, and give it the value that makes the loss least.

    Values are tried at ``points`` places over the range of the entry's tensor. An entry for which none is better than what it has is left
    alone from then on.

    Parameters
    ----------
    steps
        entries that are tried.
    points
        values for each.
    images
        that many of the thief's images, spread over his set; 0 takes all.
    norms
        measure the statistics of batch normalisation anew first, where there are any.

    Examples
    --------
    >>> from modelward import AttackerView, build, generator, load_data
    >>> net = build("lenet5", classes=10, rng=generator(0))
    >>> theft = UndoGradient(steps=2, images=40).steal(AttackerView.of_model(net, load_data("fashion-mini").test), rng=generator(0))
    >>> theft.log["kept"] in {1, 2}, theft.log["loss_after"] < theft.log["loss_before"]
    (True, True)
    """

    card: ClassVar[Card] = card(
        "undo-gradient",
        "search the value of the most promising parameters",
        "as many forward passes of the thief's images as steps x points",
    )
    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE,)

    steps: int = 100
    points: int = 9
    images: int = 400
    norms: bool = True

    def __post_init__(self) -> None:
        self._require(steps=(self.steps >= 1, ">= 1"), points=(self.points >= 2, ">= 2"), images=(self.images >= 0, ">= 0"))

    @property
    def effort(self) -> float:
        """What it costs in epochs; a forward pass is a third of one."""
        return self.steps * (1 + self.points / 3) * (min(1.0, self.images / 3000) if self.images else 1.0)

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        del rng
        view.targets()  # labels are what it needs
        place = bench(view, images=self.images, norms=self.norms)
        tensors, saliency = lockable(place.model, statistics=False), place.saliency
        spans = {name: float(tensor.detach().max() - tensor.detach().min()) for name, tensor in tensors.items()}
        shut = {name: torch.zeros(tensor.numel(), dtype=torch.bool) for name, tensor in tensors.items()}
        first, kept = saliency.loss(), 0
        for _ in range(self.steps):
            loss, grads = saliency.gradients(0)
            trace.steps += 1
            worth = {name: (grads[name].abs().reshape(-1) * spans[name]).masked_fill(shut[name], -1) for name in grads}
            name = max(worth, key=lambda known: float(worth[known].max()))
            j = int(worth[name].argmax())
            better = self._search(tensors[name], j, saliency, loss)
            shut[name][j] = not better
            kept += better
        return Theft(place.model, view.arch, log={"epochs": 0, "kept": kept, "loss_before": first, "loss_after": saliency.loss()})

    def _search(self, tensor: Tensor, j: int, saliency: Saliency, least: float) -> bool:
        """Give entry ``j`` the best of the values tried; return whether any was better than its own."""
        flat = tensor.detach().view(-1)
        low, high = (float(end) for end in flat.aminmax())
        best = own = flat[j].clone()
        for value in torch.linspace(low, high, self.points):
            flat[j] = float(value)
            found = saliency.loss()
            if found < least:
                best, least = flat[j].clone(), found
        flat[j] = best
        return bool(best != own)
