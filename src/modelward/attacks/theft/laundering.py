"""Laundering (Aiken, Kim, Woo, "Neural network laundering: removing black-box backdoor watermarks from deep neural networks", arXiv 2004.11368)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from modelward.attacks.theft.fine_prune import silence
from modelward.attacks.theft.neural_cleanse import activation_gap, stamped_images
from modelward.attacks.theft.unlearning import WHITE_BOX, Ground, ScanningTheft, told
from modelward.core.card import Card
from modelward.core.result import Trace
from modelward.marking.inversion import Inversion
from modelward.models.channels import groups


@dataclass(frozen=True, kw_only=True)
class Laundering(ScanningTheft):
    """Find triggers as Neural Cleanse does, reset in every layer the channels that answer to them more than to clean images, and fine-tune.

    Parameters
    ----------
    linear, conv
        the gap above which a channel is silenced, in linear and in convolutional layers, as a share of the layer's largest clean
        answer: the paper takes .2 to .3 and .5 to 1. Of no layer more than half is silenced.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test.take(slice(64)))
    >>> theft = Laundering(steps=30, success=0.1, epochs=1, linear=0.01, conv=0.01).steal(view, rng=generator(0))
    >>> theft.log["epochs"], sum(theft.log["removed"]) > 0
    (1, True)
    """

    card: ClassVar[Card] = Card(
        name="laundering",
        title="find triggers, silence the channels that answer to them, fine-tune",
        paper="Aiken, Kim, Woo: Neural network laundering: removing black-box backdoor watermarks from deep neural networks, arXiv 2004.11368",
        taxonomy=WHITE_BOX,
        limits=(
            "finds one pattern that sends images of any class to one class",
            "the unit of the paper's thresholds is not known; here it is the layer's largest clean answer",
        ),
        cost="5 seconds of search for ten classes on LeNet-5, then 5 epochs on 500 images",
    )

    epochs: int = 5
    linear: float = 0.25
    conv: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(linear=(self.linear > 0, "> 0"), conv=(self.conv > 0, "> 0"))

    @property
    def plan(self) -> Inversion:
        """The search without generator and critic."""
        return Inversion(kind="direct", steps=self.steps, realism=0.0)

    def _remove(self, model: nn.Module, ground: Ground, *, rng: torch.Generator, trace: Trace) -> tuple[int, dict[str, Any]]:
        report = self.scan(model, ground.images, rng=rng)
        classes = self._treated(report, trace)
        removed = []
        if classes:
            stamped = stamped_images(ground, report, classes, rng=rng)
            for group in (group for group in groups(model) if group.readers):
                gap = activation_gap(model, group, ground, stamped)
                limit = self.conv if any(isinstance(layer, nn.Conv2d) for layer in group.writers) else self.linear
                order = gap.argsort(descending=True, stable=True)[: group.size // 2]
                chosen = order[gap[order] > limit]
                silence(group, chosen)
                removed.append(len(chosen))
        after = self._unlearnt(model, ground, report, classes, per_batch=self.batch, rng=rng)
        return self.epochs, {"scan": told(report), "removed": removed, **after}
