"""Run the owner's lock backwards: his algorithm, with the sign of every move reversed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import torch
from torch import Tensor

from modelward.attacks.theft.undoing import bench, card
from modelward.core.card import Card
from modelward.core.errors import UsageError
from modelward.core.families import Theft, TheftMethod
from modelward.core.result import Trace
from modelward.core.view import AttackerView, Labels
from modelward.marking.moves import DOWN, Move, by_layer, by_worth
from modelward.marking.saliency import Saliency, lockable
from modelward.marking.swaps import by_swap


@dataclass(frozen=True, kw_only=True)
class ReverseLock(TheftMethod):
    r"""Move single parameters as AdvParams does, but down the gradient of the loss over the thief's images, and keep the best copy on the way.

    Parameters
    ----------
    rule
        ``"worth"``: the entry whose way to the end of its band promises most, as in the lock that lands at the edge; ``"layer"``: tensor after tensor, the
        entry with the largest gradient moves by ``step``, as in the paper's; ``"swap"``: two entries of a tensor change places, as in the hardened
        lock that lands nowhere new.
    share
        of all parameters that are moved.
    each
        entries that are moved for one gradient, but for ``rule="layer"``.
    step
        share of the tensor's range for one move.
    beta
        share that is cut off both ends of it.
    images
        that many of the thief's images, spread over his set; 0 takes all.
    norms
        measure the statistics of batch normalisation anew first, where there are any.

    Examples
    --------
    >>> from modelward import AttackerView, build, generator, load_data
    >>> net = build("lenet5", classes=10, rng=generator(0))
    >>> theft = ReverseLock(share=2e-4, images=40).steal(AttackerView.of_model(net, load_data("fashion-mini").test), rng=generator(0))
    >>> theft.log["moved"], theft.log["loss_after"] <= theft.log["loss_before"]
    (12, True)
    """

    card: ClassVar[Card] = card(
        "reverse-lock", "the owner's lock with the sign reversed", "one forward and backward pass of the thief's images for each gradient"
    )
    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE,)

    rule: str = "worth"
    share: float = 0.002
    each: int = 1
    step: float = 0.2
    beta: float = 0.1
    images: int = 400
    norms: bool = True

    def __post_init__(self) -> None:
        if self.rule not in {"worth", "layer", "swap"}:
            message = f"rule is 'worth', 'layer' or 'swap', not {self.rule!r}"
            raise UsageError(message)
        self._require(
            share=(0 < self.share <= 1, "in (0, 1]"), each=(self.each >= 1, ">= 1"), step=(0 < self.step <= 1, "in (0, 1]"),
            beta=(0 <= self.beta < 0.5, "in [0, 0.5)"), images=(self.images >= 0, ">= 0"),
        )  # fmt: skip

    @property
    def effort(self) -> float:
        """What it costs in epochs, of a network of some 50,000 parameters."""
        return 50_000 * self.share / self.each * 4 / 3 * (min(1.0, self.images / 3000) if self.images else 1.0)

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        del rng
        view.targets()  # labels are what it needs
        place = bench(view, images=self.images, norms=self.norms)
        tensors = lockable(place.model, statistics=False)
        first = least = place.saliency.loss()
        best, moved = {name: tensor.detach().clone() for name, tensor in tensors.items()}, 0
        for moved, _ in enumerate(self._moves(tensors, place.saliency), 1):  # how many there were
            if moved % self.each == 0 and (loss := place.saliency.loss()) < least:
                least, best = loss, {name: tensor.detach().clone() for name, tensor in tensors.items()}
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(best[name])
        trace.steps = 1
        return Theft(place.model, view.arch, log={"epochs": 0, "moved": moved, "loss_before": first, "loss_after": least})

    def _moves(self, tensors: Mapping[str, Tensor], saliency: Saliency) -> Iterator[Move]:
        """Yield as many moves as the settings ask for."""
        budget = max(1, int(self.share * sum(tensor.numel() for tensor in tensors.values())))
        if self.rule == "worth":
            return islice(by_worth(tensors, saliency, beta=self.beta, each=self.each, way=DOWN), budget)
        if self.rule == "swap":
            return islice(by_swap(tensors, saliency, each=self.each, way=DOWN), budget - budget % 2)
        names = [name for name, tensor in tensors.items() if tensor.ndim >= 2]
        count = -(-budget // len(names))
        return islice(by_layer(tensors, saliency, names=names, count=count, step=self.step, beta=self.beta, way=DOWN), budget)
