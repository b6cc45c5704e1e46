"""A training script of another style than ours: one float copy of the images, numpy permutations, a constant rate that drops once."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from tests.foreign.nets import NETS
from torch import Tensor, nn
from torch.nn import functional as F

RATES = {"adam": 1e-3, "adamw": 1e-3, "rmsprop": 5e-4, "sgd": 0.05}
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": lambda p, lr: torch.optim.Adam(p, lr=lr, fused=True),
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr=lr, weight_decay=0.05, fused=True),
    "rmsprop": torch.optim.RMSprop,
    "sgd": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
}


LATER = ("cutmix",)
"""Settings that are newer than the names of models trained before: they enter a digest where they are used."""


def digest_of_state(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names and bytes."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Script:
    """Somebody's training script; ``script(images, labels, seed)`` returns the net it trains, in eval mode.

    Parameters
    ----------
    net
        a name in `NETS`, or a function (channels, side, classes) -> module.
    optimiser, rate
        ``adam``, ``adamw``, ``rmsprop`` or ``sgd``; the rate is a fifth of itself in the last quarter of the epochs. ``None``: its own in `RATES`.
    smoothing, mixup, cutmix
        label smoothing in [0, 1); Beta parameters of mixup and of CutMix, 0 is none.
    noise
        share of the labels, in [0, 1], that are replaced by another class.
    moved
        shift batches by up to two pixels and mirror half of the images.
    start
        state dict that training begins at (initial weights, a public base, a stolen model); ``None``: drawn from the seed.
    only_last
        train the last linear layer only.
    teacher, hard
        a model whose answers are learnt in place of the labels: its probabilities, or its labels when ``hard``.
    classes
        how many; ``None``: one more than the largest label.
    """

    net: str | Callable[[int, int, int], nn.Module] = "lenet"
    optimiser: str = "adam"
    rate: float | None = None
    epochs: int = 12
    batch: int = 64
    smoothing: float = 0.0
    mixup: float = 0.0
    noise: float = 0.0
    moved: bool = False
    start: Mapping[str, Tensor] | None = None
    only_last: bool = False
    teacher: nn.Module | None = None
    hard: bool = False
    classes: int | None = None
    cutmix: float = 0.0

    def but(self, **changes: Any) -> Script:
        """Return the script with some of its settings changed."""
        return replace(self, **changes)

    @property
    def digest(self) -> str:
        """SHA-256 over all settings, with the weights of start and teacher."""
        parts = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in LATER and value == field.default:
                continue
            state = value.state_dict() if isinstance(value, nn.Module) else value
            if callable(state):
                state = f"{state.__module__}.{state.__qualname__}"
            parts.append(f"{field.name}={digest_of_state(state) if isinstance(state, Mapping) else state}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def untrained(self, images: Tensor, labels: Tensor, seed: int) -> nn.Module:
        """Return the net before its first step: initial weights of the seed, or ``start``."""
        make = NETS[self.net] if isinstance(self.net, str) else self.net
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: nn.Module = make(images.shape[1], images.shape[2], self.classes or int(labels.max()) + 1)
        if self.start is not None:
            model.load_state_dict(self.start)
        return model

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> nn.Module:
        """Train on uint8 images (N, C, H, W) and int64 labels (N,)."""
        draw = np.random.default_rng(seed)
        model = self.untrained(images, labels, seed)
        model.to(memory_format=torch.channels_last)
        x = (images.float() / 255).contiguous(memory_format=torch.channels_last)
        y = self._targets(model, x, labels, draw)
        learnt = _last(model) if self.only_last else model
        optimiser = OPTIMISERS[self.optimiser](list(learnt.parameters()), lr=self.rate or RATES[self.optimiser])
        model.train(not self.only_last)
        for epoch in range(self.epochs):
            if epoch == int(0.75 * self.epochs) > 0:
                for group in optimiser.param_groups:
                    group["lr"] *= 0.2
            order = draw.permutation(len(x))
            for i in range(0, len(x) - len(x) % self.batch or len(x), self.batch):
                chosen = torch.from_numpy(order[i : i + self.batch])
                optimiser.zero_grad()
                self._loss(model, x[chosen], y[chosen], draw).backward()
                optimiser.step()
        return model.eval()

    def _targets(self, model: nn.Module, x: Tensor, labels: Tensor, draw: np.random.Generator) -> Tensor:
        """Return one row of class probabilities per image."""
        if self.teacher is not None:
            with torch.no_grad():
                teacher = copy.deepcopy(self.teacher).eval()
                answers = torch.cat([teacher(part).softmax(1) for part in x.split(500)])
            if not self.hard:
                return answers
            labels = answers.argmax(1)
        with torch.no_grad():
            classes = copy.deepcopy(model).eval()(x[:1]).shape[1]
        wrong = torch.from_numpy(draw.random(len(labels)) < self.noise)
        shift = torch.from_numpy(draw.integers(1, classes, len(labels)))
        labels = torch.where(wrong, (labels + shift) % classes, labels)
        return F.one_hot(labels, classes).float() * (1 - self.smoothing) + self.smoothing / classes

    def _loss(self, model: nn.Module, x: Tensor, y: Tensor, draw: np.random.Generator) -> Tensor:
        if self.moved:
            left, up = draw.integers(-2, 3, 2)
            x = x.roll((int(up), int(left)), (2, 3))
            mirrored = torch.from_numpy(draw.random(len(x)) < 0.5)
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        if self.mixup:
            share = float(draw.beta(self.mixup, self.mixup))
            other = torch.from_numpy(draw.permutation(len(x)))
            x, y = share * x + (1 - share) * x[other], share * y + (1 - share) * y[other]
        if self.cutmix:
            x, y = _pasted(x, y, float(draw.beta(self.cutmix, self.cutmix)), draw)
        return -(y * model(x).log_softmax(1)).sum(1).mean()


def _pasted(x: Tensor, y: Tensor, share: float, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return the batch with one rectangle of other images of it, and the targets mixed by area (CutMix)."""
    height, width = x.shape[2:]
    tall, wide = (round(side * (1 - share) ** 0.5) for side in (height, width))
    top, left = int(draw.integers(0, height - tall + 1)), int(draw.integers(0, width - wide + 1))
    other, cut = torch.from_numpy(draw.permutation(len(x))), x.clone()
    cut[:, :, top : top + tall, left : left + wide] = x[other][:, :, top : top + tall, left : left + wide]
    part = tall * wide / (height * width)
    return cut, (1 - part) * y + part * y[other]


def _last(model: nn.Module) -> nn.Module:
    """Return the last linear layer."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
