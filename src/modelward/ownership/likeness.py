r"""How alike a suspect and each of m + 1 candidates are, beyond what all candidates share.

Every function here treats the candidates alike, and takes means over them in order of size: neither their order nor whose model is the owner's changes
a bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

CANCELLED = 1e-10


def disputed(labels: Tensor) -> Tensor:
    """Return how much the candidates disagree on each image, the entropy of their labels: (m + 1, n) -> (n,).

    >>> disputed(torch.tensor([[0, 0], [0, 1]])).tolist()
    [0.0, 0.6931471805599453]
    """
    shares = shares_of(labels)
    return -(shares * shares.clamp_min(1e-12).log()).sum(1)


def shares_of(labels: Tensor, classes: int = 1) -> Tensor:
    """Return the share (n, K) of candidates that give each image each label, from labels (m + 1, n)."""
    classes = max(classes, int(labels.max()) + 1)
    return F.one_hot(labels, classes).double().mean(0)


def deviation(suspect: Tensor, candidates: Tensor) -> Tensor:
    r"""Return :math:`1 - \cos(d, d_j)` for every candidate j, with deviations d from the mean of all candidates.

    Parameters
    ----------
    suspect, candidates
        outputs (n, K) and (m + 1, n, K), in one view.

    Returns
    -------
    distances
        float64 (m + 1,) in [0, 2]; 1 for all where the suspect does not deviate.

    Examples
    --------
    >>> candidates = torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]]])
    >>> deviation(torch.tensor([[0.5, 0.0]]), candidates).tolist()
    [0.0, 2.0]
    """
    mean = _mean(candidates.double(), 0)
    mine, theirs = (suspect.double() - mean).flatten(), (candidates.double() - mean).flatten(1)
    norms = theirs.norm(dim=1) * mine.norm()
    cosine = torch.where(norms > 0, (theirs * mine).sum(1) / norms.clamp_min(1e-300), 0.0)
    return _rounded(1 - cosine)


def agreement(suspect: Tensor, candidates: Tensor) -> Tensor:
    r"""Return one minus the share of rare answers in common: :math:`\sum_i [y_i = y_{ij}] w_i / \sum_i w_i`, w = -log of a label's share among candidates.

    Parameters
    ----------
    suspect, candidates
        labels (n,) and (m + 1, n), int64.

    Returns
    -------
    distances
        float64 (m + 1,) in [0, 1]; 1 for all where the suspect answers as no candidate does.

    Examples
    --------
    >>> agreement(torch.tensor([0, 1]), torch.tensor([[0, 1], [0, 0]])).tolist()
    [0.0, 1.0]
    """
    shares = shares_of(candidates, int(suspect.max()) + 1)
    share = shares.gather(1, suspect[:, None]).squeeze(1)
    weight = torch.where(share > 0, -share.clamp_min(1e-12).log(), 0.0)
    total = float(weight.sum())
    if total <= 0:
        return torch.ones(len(candidates), dtype=torch.float64)
    return _rounded(1 - ((candidates == suspect).double() * weight).sum(1) / total)


def structure(suspect: Tensor, candidates: Sequence[Tensor]) -> Tensor:
    r"""Return one minus the cosine of similarity matrices, each less the mean of all candidates': blind to names and order of classes.

    With the matrices :math:`S_j = U_j U_j^T` of normalised outputs and their mean R it is :math:`1 - \cos(S - R, S_j - R)`.

    Parameters
    ----------
    suspect, candidates
        outputs (n, L) and m + 1 of (n, K), in one view.
    """
    units = [outputs.double() / outputs.double().norm(dim=1, keepdim=True).clamp_min(1e-12) for outputs in (suspect, *candidates)]
    gram = torch.stack([torch.stack([(a.T @ b).square().sum() for b in units]) for a in units])
    mine, among = gram[0, 1:], gram[1:, 1:]
    to_mean, from_mean = _mean(among, 1), _mean(mine, 0)
    mean = _mean(to_mean, 0)
    cross = mine - from_mean - to_mean + mean
    away, others = gram[0, 0] - 2 * from_mean + mean, among.diagonal() - 2 * to_mean + mean
    told = (away > CANCELLED * gram[0, 0]) & (others > CANCELLED * among.diagonal())  # less is what rounding left of equal numbers
    cosine = torch.where(told, cross / (away * others).clamp_min(1e-300).sqrt(), 0.0)
    return _rounded(1 - cosine.clamp(-1, 1))


def _mean(values: Tensor, dim: int) -> Tensor:
    """Return the mean over candidates, the same bit for bit in whatever order they stand."""
    return values.sort(dim).values.mean(dim)


def _rounded(distances: Tensor) -> Tensor:
    """Return distances rounded to twelve digits, so that equal ones are ties whatever the order of their sums."""
    return torch.round(distances, decimals=12)
