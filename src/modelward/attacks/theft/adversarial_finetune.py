"""Fine-tuning on adversarial examples (Madry et al., ICLR 2018; as a removal attack in Lukas et al., arXiv 2108.04974)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.evasion.pgd import PGD
from modelward.attacks.theft.finetune import BATTERY, FTAL, WHITE_BOX
from modelward.core.card import Card
from modelward.core.errors import UsageError
from modelward.training.loop import Adversary


def pgd_adversary(eps: float, step: float, steps: int) -> Adversary:
    """Return an adversary for `modelward.fit`: PGD in Linf against the model as it is, on the labels of the batch.

    Raises
    ------
    UsageError
        when the attack cannot be: a negative radius, step or number of steps.
    """
    attack = PGD(eps=eps, step=step, steps=steps, early_stop=False)
    if not (0 < eps <= 1 and step > 0 and steps > 0):
        message = f"adversarial training needs eps in (0, 1], step > 0 and steps > 0, got {eps}, {step} and {steps}"
        raise UsageError(message)

    def change(model: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        return attack.perturb(model, x, y if y.ndim == 1 else y.argmax(1), rng=rng)

    return change


@dataclass(frozen=True, kw_only=True)
class AdversarialFinetune(FTAL):
    """Fine-tune all layers on PGD examples: marks made of adversarial examples or small triggers are trained away.

    Parameters
    ----------
    eps
        radius in Linf, pixels in [0, 1]; the paper tries .01, .1 and .25.
    step, steps
        step .01; the paper takes 40 steps and 5 epochs, here 7 and 2.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test.take(slice(64)))
    >>> AdversarialFinetune(epochs=1, steps=1).steal(view, rng=generator(0)).log["epochs"]
    1
    """

    card: ClassVar[Card] = Card(
        name="ft-adversarial", title="fine-tune on adversarial examples", paper=BATTERY, taxonomy=WHITE_BOX,
        cost="2 epochs of 8 forward and backward passes on the thief's images",
    )  # fmt: skip

    epochs: int = 2
    eps: float = 0.1
    step: float = 0.01
    steps: int = 7

    def __post_init__(self) -> None:
        pgd_adversary(self.eps, self.step, self.steps)

    @property
    def effort(self) -> float:
        """Every batch costs a pass more for each step of the attack."""
        return float(self.epochs * (1 + self.steps))

    def _adversary(self) -> Adversary:
        return pgd_adversary(self.eps, self.step, self.steps)
