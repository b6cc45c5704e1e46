"""What training carries beside its images: samples that join every batch, a penalty, an early end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Companions = Callable[[torch.Generator], tuple[Tensor, Tensor]]
Penalty = Callable[[nn.Module], Tensor]


@dataclass(frozen=True)
class Extras:
    """What training may carry beside its images, as marks need it.

    Parameters
    ----------
    companions
        ``rng -> (x, y)``: float images in [0, 1] and labels or probabilities that join every batch.
    penalty
        ``model -> loss`` that is added to the cross-entropy of every step.
    until
        ``model -> bool``, asked after every epoch: true ends the training.
    """

    companions: Companions | None = None
    penalty: Penalty | None = None
    until: Callable[[nn.Module], bool] | None = None
