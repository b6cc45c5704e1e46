"""Overwriting (battery of Lukas et al., arXiv 2108.04974): the thief marks the copy for himself, by the owner's own scheme."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from modelward.attacks.theft.finetune import BATTERY, WHITE_BOX
from modelward.core.card import Card
from modelward.core.catalogue import find
from modelward.core.errors import UsageError
from modelward.core.families import Theft, TheftMethod
from modelward.core.guard import plain_copy
from modelward.core.images import ImageSet
from modelward.core.ownership import NotTaken, OwnershipMethod
from modelward.core.result import Trace
from modelward.core.view import AttackerView


@dataclass(frozen=True, kw_only=True)
class Overwrite(TheftMethod):
    """Embed a mark of the thief's own, under a secret of his own, with half of the scheme's epochs on his images.

    Parameters
    ----------
    method
        name of an ownership method that marks models.
    fields
        its settings; ``epochs``, where they are not given, are half of the method's own.

    Raises
    ------
    UsageError
        for a method that marks nothing.
    InputError
        for a model that cannot carry such a mark.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test.take(slice(64)), labels="stolen")
    >>> Overwrite(fields={"epochs": 1}).steal(view, rng=generator(0)).log
    {'epochs': 1, 'method': 'uchida'}
    """

    card: ClassVar[Card] = Card(
        name="overwrite", title="a second mark of the same scheme", paper=BATTERY, taxonomy=WHITE_BOX,
        cost="half of the embedding's epochs on the thief's images",
    )  # fmt: skip

    method: str = "uchida"
    fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def inner(self) -> tuple[str, ...]:
        """The method whose mark is embedded."""
        return (self.method,)

    @property
    def effort(self) -> float:
        """The epochs of the embedding."""
        return float(self._scheme().settings().get("epochs", 0))

    def _scheme(self) -> OwnershipMethod:
        """Return the method that marks, with its epochs halved."""
        kind = find(self.method)
        if not (issubclass(kind, OwnershipMethod) and kind.marks):
            message = f"overwrite: {self.method} embeds no mark; zhang and uchida do"
            raise UsageError(message)
        usual = kind.configured(dict(self.fields))
        epochs = usual.settings().get("epochs")
        if epochs is None or "epochs" in self.fields:
            return usual
        return kind.configured({**self.fields, "epochs": max(1, int(epochs) // 2)})

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        scheme = self._scheme()  # a wrong setting costs no query
        copy = plain_copy(view.weights)
        images = labelled(view.images, view.targets())
        try:
            model, _ = scheme.protect(copy, images, rng=rng)
        except NotTaken as error:  # a thief does not care whether his own mark can be claimed
            model = error.model
        for parameter in model.parameters():
            parameter.requires_grad_(True)
            parameter.grad = None
        epochs = int(scheme.settings().get("epochs", 0))
        trace.steps = max(1, epochs)
        return Theft(model, view.arch, log={"epochs": epochs, "method": self.method})


def labelled(images: ImageSet, targets: Tensor) -> ImageSet:
    """Return the images with labels (N,) that somebody else gave them; he may know more classes than have a name."""
    more = max(0, int(targets.max()) + 1 - len(images.classes))
    names = (*images.classes, *(f"output {len(images.classes) + number}" for number in range(more)))
    return ImageSet(images.pixels, targets, names, images.name)
