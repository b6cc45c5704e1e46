"""Every query through an autoencoder (Meng, Chen, "MagNet", CCS 2017; as an evasion of verification in Lukas et al. and Namba, Sakuma 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from modelward.attacks.theft.wrapping import Wrapping, wrapper_card
from modelward.core.card import Card
from modelward.core.errors import InputError
from modelward.core.result import Trace
from modelward.core.view import AttackerView
from modelward.models.assembly import Assembly
from modelward.models.autoencoder import Autoencoder, empty_autoencoder, train_autoencoder
from modelward.models.net import Net


def channels_of(model: nn.Module) -> int:
    """Return the input channels of a network or of the first network of an assembly; raises `InputError` where they are not to be seen."""
    while isinstance(model, Assembly):
        model = model.parts[0]
    if isinstance(model, Net):
        return model.channels
    conv = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if conv is None:
        raise InputError("the number of channels this network takes cannot be seen; wrap one of a named architecture")
    return conv.in_channels


@dataclass(frozen=True, kw_only=True)
class WrapReconstruct(Wrapping):
    """Show the copy what an autoencoder, trained on the thief's own images without labels, makes of each image.

    Parameters
    ----------
    coder_epochs, lr, batch
        Adam on the mean squared error.
    width
        of the autoencoder.
    noise
        standard deviation of the noise that it learns to remove, pixels in [0, 1].

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").test.take(slice(64))
    >>> view = AttackerView.of_model(embedded_model().model, images, labels="none")
    >>> theft = WrapReconstruct(coder_epochs=1).steal(view, rng=generator(0))
    >>> theft.model(images.batch(slice(3))).shape
    torch.Size([3, 10])
    """

    card: ClassVar[Card] = wrapper_card(
        "wrap-reconstruct", "queries through an autoencoder",
        paper="Meng, Chen: MagNet: a two-pronged defense against adversarial examples, CCS 2017, arXiv 1705.09064; Namba, Sakuma: Robust watermarking "
        "of neural network with exponential weighting, AsiaCCS 2019, arXiv 1901.06151",
        cost="10 epochs of a small autoencoder on the thief's images",
    )  # fmt: skip

    coder_epochs: int = 10
    lr: float = 3e-3
    batch: int = 64
    width: int = 16
    noise: float = 0.05

    def __post_init__(self) -> None:
        self._require(
            coder_epochs=(self.coder_epochs >= 1, ">= 1"), lr=(self.lr > 0, "> 0"), batch=(self.batch >= 1, ">= 1"),
            width=(1 <= self.width <= 256, "in 1..256"), noise=(self.noise >= 0, ">= 0"),
        )  # fmt: skip

    @property
    def effort(self) -> float:
        """An epoch of the autoencoder is cheaper than one of most networks."""
        return 0.5 * self.coder_epochs

    def assemble(self, parts: Sequence[nn.Module]) -> Assembly:
        """Return the copy with an untrained autoencoder before it."""
        return Assembly(self, parts, tools={"coder": empty_autoencoder(channels_of(parts[0]), self.width)})

    def _before(self, assembly: Assembly, x: Tensor) -> Tensor:
        made: Tensor = assembly.tools["coder"](x)
        return made

    def _equip(self, assembly: Assembly, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> dict[str, Any]:
        coder = cast("Autoencoder", assembly.tools["coder"])
        log = train_autoencoder(
            coder, view.images.pixels, epochs=self.coder_epochs, lr=self.lr, noise=self.noise, batch=self.batch, rng=rng
        )  # fmt: skip
        trace.steps = len(log)
        return {"coder_epochs": len(log), "mse": log[-1]}
