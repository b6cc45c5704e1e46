"""Knock-off queries (Orekondy, Schiele, Fritz, "Knockoff nets", CVPR 2019): the victim is asked about images of something else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from modelward.attacks.theft.extraction import ExtractProbabilities
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.view import AttackerView
from modelward.imaging.quantise import to_uint8


def abstract_images(count: int, shape: tuple[int, int, int], *, rng: torch.Generator) -> Tensor:
    """Return uint8 images (N, C, H, W) of nothing: smooth random fields of four sizes, each stretched to the full range of grey.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> images = abstract_images(5, (3, 16, 16), rng=generator(0))
    >>> images.shape, int(images.amin()), int(images.amax())
    (torch.Size([5, 3, 16, 16]), 0, 255)
    """
    channels, height, width = shape
    fields = torch.zeros(count, channels, height, width)
    for grains in (2, 4, 8, 16):
        coarse = torch.randn((count, channels, grains, grains), generator=rng)
        strength = torch.rand((count, 1, 1, 1), generator=rng)
        fields += strength * F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    low, high = fields.flatten(1).amin(1).view(-1, 1, 1, 1), fields.flatten(1).amax(1).view(-1, 1, 1, 1)
    return to_uint8((fields - low) / (high - low).clamp_min(1e-6))


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
