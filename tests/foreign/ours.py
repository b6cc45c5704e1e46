"""An owner who trains with modelward's own loop, in the form of a foreign `Script`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from tests.foreign.loop import digest_of_state
from torch import Tensor, nn

from modelward.core.rng import forked, generator
from modelward.evaluation.zoo import null_recipe
from modelward.models import build
from modelward.training import Recipe, fit


def our_net(arch: str, images: Tensor, classes: int, rng: torch.Generator) -> nn.Module:
    """Return an untrained net of ours for uint8 images (N, C, H, W)."""
    height, width = images.shape[2:]
    return build(arch, classes=classes, channels=images.shape[1], size=(height, width), rng=rng)


def our_lenet(channels: int, side: int, classes: int) -> nn.Module:
    """Return our LeNet-5 for a foreign script, with initial weights of torch's own seed."""
    return build("lenet5", classes=classes, channels=channels, size=(side, side), rng=generator(torch.initial_seed()))


@dataclass(frozen=True, kw_only=True, eq=False)
class OurScript:
    """``script(images, labels, seed)`` trains a net of ours by `modelward.fit`.

    Parameters
    ----------
    arch, recipe
        architecture, and how it is trained.
    start
        state dict that training begins at; ``None``: drawn from the seed.
    """

    arch: str = "lenet5"
    recipe: Recipe = field(default_factory=lambda: null_recipe("lenet5"))
    start: Mapping[str, Tensor] | None = None

    def but(self, *, start: Mapping[str, Tensor] | None) -> OurScript:
        """Return the script with another start."""
        return replace(self, start=start)

    @property
    def digest(self) -> str:
        """SHA-256 over all settings, with the weights of the start."""
        start = None if self.start is None else digest_of_state(self.start)
        return hashlib.sha256(f"{self.arch} {self.recipe} {start}".encode()).hexdigest()

    def untrained(self, images: Tensor, labels: Tensor, seed: int) -> nn.Module:
        """Return the net before its first step."""
        model = our_net(self.arch, images, int(labels.max()) + 1, generator(seed))
        if self.start is not None:
            model.load_state_dict(self.start)
        return model

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> nn.Module:
        """Train on uint8 images (N, C, H, W) and int64 labels (N,)."""
        model, rng = self.untrained(images, labels, seed), generator(seed + 1)
        with forked(rng):
            fit(model, images, labels, self.recipe, rng=rng)
        return model.eval()
