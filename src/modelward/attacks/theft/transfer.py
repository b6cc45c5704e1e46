"""Transfer to other classes: the stolen features serve a task of the thief's own (battery of Lukas et al., arXiv 2108.04974)."""

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
from modelward.models.parts import replace_head
from modelward.training import Recipe, fit


@dataclass(frozen=True, kw_only=True)
class Transfer(TheftMethod):
    """Give the copy a new last layer for the classes of the thief's images, and train all layers on them.

    The result has as many outputs as ``AttackerView.images`` has classes, which need not be the victim's.

    Parameters
    ----------
    epochs, lr, batch
        SGD with momentum .9 at a constant rate.
    only_head
        train the new layer alone.

    Examples
    --------
    >>> import torch
    >>> from modelward import AttackerView, ImageSet, embedded_model, generator, load_data
    >>> clothes = load_data("fashion-mini").test.take(slice(64))
    >>> worn = ImageSet(clothes.pixels, (clothes.labels > 4).long(), ("rather dress", "rather shoe"), "two kinds")
    >>> theft = Transfer(epochs=1).steal(AttackerView.of_model(embedded_model().model, worn), rng=generator(0))
    >>> theft.model(worn.batch(slice(3))).shape
    torch.Size([3, 2])
    """

    card: ClassVar[Card] = Card(
        name="transfer", title="new last layer for other classes", paper=BATTERY, taxonomy=WHITE_BOX, cost="5 epochs on the thief's images",
        limits=("the copy answers another question: methods that compare labels with labels cannot be asked",),
    )  # fmt: skip
    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE,)

    epochs: int = 5
    lr: float = 0.01
    batch: int = 128
    only_head: bool = False

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        recipe = Recipe(epochs=self.epochs, lr=self.lr, batch=self.batch, schedule="constant")
        model = plain_copy(view.weights)
        name, layer = replace_head(model, len(view.images.classes), rng=rng)
        if self.only_head:
            for parameter in model.parameters():
                parameter.requires_grad_(False)
            for parameter in layer.parameters():
                parameter.requires_grad_(True)
        log = fit(model, view.images.pixels, view.targets(), recipe, rng=rng, task=self.card.name)
        trace.steps = len(log)
        for parameter in model.parameters():
            parameter.requires_grad_(True)
            parameter.grad = None
        return Theft(model, view.arch, log={"epochs": self.epochs, "head": name, "classes": len(view.images.classes)})
