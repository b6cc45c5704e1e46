"""Compare a locked network with an independent one of its architecture, neuron by neuron, and restore what deviates most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.theft.fill_outliers import outlyingness
from modelward.attacks.theft.filling import Filling, Flags
from modelward.attacks.theft.undoing import Bench, card
from modelward.core.card import Card
from modelward.core.view import AttackerView
from modelward.marking.alignment import aligned
from modelward.marking.saliency import lockable
from modelward.models.parts import fresh_like
from modelward.training import Recipe, fit


@dataclass(frozen=True, kw_only=True)
class NearestSibling(Filling):
    """Train a network of the same architecture, match its neurons to the locked one's, and flag the entries that differ most from its own.

    The sibling stands for the network of the same task that a thief may find in public. It is trained on ``own`` images of his, many more than
    he fits with: what it shows is whether the difference tells which entries were moved, not what he would gain by serving the sibling.

    Parameters
    ----------
    share
        of all parameters that are flagged, in (0, 1].
    own
        images that the sibling is trained on; 0 takes all that the thief has.
    sibling_epochs
        of its training.
    fills, epochs, lr, batch, images, norms
        as in `Filling`; the median is that of the tensor.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test)
    >>> theft = NearestSibling(own=64, sibling_epochs=1, epochs=1, images=40).steal(view, rng=generator(0))
    >>> theft.log["flagged"]
    308
    """

    card: ClassVar[Card] = card(
        "nearest-sibling", "fill what differs most from an independent network", "training a network of the same architecture"
    )

    share: float = 0.005
    own: int = 0
    sibling_epochs: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            share=(0 < self.share <= 1, "in (0, 1]"), own=(self.own >= 0, ">= 0"), sibling_epochs=(self.sibling_epochs >= 1, ">= 1"),
        )  # fmt: skip

    @property
    def effort(self) -> float:
        """Both trainings, in epochs on the thief's images."""
        return float(self.epochs + self.sibling_epochs)

    def flag(self, tensors: Mapping[str, Tensor]) -> Flags:
        """Return the entries that stick out most: what is left to compare with where there is no sibling."""
        return foremost({name: outlyingness(tensor) for name, tensor in tensors.items()}, self.share)

    def flags(self, place: Bench, view: AttackerView, *, rng: torch.Generator) -> Flags:
        """Return the entries that differ most from those of a network that is trained for it."""
        images = view.images.few(self.own) if self.own else view.images
        sibling = fresh_like(place.model, rng=rng)
        recipe = Recipe(epochs=self.sibling_epochs, lr=0.05, batch=64)
        fit(sibling, images.pixels, images.labels, recipe, rng=rng, task=self.card.name)
        return foremost(deviations(place.model, sibling.eval()), self.share)


def deviations(model: nn.Module, sibling: nn.Module) -> dict[str, Tensor]:
    """Return how far every entry of ``model`` lies from that of ``sibling``, matched to it, in robust deviations of its tensor (n,)."""
    tensors = lockable(model, statistics=False)
    matched = lockable(aligned(sibling, dict(model.named_parameters())), statistics=False)
    return {name: outlyingness(tensor.detach() - matched[name].detach()) for name, tensor in tensors.items()}


def foremost(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return which entries are among the ``share`` with the largest scores over all tensors, bool (n,) each.

    >>> foremost({"a": torch.tensor([1.0, 9.0]), "b": torch.tensor([5.0, 2.0])}, 0.5)
    {'a': tensor([False,  True]), 'b': tensor([ True, False])}
    """
    whole = torch.cat(list(scores.values()))
    chosen = torch.zeros(len(whole), dtype=torch.bool)
    chosen[whole.topk(max(1, int(share * len(whole)))).indices] = True
    return dict(zip(scores, chosen.split([len(score) for score in scores.values()]), strict=True))
