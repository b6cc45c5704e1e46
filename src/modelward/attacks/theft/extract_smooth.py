"""Smooth retraining (battery of Lukas et al., arXiv 2108.04974): labels are the average of the answers to changed copies of each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from modelward.attacks.theft.extraction import ExtractLabels
from modelward.attacks.theft.finetune import BATTERY
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.view import AttackerView
from modelward.imaging.augment import random_shift
from modelward.imaging.corruptions import gaussian_noise


@dataclass(frozen=True, kw_only=True)
class ExtractSmooth(ExtractLabels):
    """Ask about ``copies`` changed versions of every image, train a new model on the share of each label.

    A key image is answered by its mark; its neighbours, shifted and noised, are answered by the task: the average forgets the mark.

    Parameters
    ----------
    copies
        queries an image.
    shift
        pixels of random translation.
    noise
        standard deviation of Gaussian noise, pixels in [0, 1].

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").test.take(slice(64))
    >>> view = AttackerView.of_model(embedded_model().model, images, labels="stolen", access="label", arch="mlp:width=8")
    >>> ExtractSmooth(epochs=1, copies=3).run(view, rng=generator(0)).queries
    192
    """

    card: ClassVar[Card] = Card(
        name="extract-smooth", title="extraction by labels averaged over changed queries", paper=BATTERY,
        taxonomy=Taxonomy(Scenario.BLACK_BOX_LABEL, Mechanism.QUERY), cost="5 queries an image and 15 epochs on the thief's images",
    )  # fmt: skip

    copies: int = 5
    shift: int = 1
    noise: float = 0.05

    def __post_init__(self) -> None:
        self._require(copies=(self.copies >= 1, ">= 1"), shift=(self.shift >= 0, ">= 0"), noise=(self.noise >= 0, ">= 0"))

    def _asked(self, view: AttackerView, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        x, classes = view.images.batch(slice(None)), len(view.images.classes)
        total = torch.zeros(len(x), classes)
        for _ in range(self.copies):
            labels = view.ask(gaussian_noise(random_shift(x, self.shift, rng=rng), self.noise, rng=rng))
            total += F.one_hot(labels, max(classes, int(labels.max()) + 1))[:, :classes].float()
        return view.images.pixels, total / self.copies
