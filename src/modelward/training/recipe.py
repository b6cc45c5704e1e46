"""How to train, as data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from modelward.core.devices import bf16_is_faster, device_of
from modelward.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Hyper-parameters of one training run.

    Parameters
    ----------
    epochs, batch, lr, momentum, weight_decay, nesterov
        as usual; ``momentum`` is Adam's first beta.
    optimizer
        ``"sgd"`` or ``"adam"``.
    schedule
        ``"onecycle"`` (linear up over ``warmup``, cosine down), ``"cosine"``, ``"thirds"`` (a tenth of it after each third) or ``"constant"``,
        all per step.
    label_smoothing
        in [0, 1).
    mixup, cutmix
        Beta parameter, 0 turns it off. With both, each batch draws one of them.
    flip, crop
        random horizontal flip; random crop after padding by ``crop`` pixels.
    ema
        decay of the weight average, 0 turns it off; with it, the average is what comes back.
    temperature
        logits are divided by it before the loss, as in distillation.
    patience
        stop after so many epochs without a better validation accuracy, and come back to the best; 0 turns it off.
    precision
        ``"auto"`` (bf16 autocast on convolutional nets where the processor multiplies bf16 by itself), ``"bf16"`` or ``"fp32"``.
    """

    epochs: int = 12
    batch: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = True
    optimizer: str = "sgd"
    schedule: str = "onecycle"
    warmup: float = 0.25
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    flip: bool = False
    crop: int = 0
    ema: float = 0.0
    temperature: float = 1.0
    patience: int = 0
    precision: str = "auto"

    def __post_init__(self) -> None:
        choices = {
            "optimizer": ("sgd", "adam"),
            "schedule": ("onecycle", "cosine", "thirds", "constant"),
            "precision": ("auto", "bf16", "fp32"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                message = f"{name} is {' or '.join(allowed)}, not {getattr(self, name)!r}"
                raise UsageError(message)
        rules = {
            "epochs": (self.epochs >= 0, ">= 0"), "batch": (self.batch >= 1, ">= 1"), "lr": (self.lr > 0, "> 0"),
            "momentum": (0 <= self.momentum < 1, "in [0, 1)"), "weight_decay": (self.weight_decay >= 0, ">= 0"),
            "warmup": (0 <= self.warmup <= 1, "in [0, 1]"), "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
            "mixup": (self.mixup >= 0, ">= 0"), "cutmix": (self.cutmix >= 0, ">= 0"), "crop": (self.crop >= 0, ">= 0"),
            "ema": (0 <= self.ema < 1, "in [0, 1)"), "temperature": (self.temperature > 0, "> 0"), "patience": (self.patience >= 0, ">= 0"),
        }  # fmt: skip
        for name, (holds, words) in rules.items():
            if not holds:
                message = f"{name} must be {words}, got {getattr(self, name)}"
                raise UsageError(message)

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of ``step`` of ``steps``.

        >>> recipe = Recipe(lr=1.0, warmup=0.5)
        >>> [round(recipe.rate(step, 4), 3) for step in range(4)]
        [0.5, 1.0, 1.0, 0.5]
        """
        if self.schedule == "constant":
            return self.lr
        if self.schedule == "thirds":
            return self.lr * math.pow(0.1, 3 * step // max(1, steps))
        rising = round(self.warmup * steps) if self.schedule == "onecycle" else 0
        if step < rising:
            return self.lr * (step + 1) / rising
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer over ``parameters``."""
        chosen = [parameter for parameter in parameters if parameter.requires_grad]
        if self.optimizer == "adam":
            return torch.optim.Adam(chosen, lr=self.lr, betas=(self.momentum, 0.999), weight_decay=self.weight_decay, fused=True)
        nesterov = self.nesterov and self.momentum > 0
        return torch.optim.SGD(chosen, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=nesterov, fused=True)

    def autocasts(self, model: nn.Module) -> bool:
        """Return whether bf16 autocast is used for ``model``: on demand, or where it is known to be faster."""
        if self.precision != "auto":
            return self.precision == "bf16"
        deep = sum(isinstance(module, nn.Conv2d) for module in model.modules()) > 2
        return deep and bf16_is_faster(device_of(model))
