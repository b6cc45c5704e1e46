"""Weight averages and the best epoch so far."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


def _copy(model: nn.Module) -> dict[str, Tensor]:
    """Return a detached copy of the model's state."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


class Average:
    """An exponential moving average of all weights and buffers, and the state of the best epoch.

    Parameters
    ----------
    decay
        0 keeps no average.
    keep_best
        remember the state with the best validation accuracy.
    """

    def __init__(self, decay: float, *, keep_best: bool = False) -> None:
        self.decay, self.keep_best = decay, keep_best
        self.shadow: dict[str, Tensor] = {}
        self.best: dict[str, Tensor] = {}
        self.best_score = -1.0
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the current weights; the first steps use a shorter memory."""
        if not self.decay:
            return
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 10))
        if not self.shadow:
            self.shadow = _copy(model)
            return
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                self.shadow[name].lerp_(tensor, 1 - decay)
            else:
                self.shadow[name].copy_(tensor)

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Put the average into ``model`` inside the block."""
        if not self.shadow:
            yield
            return
        kept = _copy(model)
        model.load_state_dict(self.shadow)
        try:
            yield
        finally:
            model.load_state_dict(kept)

    def note(self, model: nn.Module, score: float | None) -> None:
        """Remember the weights to come back to when ``score`` is the best so far."""
        if self.keep_best and score is not None and score > self.best_score:
            self.best_score = score
            self.best = {name: tensor.clone() for name, tensor in self.shadow.items()} if self.shadow else _copy(model)

    def settle(self, model: nn.Module) -> None:
        """Leave the best, else the average, else the last weights in ``model``."""
        final = self.best or self.shadow
        if final:
            model.load_state_dict(final)
