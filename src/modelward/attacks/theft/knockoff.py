"""Knock-off queries (Orekondy, Schiele, Fritz, "Knockoff nets", CVPR 2019): the victim is asked about images of something else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from modelward.attacks.theft.extraction import ExtractProbabilities
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.view import AttackerView
from modelward.imaging.abstract import abstract_images


@dataclass(frozen=True, kw_only=True)
class KnockOff(ExtractProbabilities):
    """Train a new model on the victim's probabilities for images of something else; what they show is of no account.

    The images are ``AttackerView.unrelated``, else those that the thief has.

    Parameters
    ----------
    epochs
        4, as in the battery of Lukas et al.
    abstract
        with N > 0, N images of random fields instead: a thief who has no images at all.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").test.take(slice(64))
    >>> view = AttackerView.of_model(embedded_model().model, images, labels="stolen", access="probabilities", arch="mlp:width=8")
    >>> KnockOff(abstract=100, epochs=1).run(view, rng=generator(0)).queries
    100
    """

    card: ClassVar[Card] = Card(
        name="knockoff", title="extraction with unrelated images",
        paper="Orekondy, Schiele, Fritz: Knockoff nets: stealing functionality of black-box models, CVPR 2019, arXiv 1812.02766",
        taxonomy=Taxonomy(Scenario.BLACK_BOX_PROBS, Mechanism.QUERY), cost="one query an image and 4 epochs",
    )  # fmt: skip

    epochs: int = 4
    abstract: int = 0

    def __post_init__(self) -> None:
        self._require(abstract=(self.abstract >= 0, ">= 0"))

    def _asked(self, view: AttackerView, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        if self.abstract:
            pixels = abstract_images(self.abstract, view.images.shape, rng=rng)
        else:
            pixels = (view.images if view.unrelated is None else view.unrelated).pixels
        return pixels, self._softened(view.ask(pixels.to(torch.float32).div(255), soft=True))
