"""Look for locked parameters among those that stick out of their tensor, and fill them with something ordinary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from modelward.attacks.theft.undoing import bench, card, remeasure
from modelward.core.card import Card
from modelward.core.families import Theft, TheftMethod
from modelward.core.result import Trace
from modelward.core.view import AttackerView, Labels
from modelward.marking.saliency import lockable

FILLS = ("median", "zero")
TO_SIGMA = 1.4826


@dataclass(frozen=True, kw_only=True)
class FillOutliers(TheftMethod):
    """Rank the parameters by how far they lie from the median of their tensor, and fill the foremost with that median, or with zero.

    Every share is tried with both fills, and the copy with the least loss over the thief's images is kept; it may be the network as it was.

    Parameters
    ----------
    shares
        of all parameters, in (0, 1].
    images
        that many of the thief's images, spread over his set; 0 takes all.
    norms
        measure the statistics of batch normalisation anew for each copy, where there are any.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> net = embedded_model().model
    >>> theft = FillOutliers(shares=(0.01,), images=40).steal(AttackerView.of_model(net, load_data("fashion-mini").test), rng=generator(0))
    >>> theft.log["fill"] in {"none", "median", "zero"}
    True
    """

    card: ClassVar[Card] = card("fill-outliers", "fill the parameters that stick out", "two forward passes of the thief's images a share")
    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE,)

    shares: Sequence[float] = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02)
    images: int = 400
    norms: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "shares", tuple(self.shares))
        self._require(
            shares=(bool(self.shares) and all(0 < share <= 1 for share in self.shares), "shares in (0, 1]"),
            images=(self.images >= 0, ">= 0"),
        )

    @property
    def effort(self) -> float:
        """What it costs in epochs; a forward pass is a third of one."""
        return len(FILLS) * len(self.shares) * 2 / 3 * (min(1.0, self.images / 3000) if self.images else 1.0)

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        del rng
        view.targets()  # labels are what it needs
        place = bench(view, images=self.images, norms=self.norms)
        first = least = place.saliency.loss()
        found: dict[str, float | str] = {"share": 0.0, "fill": "none"}
        tensors = lockable(place.model, statistics=False)
        start = best = {name: tensor.clone() for name, tensor in place.model.state_dict().items()}
        order = ranking(tensors)
        for share in self.shares:
            for fill in FILLS:
                place.model.load_state_dict(start)
                fill_in(tensors, order[: max(1, int(share * len(order)))], fill)
                if self.norms:
                    remeasure(place.model, view, images=self.images)
                if (loss := place.saliency.loss()) < least:
                    least, best = loss, {name: tensor.clone() for name, tensor in place.model.state_dict().items()}
                    found |= {"share": share, "fill": fill}
        place.model.load_state_dict(best)
        trace.steps = 1
        return Theft(place.model, view.arch, log={"epochs": 0, **found, "loss_before": first, "loss_after": least})


def outlyingness(tensor: Tensor) -> Tensor:
    """Return how far every entry lies from the tensor's median, in robust standard deviations (n,), double.

    >>> [round(value, 2) for value in outlyingness(torch.tensor([-1.0, 0.0, 1.0, 9.0, 0.0])).tolist()]
    [0.67, 0.0, 0.67, 6.07, 0.0]
    """
    flat = tensor.detach().double().reshape(-1)
    away = (flat - flat.median()).abs()
    spread = TO_SIGMA * away.median()
    return away / spread if spread > 0 else torch.where(away > 0, torch.inf, 0.0)


def ranking(tensors: Mapping[str, Tensor]) -> list[tuple[str, int]]:
    """Return all entries, by name and place, those that stick out most first."""
    names = [name for name, tensor in tensors.items() for _ in range(tensor.numel())]
    places = [place for tensor in tensors.values() for place in range(tensor.numel())]
    order = torch.cat([outlyingness(tensor) for tensor in tensors.values()]).argsort(descending=True, stable=True)
    return [(names[i], places[i]) for i in order.tolist()]


def fill_in(tensors: Mapping[str, Tensor], entries: Sequence[tuple[str, int]], fill: str) -> None:
    """Set entries to zero, or to the median of their tensor, in place."""
    for name in {name for name, _ in entries}:
        flat = tensors[name].detach().view(-1)
        flat[[place for known, place in entries if known == name]] = 0.0 if fill == "zero" else float(flat.median())
