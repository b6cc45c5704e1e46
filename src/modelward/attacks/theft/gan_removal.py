"""Detect and remove watermarks with a GAN (Wang et al., ISC 2021, arXiv 2106.08104)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from modelward.attacks.theft.unlearning import WHITE_BOX, Ground, ScanningTheft, told
from modelward.core.card import Card
from modelward.core.result import Trace
from modelward.marking.inversion import Inversion


@dataclass(frozen=True, kw_only=True)
class GanRemoval(ScanningTheft):
    r"""Let a generator with a critic find the trigger of every class, then fine-tune on clean images and on images under the found triggers.

    A generator :math:`z \mapsto (m, p)` makes :math:`x' = (1 - m) x + m p` for a target class t with

    .. math:: \mathcal{L} = CE(f(x'), t) + .05\, \mathcal{L}_{GAN}(D(x')) + \lambda \sum m,

    and classes whose mask is far smaller than the others' are flagged (`modelward.scan`). ``kind="residual"`` is the other reading of the
    paper, an image-conditioned generator as in AdvGAN: :math:`x' = clip(x + G(x))`.

    Parameters
    ----------
    kind
        ``"trigger"`` or ``"residual"``; ``"direct"`` searches pixel by pixel.
    realism
        weight of the critic; 0 is the ablation.
    rounds
        scans: after the first removal the copy is scanned again, and what is flagged then is removed too.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test.take(slice(64)))
    >>> theft = GanRemoval(steps=40, epochs=1, rounds=1).steal(view, rng=generator(0))
    >>> theft.log["epochs"], len(theft.log["scans"][0]["anomaly"])
    (1, 10)
    """

    card: ClassVar[Card] = Card(
        name="gan-removal",
        title="find triggers with a generator and a critic, then unlearn them",
        paper="Wang et al.: Detect and remove watermark in deep neural networks via generative adversarial networks, ISC 2021, arXiv 2106.08104",
        taxonomy=WHITE_BOX,
        limits=(
            "flags one small pattern that sends images of any class to one class; a stamp on one source class, a large one and noise stay below the gate",
            "what is not flagged is unlearnt by way of the smallest trigger, which removes stamps all the same; marks in the weights stay",
            "the critic made no difference that could be measured: Neural Cleanse and laundering remove as much",
            "the paper's networks and losses are not known in detail; the default is the reading that worked in measurements",
        ),
        cost="5 seconds of search for ten classes on LeNet-5, then 10 epochs on 500 images, twice where the second scan flags",
    )

    kind: str = "trigger"
    realism: float = 0.05
    rounds: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(rounds=(self.rounds >= 1, ">= 1"))
        _ = self.plan

    @property
    def effort(self) -> float:
        """Every round searches and trains."""
        return self.rounds * super().effort

    @property
    def plan(self) -> Inversion:
        """The search with its critic."""
        return Inversion(kind=self.kind, steps=self.steps, realism=self.realism)

    def _remove(self, model: nn.Module, ground: Ground, *, rng: torch.Generator, trace: Trace) -> tuple[int, dict[str, Any]]:
        scans, epochs = list[dict[str, Any]](), 0
        for number in range(self.rounds):
            report = self.scan(model, ground.images, rng=rng)
            classes = report.flagged if number else self._treated(report, trace)
            if number and not classes:
                scans.append({**told(report), "treated": []})
                break
            scans.append({**told(report), **self._unlearnt(model, ground, report, classes, per_batch=self.batch, rng=rng)})
            epochs += self.epochs
        return epochs, {"scans": scans}
