"""Fill the parameters that the gradient over few labels says do harm, a few at a time."""

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
from modelward.marking.saliency import lockable


@dataclass(frozen=True, kw_only=True)
class GradientFill(TheftMethod):
    r"""Put the entries whose way to their tensor's median promises most, :math:`g_j (w_j - \mathrm{median}\, W)`, to that median; keep the best copy.

    Parameters
    ----------
    share
        of all parameters that may be filled, in (0, 1].
    each
        entries for one gradient.
    images
        that many of the thief's images, spread over his set; 0 takes all.
    norms
        measure the statistics of batch normalisation anew first, where there are any.

    Examples
    --------
    >>> from modelward import AttackerView, build, generator, load_data
    >>> net = build("lenet5", classes=10, rng=generator(0))
    >>> theft = GradientFill(share=0.001, images=40).steal(AttackerView.of_model(net, load_data("fashion-mini").test), rng=generator(0))
    >>> theft.log["filled"], theft.log["loss_after"] <= theft.log["loss_before"]
    (61, True)
    """

    card: ClassVar[Card] = card(
        "gradient-fill",
        "fill the parameters that do harm by the gradient",
        "a forward and backward pass of the thief's images for each gradient",
    )
    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE,)

    share: float = 0.02
    each: int = 4
    images: int = 100
    norms: bool = True

    def __post_init__(self) -> None:
        self._require(share=(0 < self.share <= 1, "in (0, 1]"), each=(self.each >= 1, ">= 1"), images=(self.images >= 0, ">= 0"))

    @property
    def effort(self) -> float:
        """What it costs in epochs, of a network of some 50,000 parameters."""
        return 50_000 * self.share / self.each * 4 / 3 * (min(1.0, self.images / 3000) if self.images else 1.0)

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        del rng
        view.targets()  # labels are what it needs
        place = bench(view, images=self.images, norms=self.norms)
        tensors = lockable(place.model, statistics=False)
        medians = {name: tensor.detach().median() for name, tensor in tensors.items()}
        filled = {name: torch.zeros(tensor.numel(), dtype=torch.bool) for name, tensor in tensors.items()}
        first = least = place.saliency.loss()
        best = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        budget, count = max(1, int(self.share * sum(tensor.numel() for tensor in tensors.values()))), 0
        while count < budget:
            loss, grads = place.saliency.gradients(0)
            if loss < least:
                least, best = loss, {name: tensor.detach().clone() for name, tensor in tensors.items()}
            worth = {
                name: ((tensors[name].detach() - medians[name]) * grad).reshape(-1).masked_fill(filled[name], 0)
                for name, grad in grads.items()
            }
            chosen = _foremost(worth, min(self.each, budget - count))
            if not chosen:
                break
            for name, place_of in chosen:
                tensors[name].detach().view(-1)[place_of] = medians[name]
                filled[name][place_of] = True
            count += len(chosen)
        if (loss := place.saliency.loss()) >= least:
            with torch.no_grad():
                for name, tensor in tensors.items():
                    tensor.copy_(best[name])
        trace.steps = 1
        return Theft(place.model, view.arch, log={"epochs": 0, "filled": count, "loss_before": first, "loss_after": min(loss, least)})


def _foremost(worth: dict[str, Tensor], count: int) -> list[tuple[str, int]]:
    """Return the entries that are worth most, of those that are worth anything, by name and place."""
    found = [
        (float(value), name, int(place))
        for name, each in worth.items()
        for value, place in zip(*each.topk(min(count, len(each))), strict=True)
        if float(value) > 0
    ]
    return [(name, place) for _, name, place in sorted(found, key=lambda one: -one[0])[:count]]
