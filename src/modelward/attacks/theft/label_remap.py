"""A table behind the copy: what it answers is renamed to what it means, learnt from a few labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from modelward.attacks.theft.wrapping import Wrapping, wrapper_card
from modelward.core.card import Card
from modelward.core.guard import predict
from modelward.core.result import Trace
from modelward.core.view import AttackerView, Labels
from modelward.models.assembly import Assembly


@dataclass(frozen=True, kw_only=True)
class LabelRemap(Wrapping):
    """Answer, for each class that the copy names, with the class that most of the thief's images of that answer have.

    A lock that answers wrongly, but always in the same way, is opened by this; an answer that no image got keeps its name. The logits of
    answers that mean the same class are joined by their log-sum-exp.

    Parameters
    ----------
    images
        number of labelled images; 40 is four a class of ten.

    Examples
    --------
    >>> from modelward import AttackerView, ImageSet, embedded_model, generator, load_data
    >>> from modelward.training import accuracy
    >>> model, test = embedded_model().model, load_data("fashion-mini").test
    >>> renamed = ImageSet(test.pixels, (test.labels + 1) % 10, test.classes, "renamed")  # to the thief, the model is wrong by one class
    >>> theft = LabelRemap(images=200).steal(AttackerView.of_model(model, renamed), rng=generator(0))
    >>> accuracy(model, renamed) < 0.1, accuracy(theft.model, renamed) > 0.8
    (True, True)
    """

    card: ClassVar[Card] = wrapper_card(
        "label-remap", "answers renamed by a table", behind=True,
        paper="adaptive attack on locks that answer with a fixed wrong class (AICAS 2022, pp. 316-319)",
        cost="40 labelled images, no training",
    )  # fmt: skip
    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE,)

    images: int = 40

    def __post_init__(self) -> None:
        self._require(images=(self.images >= 1, ">= 1"))

    def assemble(self, parts: Sequence[nn.Module]) -> Assembly:
        """Return the copy with a table that is yet to be learnt: every answer keeps its name."""
        made = Assembly(self, parts)
        made.register_buffer("table", torch.arange(made.classes))
        return made

    def answer(self, assembly: Assembly, x: Tensor) -> Tensor:
        """Return the logits (N, K) under their new names; of classes that no answer means, a value below all others."""
        logits: Tensor = assembly.parts[0](x)
        meant = cast("Tensor", assembly.table).view(-1, 1) == torch.arange(logits.shape[1], device=logits.device)
        lowest = logits.min(1, keepdim=True).values - 1
        joined = logits[:, :, None].masked_fill(~meant, -torch.inf).logsumexp(1)
        return torch.where(meant.any(0), joined, lowest)

    def _equip(self, assembly: Assembly, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> dict[str, Any]:
        del trace
        chosen = torch.randperm(len(view.images), generator=rng)[: self.images]
        answers, labels = predict(view.weights, view.images.pixels[chosen]).argmax(1), view.targets()[chosen]
        table = cast("Tensor", assembly.table)
        votes = torch.zeros(len(table), len(table), dtype=torch.int64).index_put_(
            (answers, labels), torch.ones_like(labels), accumulate=True
        )
        table.copy_(torch.where(votes.any(1), votes.argmax(1), torch.arange(len(table))))
        return {"images": len(chosen), "renamed": int((table != torch.arange(len(table))).sum())}
