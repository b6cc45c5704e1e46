"""Less in every answer: rounded probabilities, or the label alone (Tramer et al., USENIX Security 2016, as a countermeasure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from modelward.attacks.theft.wrapping import Wrapping, wrapper_card
from modelward.core.card import Card
from modelward.models.assembly import Assembly

_PAPER = (
    "Tramer, Zhang, Juels, Reiter, Ristenpart: Stealing machine learning models via prediction APIs, USENIX Security 2016, arXiv 1609.02943"
)
SURE = 20.0  # logits this far apart are probabilities of 1 and 2e-9


@dataclass(frozen=True, kw_only=True)
class WrapRound(Wrapping):
    """Answer with probabilities rounded to ``decimals``; the label never changes.

    The logits are log(p') of the rounded p', 0 taken as 1e-6, and the first of equals is the copy's own label; softmax brings the sum back to 1.

    Parameters
    ----------
    decimals
        0 to 6.

    Examples
    --------
    >>> import torch
    >>> from modelward.models.assembly import Assembly
    >>> net = torch.nn.Identity()
    >>> WrapRound(decimals=1).assemble([net])(torch.tensor([[0.2, 0.0, -3.0]])).softmax(1)
    tensor([[5.5556e-01, 4.4444e-01, 1.1111e-06]])
    """

    card: ClassVar[Card] = wrapper_card("wrap-round", "rounded probabilities", behind=True, paper=_PAPER)

    decimals: int = 1

    def __post_init__(self) -> None:
        self._require(decimals=(0 <= self.decimals <= 6, "in 0..6"))

    def answer(self, assembly: Assembly, x: Tensor) -> Tensor:
        """Return the logarithms of the rounded probabilities (N, K)."""
        logits: Tensor = assembly.parts[0](x)
        rounded = logits.softmax(1).mul(10**self.decimals).round().div(10**self.decimals).clamp_min(1e-6)
        answer: Tensor = rounded.log() + F.one_hot(logits.argmax(1), logits.shape[1]) * 1e-5  # ties stay with the label
        return answer


@dataclass(frozen=True, kw_only=True)
class WrapLabel(Wrapping):
    """Answer with the label alone: its probability is 1.

    Examples
    --------
    >>> import torch
    >>> WrapLabel().assemble([torch.nn.Identity()])(torch.tensor([[0.2, 0.0, -3.0]])).softmax(1)
    tensor([[1.0000e+00, 2.0612e-09, 2.0612e-09]])
    """

    card: ClassVar[Card] = wrapper_card("wrap-label", "labels without probabilities", behind=True, paper=_PAPER)

    def answer(self, assembly: Assembly, x: Tensor) -> Tensor:
        """Return logits (N, K): `SURE` for the label, 0 for the rest."""
        logits: Tensor = assembly.parts[0](x)
        return torch.zeros_like(logits).scatter(1, logits.argmax(1, keepdim=True), SURE)
