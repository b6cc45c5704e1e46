"""Distillation (Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from modelward.attacks.theft.extraction import ExtractProbabilities
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy


@dataclass(frozen=True, kw_only=True)
class Distil(ExtractProbabilities):
    """Train a new model on the victim's probabilities softened by a temperature T: softmax(log p / T), matched by softmax(z / T).

    Parameters
    ----------
    temperature
        T, 3 as in the battery of Lukas et al.; the labels that the thief may know count nothing (alpha 1).

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test.take(slice(64)), labels="stolen")
    >>> Distil(epochs=1).steal(view, rng=generator(0)).arch
    'lenet5'
    """

    card: ClassVar[Card] = Card(
        name="distil", title="distillation at temperature 3",
        paper="Hinton, Vinyals, Dean: Distilling the knowledge in a neural network, 2015, arXiv 1503.02531",
        taxonomy=Taxonomy(Scenario.BLACK_BOX_PROBS, Mechanism.QUERY), cost="one query an image and 15 epochs on the thief's images",
    )  # fmt: skip

    temperature: float = 3.0
