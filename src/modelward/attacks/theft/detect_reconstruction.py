"""Detectors of verification queries that ask an autoencoder (Meng, Chen, "MagNet", CCS 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from modelward.attacks.theft.detecting import AutoencoderDetecting
from modelward.attacks.theft.wrapping import wrapper_card
from modelward.core.card import Card
from modelward.core.errors import UsageError
from modelward.models.assembly import Assembly

_PAPER = "Meng, Chen: MagNet: a two-pronged defense against adversarial examples, CCS 2017, arXiv 1705.09064"
_COST = "10 epochs of a small autoencoder on half of the thief's images"


@dataclass(frozen=True, kw_only=True)
class DetectReconstruction(AutoencoderDetecting):
    """Suspect images that the autoencoder gives back badly: score = mean squared error |x - A(x)|^2 / n.

    Examples
    --------
    >>> import torch
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").test.take(slice(200))
    >>> view = AttackerView.of_model(embedded_model().model, images, labels="none")
    >>> thief = DetectReconstruction(coder_epochs=20, batch=16, reaction="refuse").steal(view, rng=generator(0)).model
    >>> noise = torch.rand(20, 1, 28, 28, generator=generator(1))
    >>> int((thief(noise) == 0).all(1).sum()), int((thief(images.batch(slice(20))) == 0).all(1).sum()) <= 2
    (20, True)
    """

    card: ClassVar[Card] = wrapper_card("detect-reconstruction", "odd images answered at random", behind=True, paper=_PAPER, cost=_COST)

    def score(self, assembly: Assembly, x: Tensor) -> Tensor:
        """Return the mean squared error (N,) of the reconstruction."""
        made: Tensor = assembly.tools["coder"](x)
        return (made - x).square().flatten(1).mean(1)


@dataclass(frozen=True, kw_only=True)
class DetectDivergence(AutoencoderDetecting):
    """Suspect images whose reconstruction the copy answers otherwise: score = Jensen-Shannon divergence of f(x) and f(A(x)), in nats.

    Parameters
    ----------
    temperature
        both answers are softened by it; MagNet takes 10 and 40.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").test.take(slice(64))
    >>> theft = DetectDivergence(coder_epochs=1).steal(AttackerView.of_model(embedded_model().model, images, labels="none"), rng=generator(0))
    >>> bool(0 < theft.log["threshold"] < 0.7)
    True
    """

    card: ClassVar[Card] = wrapper_card(
        "detect-divergence", "images that change by reconstruction answered at random", behind=True, paper=_PAPER, cost=_COST
    )

    temperature: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            message = f"detect-divergence: temperature must be > 0, got {self.temperature}"
            raise UsageError(message)

    def score(self, assembly: Assembly, x: Tensor) -> Tensor:
        """Return the divergence (N,), from 0 to log 2."""
        copy = assembly.parts[0]
        p, q = ((copy(images) / self.temperature).softmax(1).clamp_min(1e-12) for images in (x, assembly.tools["coder"](x)))
        middle = (p + q) / 2
        divergence: Tensor = ((p * (p / middle).log()).sum(1) + (q * (q / middle).log()).sum(1)) / 2
        return divergence
