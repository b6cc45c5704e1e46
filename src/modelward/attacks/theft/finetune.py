"""Thefts by further training: FTAL, FTLL, RTAL and RTLL of the watermark-robustness battery (Lukas et al., arXiv 2108.04974)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.families import Theft, TheftMethod
from modelward.core.guard import plain_copy
from modelward.core.result import Trace
from modelward.core.view import AttackerView
from modelward.models.parts import head, reinitialise
from modelward.training import Recipe, fit
from modelward.training.extras import Extras
from modelward.training.loop import Adversary

BATTERY = "Lukas, Jiang, Li, Kerschbaum: SoK: how robust is image classification DNN watermarking?, IEEE S&P 2022, arXiv 2108.04974"
WHITE_BOX = Taxonomy(Scenario.WHITE_BOX, Mechanism.MODEL_MODIFICATION)


@dataclass(frozen=True, kw_only=True)
class FTAL(TheftMethod):
    """Fine-tune all layers on the thief's images.

    Parameters
    ----------
    epochs, lr, batch
        5 epochs as in the paper, at a constant rate.
    optimizer
        ``"sgd"`` with momentum .9, or ``"adam"``.
    images
        that many of the thief's images, spread over his set; 0 takes all.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test.take(slice(64)))
    >>> theft = FTAL(epochs=1).steal(view, rng=generator(0))
    >>> theft.log["epochs"], theft.log["head"]
    (1, 'body.11')
    """

    card: ClassVar[Card] = Card(
        name="ftal", title="fine-tune all layers", paper=BATTERY, taxonomy=WHITE_BOX, cost="5 epochs on the thief's images"
    )
    retrain_head: ClassVar[bool] = False
    only_head: ClassVar[bool] = False

    epochs: int = 5
    lr: float = 0.01
    batch: int = 128
    optimizer: str = "sgd"
    images: int = 0

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        recipe = self._recipe()  # a wrong setting costs no query
        view = self._few(view)
        model = plain_copy(view.weights)
        name, layer = head(model)
        if self.retrain_head:
            reinitialise(layer, rng=rng)
        targets = view.targets()
        facts = self._prepare(model, view.images.pixels, targets, rng=rng, trace=trace)
        if self.only_head:
            for parameter in model.parameters():
                parameter.requires_grad_(False)
            for parameter in layer.parameters():
                parameter.requires_grad_(True)
        extras = self._extras(model, view, rng=rng)
        log = fit(model, view.images.pixels, targets, recipe, rng=rng, adversary=self._adversary(), extras=extras, task=self.card.name)
        trace.steps += len(log)
        for parameter in model.parameters():
            parameter.requires_grad_(True)
            parameter.grad = None
        return Theft(model, view.arch, log={
            "epochs": trace.steps, "head": name, "images": len(view.images), "loss": log[-1].loss if log else None, **facts,
        })  # fmt: skip

    def _few(self, view: AttackerView) -> AttackerView:
        """Return the thief's position with as many of his images as the settings give him."""
        self._require(images=(self.images >= 0, ">= 0"))
        return replace(view, images=view.images.few(self.images)) if self.images else view

    def _recipe(self) -> Recipe:
        """Return how the copy is trained."""
        return Recipe(epochs=self.epochs, lr=self.lr, batch=self.batch, optimizer=self.optimizer, schedule="constant")

    def _prepare(self, model: nn.Module, pixels: Tensor, targets: Tensor, *, rng: torch.Generator, trace: Trace) -> dict[str, Any]:
        """Change the copy before it is trained; return what to log. A theft that prunes, shifts or noises first does it here."""
        del model, pixels, targets, rng, trace
        return {}

    def _adversary(self) -> Adversary | None:
        """Return what replaces every training batch, if anything does."""
        return None

    def _extras(self, model: nn.Module, view: AttackerView, *, rng: torch.Generator) -> Extras | None:
        """Return what is trained beside the thief's images, if anything is."""
        del model, view, rng
        return None


@dataclass(frozen=True, kw_only=True)
class FTLL(FTAL):
    """Fine-tune the last layer only; every other tensor stays byte for byte.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> model = embedded_model().model
    >>> theft = FTLL(epochs=1).steal(AttackerView.of_model(model, load_data("fashion-mini").test.take(slice(64))), rng=generator(0))
    >>> before, after = model.state_dict(), theft.model.state_dict()
    >>> [name for name in before if not bool((before[name] == after[name]).all())]
    ['body.11.weight', 'body.11.bias']
    """

    card: ClassVar[Card] = Card(
        name="ftll", title="fine-tune the last layer", paper=BATTERY, taxonomy=WHITE_BOX, cost="5 epochs on the thief's images"
    )
    only_head: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class RTAL(FTAL):
    """Re-initialise the last layer, then train all layers."""

    card: ClassVar[Card] = Card(
        name="rtal", title="new last layer, then train all layers", paper=BATTERY, taxonomy=WHITE_BOX, cost="5 epochs on the thief's images"
    )
    retrain_head: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class RTLL(FTAL):
    """Re-initialise the last layer and train it alone; every other tensor stays byte for byte.

    Parameters
    ----------
    epochs
        10 as in the paper.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test.take(slice(64)), labels="stolen")
    >>> RTLL(epochs=1).run(view, rng=generator(0)).queries
    64
    """

    card: ClassVar[Card] = Card(
        name="rtll", title="new last layer, trained alone", paper=BATTERY, taxonomy=WHITE_BOX, cost="10 epochs on the thief's images"
    )
    retrain_head: ClassVar[bool] = True
    only_head: ClassVar[bool] = True

    epochs: int = 10
