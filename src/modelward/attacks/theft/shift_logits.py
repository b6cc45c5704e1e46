"""A change of the last layer that no answer shows: every logit of an image moves by the same amount."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from modelward.attacks.theft.finetune import WHITE_BOX
from modelward.core.card import Card
from modelward.core.families import Theft, TheftMethod
from modelward.core.guard import plain_copy
from modelward.core.result import Trace
from modelward.core.view import AttackerView, Labels
from modelward.models.parts import head


@dataclass(frozen=True, kw_only=True)
class ShiftLogits(TheftMethod):
    """Add one random vector to the weights of every class, and one number to every bias: probabilities and labels stay.

    What explains a logit by the sign of its weights then explains something else.

    Parameters
    ----------
    scale
        standard deviation of the vector, in units of that of the layer's own weights.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> from modelward.core.guard import predict
    >>> model, images = embedded_model().model, load_data("fashion-mini").test.take(slice(64))
    >>> theft = ShiftLogits().steal(AttackerView.of_model(model, images, labels="none"), rng=generator(0))
    >>> before, after = (predict(net, images.pixels) for net in (model, theft.model))
    >>> bool(torch.allclose(before.softmax(1), after.softmax(1), atol=1e-5)), bool(torch.allclose(before, after, atol=1))
    (True, False)
    """

    card: ClassVar[Card] = Card(
        name="shift-logits",
        title="all logits moved alike, same probabilities",
        paper="adaptive attack on InFIP (arXiv 2210.07481)",
        taxonomy=WHITE_BOX,
        cost="milliseconds",
    )
    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE, Labels.STOLEN, Labels.NONE)

    scale: float = 3.0

    def __post_init__(self) -> None:
        self._require(scale=(self.scale > 0, "> 0"))

    @torch.no_grad()
    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        model = plain_copy(view.weights)
        _, layer = head(model)
        shift = torch.randn(layer.weight.shape[1:], generator=rng) * layer.weight.std() * self.scale
        layer.weight.add_(shift)
        if layer.bias is not None:
            layer.bias.sub_(layer.bias.abs().max() * self.scale)
        trace.steps = 1
        return Theft(model, view.arch, log={"epochs": 0, "shift": float(shift.norm())})
