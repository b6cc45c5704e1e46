"""No theft at all: what somebody gets who trains on images alone, which every theft by training is to be compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from modelward.attacks.theft.finetune import BATTERY, FTAL
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.families import Theft
from modelward.core.result import Trace
from modelward.core.view import AttackerView, Labels
from modelward.models.parts import fresh_like
from modelward.training import fit


@dataclass(frozen=True, kw_only=True)
class FromScratch(FTAL):
    """Train a network of the victim's architecture from new weights, with the budget of a fine-tuning thief.

    A lock whose thief does no better than this has taken everything from him.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test.take(slice(64)))
    >>> FromScratch(epochs=1, images=40).steal(view, rng=generator(0)).log["images"]
    40
    """

    card: ClassVar[Card] = Card(
        name="scratch", title="no theft: training from scratch", paper=BATTERY,
        taxonomy=Taxonomy(Scenario.OTHER, Mechanism.OTHER), cost="5 epochs on the thief's images",
    )  # fmt: skip
    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE,)

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        recipe = self._recipe()
        few = self._few(view)
        model = fresh_like(few.weights, rng=rng)
        log = fit(model, few.images.pixels, few.targets(), recipe, rng=rng, task=self.card.name)
        trace.steps += len(log)
        return Theft(model, view.arch, log={"epochs": trace.steps, "images": len(few.images), "loss": log[-1].loss if log else None})
