"""What the thefts share that leave the weights alone and stand in front of the copy, or behind it, when it is asked."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.theft.finetune import BATTERY
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.families import Theft, TheftMethod
from modelward.core.guard import plain_copy
from modelward.core.result import Trace
from modelward.core.rng import generator
from modelward.core.view import AttackerView, Labels
from modelward.models.assembly import Assembly

IN_FRONT = Taxonomy(Scenario.WHITE_BOX, Mechanism.INPUT_PREPROCESS)
BEHIND = Taxonomy(Scenario.WHITE_BOX, Mechanism.OUTPUT_CONTROL)


def wrapper_card(
    name: str, title: str, *, behind: bool = False, paper: str = BATTERY, cost: str = "none: it works when the copy is asked"
) -> Card:
    """Return the card of a theft that changes no weight."""
    limits = ("the weights inside are the victim's: whoever sees them sees the theft",)
    return Card(name=name, title=title, paper=paper, taxonomy=BEHIND if behind else IN_FRONT, limits=limits, cost=cost)


@dataclass(frozen=True, kw_only=True)
class Wrapping(TheftMethod):
    """Base: put an untouched copy into an `Assembly`; a concrete wrapper says what goes in (`_before`) or how it answers (`answer`)."""

    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE, Labels.STOLEN, Labels.NONE)

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        assembly = self.assemble([plain_copy(view.weights)])
        trace.steps = 1
        facts = self._equip(assembly, view, rng=rng, trace=trace)
        return Theft(assembly, view.arch, log={"epochs": 0, **facts})

    def assemble(self, parts: Sequence[nn.Module]) -> Assembly:
        """Return the assembly of one copy; what is fitted in it is filled in later."""
        return Assembly(self, parts)

    def answer(self, assembly: Assembly, x: Tensor) -> Tensor:
        """Return the logits (N, K) for images (N, C, H, W) in [0, 1]."""
        logits: Tensor = assembly.parts[0](self._before(assembly, x))
        return logits

    def _before(self, assembly: Assembly, x: Tensor) -> Tensor:
        """Return the images that the copy is shown instead of ``x``."""
        del assembly
        return x

    def _equip(self, assembly: Assembly, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> dict[str, Any]:
        """Fit what the wrapper needs on the thief's images; return what to log."""
        del assembly, view, rng, trace
        return {}


@dataclass(frozen=True, kw_only=True)
class ImageWrapping(Wrapping):
    """Base of the wrappers that change every image on its own and need nothing fitted: a concrete one writes `change`."""

    def _before(self, assembly: Assembly, x: Tensor) -> Tensor:
        del assembly
        return self.change(x)

    @abstractmethod
    def change(self, x: Tensor) -> Tensor:
        """Return the changed images (N, C, H, W) in [0, 1]."""


def drawn(x: Tensor, seed: int, shape: Sequence[int], *, normal: bool = True) -> Tensor:
    """Return random numbers (N, *shape) that depend on ``seed`` and each image alone: the same question always gets the same draw.

    Normal with mean 0 and standard deviation 1, or uniform in [0, 1).

    Examples
    --------
    >>> x = torch.rand(3, 1, 4, 4, generator=torch.Generator())
    >>> bool((drawn(x, 0, [2])[1] == drawn(x[1:2], 0, [2])[0]).all()), bool((drawn(x, 0, [2]) == drawn(x, 1, [2])).any())
    (True, False)
    """
    made = []
    for image in x.detach().cpu().float().contiguous().numpy():
        digest = hashlib.blake2b(image.data, digest_size=8, key=seed.to_bytes(8, "little", signed=True)).digest()
        rng = generator(int.from_bytes(digest, "little") >> 1)
        made.append(torch.randn(tuple(shape), generator=rng) if normal else torch.rand(tuple(shape), generator=rng))
    return torch.stack(made).to(x.device) if made else torch.zeros(0, *shape)
