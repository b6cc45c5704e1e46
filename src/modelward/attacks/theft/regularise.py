"""Strong weight decay, then fine-tuning (Shafieinejad et al., "On the robustness of backdoor-based watermarking", 2021; battery of Lukas et al.)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.theft.finetune import BATTERY, FTAL, WHITE_BOX
from modelward.core.card import Card
from modelward.core.result import Trace
from modelward.training import fit


@dataclass(frozen=True, kw_only=True)
class Regularise(FTAL):
    """Train for ``phase`` epochs under a weight decay so strong that what the task does not hold up fades, then fine-tune.

    Parameters
    ----------
    decay, phase
        L2 factor and length of the first phase; the paper's are .1 for 5 epochs or .25 for 3, here .1 for 2.
    epochs
        of fine-tuning; the paper's is 50 at most.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> model = embedded_model().model
    >>> view = AttackerView.of_model(model, load_data("fashion-mini").test.take(slice(64)))
    >>> theft = Regularise(phase=1, epochs=1, decay=1.0).steal(view, rng=generator(0))
    >>> bool(theft.model.body[0].weight.norm() < model.body[0].weight.norm())
    True
    """

    card: ClassVar[Card] = Card(
        name="ft-regularise", title="strong weight decay, then fine-tune", paper=BATTERY, taxonomy=WHITE_BOX,
        cost="7 epochs on the thief's images",
    )  # fmt: skip

    decay: float = 0.1
    phase: int = 2

    def __post_init__(self) -> None:
        self._require(decay=(self.decay >= 0, ">= 0"), phase=(self.phase >= 0, ">= 0"))

    @property
    def effort(self) -> float:
        """Both phases."""
        return float(self.phase + self.epochs)

    def _prepare(self, model: nn.Module, pixels: Tensor, targets: Tensor, *, rng: torch.Generator, trace: Trace) -> dict[str, Any]:
        recipe = replace(self._recipe(), epochs=self.phase, weight_decay=self.decay)
        log = fit(model, pixels, targets, recipe, rng=rng, task=self.card.name)
        trace.steps += len(log)
        return {"phase": len(log)}
