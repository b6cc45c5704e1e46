"""Thefts that change every weight and no answer: neurons in another order, neurons at another scale."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch

from modelward.attacks.theft.finetune import BATTERY, WHITE_BOX
from modelward.core.card import Card
from modelward.core.errors import InputError
from modelward.core.families import Theft, TheftMethod
from modelward.core.guard import plain_copy, predict
from modelward.core.result import Trace
from modelward.core.view import AttackerView, Labels
from modelward.models.channels import Group, groups
from modelward.models.renaming import by_channel, reorder, rescale

__all__ = ["CHECKED", "PermuteNeurons", "Reparameterise", "RescaleNeurons", "by_channel"]

CHECKED = 64


@dataclass(frozen=True, kw_only=True)
class Reparameterise(TheftMethod):
    """Base: change the copy without changing its function, and refuse where that fails on the thief's own images."""

    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE, Labels.STOLEN, Labels.NONE)
    scaling: ClassVar[bool] = False
    tolerance: ClassVar[float] = 1e-4

    @torch.no_grad()
    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        model = plain_copy(view.weights)
        pixels = view.images.pixels[:CHECKED]
        before = predict(model, pixels)
        found = groups(model, scaling=self.scaling)
        for group in found:
            self._change(group, rng=rng)
        gap = float((predict(model, pixels) - before).abs().max() / before.abs().max().clamp_min(1e-12))
        if not gap <= self.tolerance:
            message = f"{self.card.name} would change the answers of this network (relative difference {gap:.2g}); its layers are not what they seem"
            raise InputError(message)
        trace.steps = 1
        return Theft(model, view.arch, log={"epochs": 0, "groups": len(found), "neurons": sum(group.size for group in found), "gap": gap})

    @abstractmethod
    def _change(self, group: Group, *, rng: torch.Generator) -> None:
        """Change the weights around one group of neurons in place."""


@dataclass(frozen=True, kw_only=True)
class PermuteNeurons(Reparameterise):
    """Put the neurons of every hidden layer in a random order, residual streams as one.

    Fully connected, convolutional, depthwise and residual networks; of networks with layers that are not understood, the parts that are.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> model, images = embedded_model().model, load_data("fashion-mini").test.take(slice(64))
    >>> theft = PermuteNeurons().steal(AttackerView.of_model(model, images, labels="none"), rng=generator(0))
    >>> theft.log["neurons"], bool((theft.model.body[0].weight == model.body[0].weight).all())
    (226, False)
    """

    card: ClassVar[Card] = Card(
        name="permute", title="neurons in another order, same function", paper=BATTERY, taxonomy=WHITE_BOX, cost="milliseconds"
    )

    def _change(self, group: Group, *, rng: torch.Generator) -> None:
        reorder(group, torch.randperm(group.size, generator=rng))


@dataclass(frozen=True, kw_only=True)
class RescaleNeurons(Reparameterise):
    """Multiply the weights into every hidden neuron by a and the weights out of it by 1 / a, for a random power of two a.

    ReLU and pooling let a pass; batch normalisation takes it up in its statistics: mean * a, a^2 (variance + eps) - eps.

    Parameters
    ----------
    octaves
        a lies in [2^-octaves, 2^octaves]; powers of two lose no bit.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> from modelward.core.guard import predict
    >>> model, images = embedded_model().model, load_data("fashion-mini").test.take(slice(64))
    >>> theft = RescaleNeurons().steal(AttackerView.of_model(model, images, labels="none"), rng=generator(0))
    >>> float((predict(theft.model, images.pixels) - predict(model, images.pixels)).abs().max()) < 1e-5
    True
    """

    card: ClassVar[Card] = Card(
        name="rescale", title="neurons at another scale, same function", paper=BATTERY, taxonomy=WHITE_BOX, cost="milliseconds"
    )
    scaling: ClassVar[bool] = True

    octaves: int = 2

    def __post_init__(self) -> None:
        self._require(octaves=(1 <= self.octaves <= 8, "in 1..8"))

    def _change(self, group: Group, *, rng: torch.Generator) -> None:
        powers = torch.randint(-self.octaves, self.octaves + 1, (group.size,), generator=rng)
        rescale(group, torch.exp2(powers.float()))
