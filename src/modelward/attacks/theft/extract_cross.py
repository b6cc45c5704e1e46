"""Extraction into another architecture than the victim's (battery of Lukas et al., arXiv 2108.04974: cross-architecture retraining)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from modelward.attacks.theft.extraction import ExtractLabels
from modelward.attacks.theft.finetune import BATTERY
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.errors import UsageError
from modelward.core.suspect import Access
from modelward.core.view import AttackerView
from modelward.models.net import Net
from modelward.models.nets import describe

SECOND = "cnn"


@dataclass(frozen=True, kw_only=True)
class ExtractCross(ExtractLabels):
    """Train a network of another family on the victim's labels: nothing of the victim's parameters or structure is left.

    Parameters
    ----------
    other
        the architecture, unless ``AttackerView.arch`` names one. A thief who sees that the victim is of that family takes a ``cnn``.

    Raises
    ------
    UsageError
        when ``AttackerView.arch`` is of the victim's own family, as far as the thief can see.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").test.take(slice(64))
    >>> view = AttackerView.of_model(embedded_model().model, images, labels="stolen", access="label")
    >>> ExtractCross(epochs=1, other="mlp:width=8").steal(view, rng=generator(0)).arch
    'mlp:width=8'
    """

    card: ClassVar[Card] = Card(
        name="extract-cross", title="extraction by labels into another architecture", paper=BATTERY,
        taxonomy=Taxonomy(Scenario.BLACK_BOX_LABEL, Mechanism.QUERY), cost="one query an image and 15 epochs on the thief's images",
    )  # fmt: skip

    other: str = "resnet8"

    def __post_init__(self) -> None:
        describe(self.other)

    def _blank(self, view: AttackerView, *, rng: torch.Generator) -> nn.Module:
        seen = view.victim.access is Access.WEIGHTS and isinstance(view.weights, Net)
        own = describe(view.weights.arch)[0] if seen and isinstance(view.weights, Net) else None
        arch = view.arch or self.other
        if own is not None and describe(arch)[0] == own:
            if view.arch is not None:
                message = (
                    f"the victim is a {own} already; extract-cross wants another architecture than {view.arch} in AttackerView(arch=...)"
                )
                raise UsageError(message)
            arch = SECOND if own != SECOND else "resnet8"
        return super()._blank(replace(view, arch=arch), rng=rng)
