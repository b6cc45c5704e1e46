"""Adversarially trained extraction (Guan, Liang, He, "Are you stealing my model?", NeurIPS 2022: the adversarial extraction of its battery)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from modelward.attacks.theft.adversarial_finetune import pgd_adversary
from modelward.attacks.theft.extraction import ExtractLabels
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.training.loop import Adversary


@dataclass(frozen=True, kw_only=True)
class ExtractAdversarial(ExtractLabels):
    """Train a new model on the victim's labels and on PGD examples against itself: its boundaries lie elsewhere than the victim's.

    Parameters
    ----------
    eps, step, steps
        PGD in Linf, pixels in [0, 1].

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").test.take(slice(64))
    >>> view = AttackerView.of_model(embedded_model().model, images, labels="stolen", access="label", arch="mlp:width=8")
    >>> ExtractAdversarial(epochs=1, steps=1).run(view, rng=generator(0)).queries
    64
    """

    card: ClassVar[Card] = Card(
        name="extract-adv", title="extraction by labels with adversarial training",
        paper="Guan, Liang, He: Are you stealing my model? Sample correlation for fingerprinting deep neural networks, NeurIPS 2022, arXiv 2210.15427",
        taxonomy=Taxonomy(Scenario.BLACK_BOX_LABEL, Mechanism.QUERY), cost="one query an image and 10 epochs of 8 passes on the thief's images",
    )  # fmt: skip

    epochs: int = 10
    eps: float = 8 / 255
    step: float = 2 / 255
    steps: int = 7

    def __post_init__(self) -> None:
        pgd_adversary(self.eps, self.step, self.steps)

    @property
    def effort(self) -> float:
        """Every batch costs a pass more for each step of the attack."""
        return float(self.epochs * (1 + self.steps))

    def _adversary(self) -> Adversary:
        return pgd_adversary(self.eps, self.step, self.steps)
