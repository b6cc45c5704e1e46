"""What the thefts share that try to notice a verification query and answer it with something else."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from modelward.attacks.theft.wrap_reconstruct import channels_of
from modelward.attacks.theft.wrapping import Wrapping, drawn
from modelward.core.errors import InputError
from modelward.core.guard import frozen
from modelward.core.result import Trace
from modelward.core.view import AttackerView
from modelward.models.assembly import Assembly
from modelward.models.autoencoder import Autoencoder, empty_autoencoder, train_autoencoder

REACTIONS = ("random", "refuse")


@dataclass(frozen=True, kw_only=True)
class Detecting(Wrapping):
    """Base: answer as the copy does, except where ``score(x)`` exceeds what ``quantile`` of the thief's own images reach.

    Parameters
    ----------
    quantile
        share of clean images that stay below the threshold, .99: one clean query in a hundred is mistreated. It is fixed on the thief's
        second half of images; what is trained, is trained on the first.
    reaction
        ``"random"``: the copy's own logits, moved round by a number of classes that hangs on ``seed`` and the image alone, so that the
        answer looks confident and is the same every time; ``"refuse"``: all logits 0, every class as likely as another.
    seed
        of the random reaction.
    """

    quantile: float = 0.99
    reaction: str = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        self._require(
            quantile=(0 <= self.quantile <= 1, "in [0, 1]"), reaction=(self.reaction in REACTIONS, "random or refuse"),
            seed=(0 <= self.seed < 2**63, "in [0, 2^63)"),
        )  # fmt: skip

    def assemble(self, parts: Sequence[nn.Module]) -> Assembly:
        """Return the copy with a threshold that is to be fitted."""
        return Assembly(self, parts, numbers=("threshold",))

    @abstractmethod
    def score(self, assembly: Assembly, x: Tensor) -> Tensor:
        """Return (N,): how suspicious each image (N, C, H, W) in [0, 1] is; higher is more suspicious."""

    def answer(self, assembly: Assembly, x: Tensor) -> Tensor:
        """Return the copy's logits (N, K), other ones for suspicious images."""
        logits: Tensor = assembly.parts[0](x)
        caught = self.score(assembly, x) > cast("Tensor", assembly.threshold)
        if not bool(caught.any()):
            return logits
        if self.reaction == "refuse":
            return logits.masked_fill(caught[:, None], 0)
        classes = logits.shape[1]
        steps = (drawn(x, self.seed, [1], normal=False) * classes).long()
        moved = logits.gather(1, (torch.arange(classes, device=x.device) + steps) % classes)
        return torch.where(caught[:, None], moved, logits)

    def _equip(self, assembly: Assembly, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> dict[str, Any]:
        if len(view.images) < 4:
            message = f"{self.card.name} needs at least 4 images to fix its threshold, the thief has {len(view.images)}"
            raise InputError(message)
        first, second = torch.randperm(len(view.images), generator=rng).tensor_split(2)
        facts = self._train(assembly, view.images.pixels[first], rng=rng, trace=trace)
        with frozen(assembly), torch.no_grad():
            scores = torch.cat([self.score(assembly, view.images.batch(part)) for part in second.split(256)])
            cast("Tensor", assembly.threshold).fill_(float(scores.quantile(self.quantile)))
        return {"threshold": float(cast("Tensor", assembly.threshold)), **facts}

    def _train(self, assembly: Assembly, pixels: Tensor, *, rng: torch.Generator, trace: Trace) -> dict[str, Any]:
        """Train what the score needs; return what to log."""
        del assembly, pixels, rng, trace
        return {}


@dataclass(frozen=True, kw_only=True)
class AutoencoderDetecting(Detecting):
    """Base of the detectors that compare an image with what an autoencoder makes of it.

    Parameters
    ----------
    coder_epochs, lr, batch, width, noise
        as in `WrapReconstruct`.
    """

    coder_epochs: int = 10
    lr: float = 3e-3
    batch: int = 64
    width: int = 16
    noise: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            coder_epochs=(self.coder_epochs >= 1, ">= 1"), lr=(self.lr > 0, "> 0"), batch=(self.batch >= 1, ">= 1"),
            width=(1 <= self.width <= 256, "in 1..256"), noise=(self.noise >= 0, ">= 0"),
        )  # fmt: skip

    @property
    def effort(self) -> float:
        """An epoch of the autoencoder is cheaper than one of most networks."""
        return 0.5 * self.coder_epochs

    def assemble(self, parts: Sequence[nn.Module]) -> Assembly:
        """Return the copy with an untrained autoencoder beside it."""
        return Assembly(self, parts, tools={"coder": empty_autoencoder(channels_of(parts[0]), self.width)}, numbers=("threshold",))

    def _train(self, assembly: Assembly, pixels: Tensor, *, rng: torch.Generator, trace: Trace) -> dict[str, Any]:
        coder = cast("Autoencoder", assembly.tools["coder"])
        log = train_autoencoder(coder, pixels, epochs=self.coder_epochs, lr=self.lr, noise=self.noise, batch=self.batch, rng=rng)
        trace.steps = len(log)
        return {"coder_epochs": len(log), "mse": log[-1]}
