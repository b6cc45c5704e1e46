"""Whether answers are those of one given model, in whatever form they came: rounded, the best few classes, or labels alone."""

from __future__ import annotations

import torch
from torch import Tensor

from modelward.io.answers import SUM_TOLERANCE

ROUNDING = 2e-3  # what another machine's arithmetic changes of a probability, at most
SATURATED, SHOWN = 0.999, 10  # rows that sure look rounded whatever was done; fewer others tell nothing


def same_labels(theirs: Tensor, logits: Tensor) -> bool:
    """Return whether labels (n,) are those of ``logits`` (n, K), wherever these are not undecided between two classes.

    >>> logits = torch.tensor([[4.0, 0.0], [0.0, 0.001]])
    >>> same_labels(torch.tensor([0, 0]), logits), same_labels(torch.tensor([1, 1]), logits)
    (True, False)
    """
    best = logits.double().softmax(1).topk(min(2, logits.shape[1]), 1)
    clear = (best.values[:, 0] - best.values[:, -1]) > 2 * ROUNDING
    return bool((theirs == best.indices[:, 0])[clear].all()) and bool(clear.any())


def same_probabilities(theirs: Tensor, logits: Tensor) -> bool:
    """Return whether probabilities (n, K) are those of ``logits`` (n, K), but for rounding.

    Classes that a suspect gives one value, such as those that a service left out, are compared by their mean.

    >>> logits = torch.tensor([[4.0, 1.0, 0.0]]).repeat(12, 1) + torch.linspace(0, 1, 36).view(12, 3)
    >>> exact = logits.softmax(1)
    >>> same_probabilities(exact.mul(100).round() / 100, logits), same_probabilities((0.7 * logits).softmax(1), logits)
    (True, False)
    """
    if theirs.shape != logits.shape:
        return False
    mine = torch.stack([_by_value(row, own) for row, own in zip(theirs, logits.double().softmax(1), strict=True)])
    mine = torch.where(theirs == 0, (mine - SUM_TOLERANCE).clamp_min(0), mine)  # so little was left out that nothing was filled in for it
    digits = decimals(theirs)
    return bool((theirs.double() - mine).abs().max() <= ROUNDING + (0.0 if digits is None else 10.0**-digits))


def decimals(probabilities: Tensor) -> int | None:
    """Return to how many digits (1 to 3) the largest entries of probabilities (n, K) were rounded; ``None`` for none, or for more.

    >>> decimals(torch.tensor([[0.25, 0.75]]).repeat(12, 1)), decimals(torch.tensor([[0.2512, 0.7488]]).repeat(12, 1))
    (2, None)
    """
    top = probabilities.double().max(1).values
    top = top[top < SATURATED]
    if len(top) < SHOWN:
        return None
    for digits in (1, 2, 3):
        scaled = top * 10**digits
        if float(((scaled - scaled.round()).abs() < 1e-3).double().mean()) > 0.5:  # rows whose sum was mended are no longer round
            return digits
    return None


def _by_value(theirs: Tensor, mine: Tensor) -> Tensor:
    """Return ``mine`` (K,) averaged over the classes that have one value in ``theirs`` (K,)."""
    _, group = theirs.unique(return_inverse=True)
    size = torch.zeros(len(theirs), dtype=torch.float64).index_add_(0, group, torch.ones_like(mine))
    return (torch.zeros_like(size).index_add_(0, group, mine) / size.clamp_min(1))[group]
