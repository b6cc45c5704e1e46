"""Thefts by further training: FTAL, FTLL and RTAL of the watermark-robustness battery (Lukas et al., arXiv 2108.04974)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.families import Theft, TheftMethod
from modelward.core.guard import private_copy
from modelward.core.result import Trace
from modelward.core.view import AttackerView
from modelward.models.parts import head, reinitialise
from modelward.training import Recipe, fit

_PAPER = "Lukas, Jiang, Li, Kerschbaum: SoK: how robust is image classification DNN watermarking?, IEEE S&P 2022, arXiv 2108.04974"
_TAXONOMY = Taxonomy(Scenario.WHITE_BOX, Mechanism.MODEL_MODIFICATION)


@dataclass(frozen=True, kw_only=True)
class FTAL(TheftMethod):
    """Fine-tune all layers on the thief's images.

    Parameters
    ----------
    epochs, lr, batch
        5 epochs as in the paper; SGD with momentum .9 at a constant rate.
    """

    card: ClassVar[Card] = Card(
        name="ftal", title="fine-tune all layers", paper=_PAPER, taxonomy=_TAXONOMY, cost="5 epochs on the thief's images"
    )
    retrain_head: ClassVar[bool] = False
    only_head: ClassVar[bool] = False

    epochs: int = 5
    lr: float = 0.01
    batch: int = 128

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        model = private_copy(view.weights)
        name, layer = head(model)
        if self.retrain_head:
            reinitialise(layer, rng=rng)
        if self.only_head:
            for parameter in model.parameters():
                parameter.requires_grad_(False)
            for parameter in layer.parameters():
                parameter.requires_grad_(True)
        recipe = Recipe(epochs=self.epochs, lr=self.lr, batch=self.batch, schedule="constant")
        log = fit(model, view.images.pixels, view.targets(), recipe, rng=rng, task=self.card.name)
        trace.steps = len(log)
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        return Theft(model, view.arch, log={"epochs": self.epochs, "head": name, "loss": log[-1].loss if log else None})


@dataclass(frozen=True, kw_only=True)
class FTLL(FTAL):
    """Fine-tune the last layer only; every other tensor stays byte for byte."""

    card: ClassVar[Card] = Card(
        name="ftll", title="fine-tune the last layer", paper=_PAPER, taxonomy=_TAXONOMY, cost="5 epochs on the thief's images"
    )
    only_head: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class RTAL(FTAL):
    """Re-initialise the last layer, then train all layers."""

    card: ClassVar[Card] = Card(
        name="rtal", title="new last layer, then train all layers", paper=_PAPER, taxonomy=_TAXONOMY, cost="5 epochs on the thief's images"
    )
    retrain_head: ClassVar[bool] = True
