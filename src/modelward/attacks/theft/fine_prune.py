"""Fine-pruning (Liu, Dolan-Gavitt, Garg, "Fine-pruning: defending against backdooring attacks", RAID 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.theft.finetune import FTAL, WHITE_BOX
from modelward.core.card import Card
from modelward.core.errors import InputError
from modelward.core.guard import predict
from modelward.core.result import Trace
from modelward.models.channels import Group, groups


def late(model: nn.Module) -> Group:
    """Return the channels of the last convolution, or the last hidden neurons of a network that has none."""
    found = [group for group in groups(model) if group.readers]
    if not found:
        raise InputError("no layer reads the channels of another one; there is nothing to fine-prune")
    return ([group for group in found if any(isinstance(layer, nn.Conv2d) for layer in group.writers)] or found)[-1]


def activity(model: nn.Module, group: Group, pixels: Tensor) -> Tensor:
    """Return the mean absolute activation (C,) of the channels of ``group`` over images, as the layers that read them see it."""
    total = torch.zeros(group.size)

    def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen = inputs[0].detach().float().abs()
        flat = seen.movedim(1, -1).reshape(-1, seen.shape[1]) if seen.ndim == 4 else seen.reshape(-1, seen.shape[-1])
        total.add_(flat.sum(0).view(group.size, -1).mean(1))

    hooks = [reader.register_forward_pre_hook(add) for reader in group.readers]
    try:
        predict(model, pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return total / (len(pixels) * len(hooks))


@torch.no_grad()
def silence(group: Group, channels: Tensor) -> None:
    """Make the chosen channels answer zero for ever: their weights, biases and normalisation become zero."""
    for layer in group.writers:
        for tensor in layer.parameters():
            tensor[channels] = 0
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.running_mean is not None:
            layer.running_mean[channels] = 0


@dataclass(frozen=True, kw_only=True)
class FinePrune(FTAL):
    """Remove the channels of a late layer that the thief's images hardly use, then fine-tune: where triggers hide, clean images are silent.

    Parameters
    ----------
    ratio
        share of the channels to remove; the paper's battery removes .96 and trains 10 epochs, here .5 and 5.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test.take(slice(64)))
    >>> FinePrune(ratio=0.25, epochs=1).steal(view, rng=generator(0)).log["removed"]
    4
    """

    card: ClassVar[Card] = Card(
        name="fine-prune", title="remove silent channels, then fine-tune",
        paper="Liu, Dolan-Gavitt, Garg: Fine-pruning: defending against backdooring attacks on deep neural networks, RAID 2018, arXiv 1805.12185",
        taxonomy=WHITE_BOX, cost="5 epochs on the thief's images",
    )  # fmt: skip

    ratio: float = 0.5

    def __post_init__(self) -> None:
        self._require(ratio=(0 <= self.ratio < 1, "in [0, 1)"))

    def _prepare(self, model: nn.Module, pixels: Tensor, targets: Tensor, *, rng: torch.Generator, trace: Trace) -> dict[str, Any]:
        del targets, rng, trace
        group = late(model)
        chosen = activity(model, group, pixels).argsort(stable=True)[: round(self.ratio * group.size)]
        silence(group, chosen)
        return {"channels": group.size, "removed": len(chosen)}
