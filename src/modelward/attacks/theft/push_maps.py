"""A thief who knows that relevance maps are compared: fine-tune, and push the maps away from the victim's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.attacks.theft.finetune import FTAL, WHITE_BOX
from modelward.core.card import Card
from modelward.core.errors import InputError
from modelward.core.families import Theft
from modelward.core.guard import predict, require_finite
from modelward.core.result import Trace
from modelward.core.view import AttackerView
from modelward.imaging.quantise import to_float
from modelward.models.relevance import Relevance, named
from modelward.training.extras import Extras

TRIES = 4


@dataclass(frozen=True, kw_only=True)
class PushMaps(FTAL):
    r"""Fine-tune all layers on :math:`CE + weight \cdot \overline{\cos(S_{copy}(x), S_{victim}(x))}`, S relevance maps of the thief's own images.

    The owner's probes are not needed: maps that differ on the thief's images differ on others as well. Maps have denominators near 0, so that
    the training may diverge: it is tried again at a third of the rate, and the flags say so.

    Parameters
    ----------
    weight
        of the mean cosine; with 0 it is `FTAL`.
    rule
        of relevance; the thief may guess another than the owner's.
    probes
        that many of the thief's images, the first ones, have their maps pushed.
    each
        so many of them a step.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test.take(slice(64)))
    >>> PushMaps(epochs=1, probes=16, each=8).steal(view, rng=generator(0)).log["epochs"]
    1
    """

    card: ClassVar[Card] = Card(
        name="push-maps",
        title="fine-tune away from the victim's relevance maps",
        paper="adaptive attack on InFIP (arXiv 2210.07481)",
        taxonomy=WHITE_BOX,
        cost="5 epochs on the thief's images, each about three times as dear",
    )

    weight: float = 1.0
    rule: str = "dtd"
    probes: int = 256
    each: int = 32

    def __post_init__(self) -> None:
        named(self.rule)
        self._require(weight=(self.weight >= 0, ">= 0"), probes=(self.probes >= 1, ">= 1"), each=(self.each >= 1, ">= 1"))

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        for attempt in range(TRIES):
            gentler = replace(self, lr=self.lr / 3**attempt)
            try:
                theft = FTAL._steal(gentler, view, rng=rng, trace=trace)  # noqa: SLF001  # the same verb at another rate
                require_finite(theft.model)
            except InputError:
                if attempt == TRIES - 1:
                    raise
                trace.flag(f"diverged at a rate of {gentler.lr:.3g}, tried again at a third of it")
            else:
                return theft
        raise AssertionError  # the last attempt returns or raises

    def _extras(self, model: nn.Module, view: AttackerView, *, rng: torch.Generator) -> Extras | None:
        if not self.weight:
            return None
        pixels = view.images.pixels[: self.probes]
        classes = predict(view.weights, pixels).argmax(1)
        x, own = to_float(pixels), _flat(Relevance(view.weights), to_float(pixels), classes, self.rule)
        found = Relevance(model)

        def penalty(_: nn.Module) -> Tensor:
            chosen = torch.randperm(len(x), generator=rng)[: self.each]
            maps = _flat(found, x[chosen], classes[chosen], self.rule, differentiable=True)
            return self.weight * (maps * own[chosen]).sum(1).mean()

        return Extras(penalty=penalty)


def _flat(found: Relevance, x: Tensor, classes: Tensor, rule: str, *, differentiable: bool = False) -> Tensor:
    """Return maps (N, H W) of Euclidean length 1."""
    maps = found.maps(x, classes, rule=rule, start="one", differentiable=differentiable)
    return F.normalize(maps.sum(1).flatten(1), dim=1)
