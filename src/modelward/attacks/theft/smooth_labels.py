"""Fine-tuning on smoothed labels (Szegedy et al., "Rethinking the Inception architecture", CVPR 2016; battery of Lukas et al.)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from modelward.attacks.theft.finetune import BATTERY, FTAL, WHITE_BOX
from modelward.core.card import Card
from modelward.training import Recipe


@dataclass(frozen=True, kw_only=True)
class SmoothLabels(FTAL):
    """Fine-tune all layers on labels that give ``smoothing`` of their weight to all classes alike.

    The target of class y is (1 - s) e_y + s / K: a mark that needs large margins loses them.

    Parameters
    ----------
    smoothing
        s in [0, 1); the paper's .3.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test.take(slice(64)), labels="stolen")
    >>> SmoothLabels(epochs=1).steal(view, rng=generator(0)).log["epochs"]
    1
    """

    card: ClassVar[Card] = Card(
        name="ft-smooth-labels",
        title="fine-tune on smoothed labels",
        paper=BATTERY,
        taxonomy=WHITE_BOX,
        cost="5 epochs on the thief's images",
    )

    smoothing: float = 0.3

    def _recipe(self) -> Recipe:
        return Recipe(
            epochs=self.epochs, lr=self.lr, batch=self.batch, optimizer=self.optimizer, schedule="constant", label_smoothing=self.smoothing
        )
