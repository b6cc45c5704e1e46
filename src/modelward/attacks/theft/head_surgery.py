"""Surgery on a head that has more outputs than classes: drop them, merge them into a class, or learn a new reading of all outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.families import Theft, TheftMethod
from modelward.core.guard import plain_copy, predict
from modelward.core.result import Trace
from modelward.core.view import AttackerView, Labels
from modelward.marking.heads import drop_outputs, find_head, mix_outputs
from modelward.models.assembly import Assembly

WAYS, NUMBERS = ("drop", "merge", "remap"), ("kept", "into")
NEAR = 1e-3


@dataclass(frozen=True, kw_only=True)
class HeadSurgery(TheftMethod):
    r"""Leave a copy with as many outputs as the thief's images have classes; a mark that lives in further outputs has lived there.

    Parameters
    ----------
    how
        ``"drop"``: delete the rows of the further outputs. ``"merge"``: give their probability to class ``into``, so that key images get a label
        that tells nothing: :math:`z_c' = \log(e^{z_c} + \sum_{k \ge K} e^{z_k})`. ``"remap"``: learn, from few labelled images, a linear map of
        all outputs to the K classes, and fold it into the head; without labels it learns from the copy's own.
    into
        class that the further outputs are merged into; ``None`` takes the one whose row of weights is the most like theirs.
    images, steps, lr
        of the remap: number of labelled images, 40; steps and rate of Adam on all of them at once.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> from modelward.marking.heads import widen_head
    >>> marked, images = widen_head(embedded_model().model, 2, rng=generator(0)), load_data("fashion-mini").test.take(slice(8))
    >>> view = AttackerView.of_model(marked, images, labels="none")
    >>> HeadSurgery().steal(view, rng=generator(0)).log["dropped"], HeadSurgery().steal(view, rng=generator(0)).model(images.batch(slice(3))).shape
    (2, torch.Size([3, 10]))
    """

    card: ClassVar[Card] = Card(
        name="head-surgery",
        title="further outputs dropped, merged into a class, or mapped to the classes anew",
        paper="Sun, Xue, Wang, Liu: Protecting the intellectual properties of deep neural networks with an additional class and steganographic "
        "images, 2021, arXiv 2104.09203 (what its mark does not withstand)",
        taxonomy=Taxonomy(Scenario.WHITE_BOX, Mechanism.MODEL_MODIFICATION),
        limits=("a network with as many outputs as classes is left with the same answers by 'drop' and 'merge'",),
        cost="milliseconds; a remap takes seconds and 40 labels",
    )
    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE, Labels.STOLEN, Labels.NONE)

    how: str = "drop"
    into: int | None = None
    images: int = 40
    steps: int = 200
    lr: float = 0.01

    def __post_init__(self) -> None:
        self._require(
            how=(self.how in WAYS, ", ".join(WAYS)), into=(self.into is None or self.into >= 0, ">= 0"), images=(self.images >= 1, ">= 1"),
            steps=(self.steps >= 1, ">= 1"), lr=(self.lr > 0, "> 0"),
        )  # fmt: skip

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        classes = len(view.images.classes)
        outputs = len(find_head(view.weights)[1].weight)
        kept, facts = min(classes, outputs), {"epochs": 0, "how": self.how, "dropped": max(0, outputs - classes)}
        trace.steps = 1
        if self.how == "drop":
            return Theft(drop_outputs(view.weights, range(kept)), view.arch, log=facts)
        if self.how == "merge":
            into = self._nearest(view.weights, kept) if self.into is None else min(self.into, kept - 1)
            made = self.assemble([plain_copy(view.weights)])
            for name, value in zip(NUMBERS, (kept, into), strict=True):
                cast("Tensor", getattr(made, name)).fill_(value)
            return Theft(made, view.arch, log={**facts, "into": into})
        chosen = torch.randperm(len(view.images), generator=rng)[: self.images].sort().values
        return Theft(self._remapped(view, chosen, kept), view.arch, log={**facts, "images": len(chosen)})

    def assemble(self, parts: Sequence[nn.Module]) -> Assembly:
        """Return the copy with two numbers that are to be set: how many outputs are kept, and which takes the rest."""
        return Assembly(self, parts, numbers=NUMBERS)

    def answer(self, assembly: Assembly, x: Tensor) -> Tensor:
        """Return the copy's logits (N, K) with the further outputs merged into one of them."""
        kept, into = (int(cast("Tensor", getattr(assembly, name))) for name in NUMBERS)
        logits: Tensor = assembly.parts[0](x)
        merged = torch.cat([logits[:, into : into + 1], logits[:, kept:]], 1).logsumexp(1)
        return logits[:, :kept].index_copy(1, torch.tensor([into], device=x.device), merged[:, None])

    @staticmethod
    def _nearest(model: nn.Module, kept: int) -> int:
        """Return the class whose row of weights has the largest mean cosine with those of the further outputs; 0 where there are none."""
        rows = F.normalize(find_head(model)[1].weight.detach().flatten(1), dim=1)
        return int((rows[:kept] @ rows[kept:].T).sum(1).argmax())

    def _remapped(self, view: AttackerView, chosen: Tensor, kept: int) -> nn.Module:
        """Return a copy whose head reads all outputs anew; begins with those that are kept, and stays near them."""
        logits = predict(view.weights, view.images.pixels[chosen])
        labels = logits[:, :kept].argmax(1) if view.labels is Labels.NONE else self._asked(view, chosen)
        known = labels < kept  # a stolen label may be one of the further outputs
        logits, labels = logits[known], labels[known]
        start = torch.eye(kept, logits.shape[1])
        mixing, shift = start.clone().requires_grad_(), torch.zeros(kept, requires_grad=True)
        optimizer = torch.optim.Adam([mixing, shift], lr=self.lr)
        with torch.enable_grad():
            for _ in range(self.steps if len(logits) else 0):
                optimizer.zero_grad()
                loss = F.cross_entropy(logits @ mixing.T + shift, labels) + NEAR * (mixing - start).square().sum()
                loss.backward()
                optimizer.step()
        return mix_outputs(view.weights, mixing.detach(), shift.detach())

    @staticmethod
    def _asked(view: AttackerView, chosen: Tensor) -> Tensor:
        """Return the labels (n,) that the thief has for some of his images, or asks the victim for."""
        return view.images.labels[chosen] if view.labels is Labels.TRUE else view.ask(view.images.batch(chosen))
