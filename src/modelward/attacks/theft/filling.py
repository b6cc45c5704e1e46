"""What thieves share who think that they know which entries were moved: fill those with something ordinary, then train those alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.theft.undoing import Bench, bench, remeasure
from modelward.core.families import Theft, TheftMethod
from modelward.core.result import Trace
from modelward.core.view import AttackerView, Labels
from modelward.marking.saliency import lockable
from modelward.training import Recipe, fit

FILLS = ("median", "neighbours", "zero")
Flags = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Filling(TheftMethod):
    """Base: flag entries, try every fill and the network as it was, keep the copy with the least loss, and train its flagged entries alone.

    Parameters
    ----------
    fills
        of ``"median"`` of the tensor, ``"neighbours"``: the mean of the nearest entries before and after that are not flagged, and ``"zero"``.
    epochs, lr, batch
        of Adam on the flagged entries; 0 epochs leave them as they were filled.
    images
        that many of the thief's images, spread over his set; 0 takes all.
    norms
        measure the statistics of batch normalisation anew for each copy, where there are any.
    """

    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE,)

    fills: Sequence[str] = FILLS
    epochs: int = 20
    lr: float = 0.003
    batch: int = 16
    images: int = 100
    norms: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "fills", tuple(self.fills))
        self._require(
            fills=(bool(self.fills) and set(self.fills) <= set(FILLS), f"some of {', '.join(FILLS)}"), epochs=(self.epochs >= 0, ">= 0"),
            lr=(self.lr > 0, "> 0"), batch=(self.batch >= 1, ">= 1"), images=(self.images >= 0, ">= 0"),
        )  # fmt: skip

    @abstractmethod
    def flag(self, tensors: Mapping[str, Tensor]) -> Flags:
        """Return, for each tensor, which of its entries the thief takes for moved: bool (n,), counted row by row."""

    def flags(self, place: Bench, view: AttackerView, *, rng: torch.Generator) -> Flags:
        """Return the same for a copy and a thief's images; most thieves look at the weights alone."""
        del view, rng
        return self.flag(lockable(place.model, statistics=True))

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        view.targets()  # labels are what it needs
        place = bench(view, images=self.images, norms=self.norms)
        flags = self.flags(place, view, rng=rng)
        count = sum(int(found.sum()) for found in flags.values())
        fill, first, least = self._filled(place, view, flags) if count else ("none", place.saliency.loss(), place.saliency.loss())
        if count and self.epochs:
            few = view.images.few(self.images) if self.images else view.images
            recipe = Recipe(epochs=self.epochs, lr=self.lr, batch=self.batch, optimizer="adam", schedule="constant", weight_decay=0.0)
            with only(place.model, flags):
                trace.steps = len(fit(place.model, few.pixels, few.labels, recipe, rng=rng, task=self.card.name))
        log = {"epochs": trace.steps, "flagged": count, "fill": fill, "loss_before": first, "loss_after": least}
        trace.steps = max(1, trace.steps)
        return Theft(place.model, view.arch, log=log)

    def _filled(self, place: Bench, view: AttackerView, flags: Flags) -> tuple[str, float, float]:
        """Give the flagged entries the fill with the least loss, in place; return its name, the loss before and after."""
        first = least = place.saliency.loss()
        start = best = {name: tensor.clone() for name, tensor in place.model.state_dict().items()}
        chosen = "none"
        for fill in self.fills:
            place.model.load_state_dict(start)
            fill_flagged(lockable(place.model, statistics=True), flags, fill)
            if self.norms:
                remeasure(place.model, view, images=self.images)
            if (loss := place.saliency.loss()) < least:
                least, chosen, best = loss, fill, {name: tensor.clone() for name, tensor in place.model.state_dict().items()}
        place.model.load_state_dict(best)
        return chosen, first, least


def fill_flagged(tensors: Mapping[str, Tensor], flags: Flags, fill: str) -> None:
    """Fill the flagged entries of every tensor with what is ordinary there, in place; a tensor that is flagged all over stays.

    >>> weights = torch.tensor([1.0, 9.0, 3.0, 5.0])
    >>> fill_flagged({"w": weights}, {"w": torch.tensor([False, True, False, False])}, "neighbours")
    >>> weights.tolist()
    [1.0, 2.0, 3.0, 5.0]
    """
    for name, flagged in flags.items():
        flat, kept = tensors[name].detach().view(-1), torch.nonzero(~flagged).flatten()
        if not len(kept) or not bool(flagged.any()):
            continue
        if fill == "neighbours":
            places = torch.nonzero(flagged).flatten()
            after = torch.searchsorted(kept, places).clamp(max=len(kept) - 1)
            flat[places] = (flat[kept[after]] + flat[kept[(after - 1).clamp(min=0)]]) / 2
        else:
            flat[flagged] = 0.0 if fill == "zero" else flat[kept].median()


@contextmanager
def only(model: nn.Module, flags: Flags) -> Iterator[None]:
    """Let training change the flagged entries of the parameters alone inside the block."""
    hooks, none = [], torch.zeros(0, dtype=torch.bool)
    for name, parameter in model.named_parameters():
        flagged = flags.get(name, none)
        kept = ~flagged.view(parameter.shape) if len(flagged) else torch.ones(parameter.shape, dtype=torch.bool)
        hooks.append(parameter.register_hook(lambda grad, kept=kept: grad.masked_fill(kept, 0)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in model.parameters():
            parameter.grad = None
