"""Extraction: a new model trained on the victim's answers (Tramer et al. 2016; Hinton et al. 2015 for soft answers)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.errors import UsageError
from modelward.core.families import Theft, TheftMethod
from modelward.core.result import Trace
from modelward.core.suspect import Access
from modelward.core.view import AttackerView, Labels
from modelward.models.net import Net
from modelward.models.nets import build
from modelward.models.parts import fresh_like
from modelward.training import Recipe, fit
from modelward.training.loop import Adversary


@dataclass(frozen=True, kw_only=True)
class ExtractLabels(TheftMethod):
    """Train a new model on the labels that the victim answers with.

    Parameters
    ----------
    epochs, lr, batch
        SGD, momentum .9, one-cycle.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").test.take(slice(64))
    >>> view = AttackerView.of_model(embedded_model().model, images, labels="stolen", access="label", arch="mlp:width=8")
    >>> result = ExtractLabels(epochs=1).run(view, rng=generator(0))
    >>> result.value.arch, result.queries
    ('mlp:width=8', 64)
    """

    card: ClassVar[Card] = Card(
        name="extract-l",
        title="extraction by labels",
        paper="Tramer, Zhang, Juels, Reiter, Ristenpart: Stealing machine learning models via prediction APIs, USENIX Security 2016, arXiv 1609.02943",
        taxonomy=Taxonomy(Scenario.BLACK_BOX_LABEL, Mechanism.QUERY),
        cost="one query an image and 15 epochs on the thief's images",
    )
    needs: ClassVar[Access] = Access.LABEL
    labels: ClassVar[tuple[Labels, ...]] = (Labels.STOLEN,)
    soft: ClassVar[bool] = False

    epochs: int = 15
    lr: float = 0.05
    batch: int = 64
    temperature: float = 1.0

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        model = self._blank(view, rng=rng)  # a refusal costs no query
        recipe = self._recipe()
        before = view.victim.queries
        pixels, targets = self._asked(view, rng=rng)
        queries = view.victim.queries - before
        model = self._wide_enough(model, targets, rng=rng)
        log = fit(model, pixels, targets, recipe, rng=rng, adversary=self._adversary(), task=self.card.name)
        trace.steps = len(log)
        arch = model.arch if isinstance(model, Net) else view.arch
        return Theft(model, arch, log={"epochs": self.epochs, "queries": queries, "loss": log[-1].loss if log else None})

    @staticmethod
    def _wide_enough(model: nn.Module, targets: Tensor, *, rng: torch.Generator) -> nn.Module:
        """Return a network with an output for every class that the victim answered with: it may have more than the thief's images."""
        outputs = targets.shape[1] if targets.ndim == 2 else int(targets.max()) + 1
        if not isinstance(model, Net) or outputs <= model.classes:
            return model
        return build(model.arch, classes=outputs, channels=model.channels, size=model.size, rng=rng)

    def _recipe(self) -> Recipe:
        """Return how the new network is trained."""
        return Recipe(epochs=self.epochs, lr=self.lr, batch=self.batch, temperature=self.temperature if self.soft else 1.0)

    def _asked(self, view: AttackerView, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the uint8 images to train on, with the victim's answers as labels (N,) or probabilities (N, K)."""
        del rng
        return view.images.pixels, self._softened(view.targets(soft=self.soft))

    def _softened(self, targets: Tensor) -> Tensor:
        """Return probabilities at the temperature of this method; labels as they are."""
        if not self.soft or self.temperature == 1.0:
            return targets
        return targets.clamp_min(1e-12).log().div(self.temperature).softmax(1)

    def _adversary(self) -> Adversary | None:
        """Return what replaces every training batch, if anything does."""
        return None

    def _blank(self, view: AttackerView, *, rng: torch.Generator) -> nn.Module:
        """Return the untrained network: of the thief's architecture, else of the victim's."""
        if view.arch is not None:
            channels, height, width = view.images.shape
            return build(view.arch, classes=len(view.images.classes), channels=channels, size=(height, width), rng=rng)
        if view.victim.access is not Access.WEIGHTS:
            raise UsageError(
                "a thief who only asks queries does not know the architecture; set AttackerView(arch=...), for example 'resnet8'"
            )
        return fresh_like(view.weights, rng=rng)


@dataclass(frozen=True, kw_only=True)
class ExtractProbabilities(ExtractLabels):
    """Train a new model on the probabilities that the victim answers with, at ``temperature`` if it is not 1."""

    card: ClassVar[Card] = Card(
        name="extract-p",
        title="extraction by probabilities",
        paper="Hinton, Vinyals, Dean: Distilling the knowledge in a neural network, 2015, arXiv 1503.02531; Tramer et al. 2016, arXiv 1609.02943",
        taxonomy=Taxonomy(Scenario.BLACK_BOX_PROBS, Mechanism.QUERY),
        cost="one query an image and 15 epochs on the thief's images",
    )
    needs: ClassVar[Access] = Access.PROBABILITIES
    soft: ClassVar[bool] = True
