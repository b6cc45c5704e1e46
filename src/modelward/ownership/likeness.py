r"""How alike a suspect and each of m + 1 candidates are, beyond what all candidates share.

Every function here treats the candidates alike, and sums over them in their one order: whose model is the owner's changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

RIDGE = 0.1


def disputed(labels: Tensor) -> Tensor:
    """Return how much the candidates disagree on each image, the entropy of their labels: (m + 1, n) -> (n,).

    >>> disputed(torch.tensor([[0, 0], [0, 1]])).tolist()
    [0.0, 0.6931471805599453]
    """
    shares = shares_of(labels)
    return (shares * shares.clamp_min(1e-12).log()).sum(1).abs()


def shares_of(labels: Tensor, classes: int = 1) -> Tensor:
    """Return the share (n, K) of candidates that give each image each label, from labels (m + 1, n)."""
    classes = max(classes, int(labels.max()) + 1)
    return F.one_hot(labels, classes).double().mean(0)


def shared_part(suspect: Tensor, candidates: Tensor, *, ridge: float = RIDGE) -> Tensor:
    r"""Return how much of the suspect's deviation each candidate accounts for, beside all others: about 1 for its source, 0 for a stranger.

    With deviations :math:`d, D_c` from the mean of all candidates it is the ridge solution of :math:`d \approx \sum_c a_c D_c`. A cosine would give each
    candidate credit for what it shares with the others; the solution takes that away.

    Parameters
    ----------
    suspect, candidates
        features (n, K) and (m + 1, n, K).
    ridge
        in units of the mean squared length of a candidate's deviation.

    Returns
    -------
    coefficients
        float64 (m + 1,); all 0 where the candidates or the suspect do not deviate.

    Examples
    --------
    >>> candidates = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[-1.0, -1.0]]])
    >>> int(shared_part(torch.tensor([[0.1, 0.9]]), candidates).argmax())
    1
    """
    mean = candidates.double().mean(0)
    mine, theirs = (suspect.double() - mean).flatten(), (candidates.double() - mean).flatten(1)
    return _solved(theirs @ theirs.T, theirs @ mine, ridge, scale=float(candidates.double().square().sum()) / len(candidates))


def shared_structure(suspect: Tensor, candidates: Sequence[Tensor], *, ridge: float = RIDGE) -> Tensor:
    r"""Return the same of similarity matrices :math:`U U^T` between probes, which are blind to the names, the order and the number of classes.

    U has the features of each probe, less their mean over the probes, scaled to length 1.

    Parameters
    ----------
    suspect, candidates
        features (n, L) and m + 1 of (n, K).
    ridge
        as in `shared_part`.
    """
    units = [_directions(features.double()) for features in (suspect, *candidates)]
    gram = torch.stack([torch.stack([(a.T @ b).square().sum() for b in units[1:]]) for a in units])
    cross, among = gram[0], gram[1:]
    middle, mean = among.mean(1), among.mean()
    centred = among - middle[:, None] - middle[None, :] + mean
    return _solved(centred, cross - cross.mean() - middle + mean, ridge, scale=float(among.diagonal().mean()))


def _directions(features: Tensor) -> Tensor:
    """Return rows less their mean, scaled to length 1; rows that do not deviate stay 0."""
    away = features - features.mean(0, keepdim=True)
    scaled: Tensor = away / away.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return scaled


def _solved(gram: Tensor, cross: Tensor, ridge: float, *, scale: float) -> Tensor:
    """Return the ridge solution, rounded to nine digits of its largest entry, so that what is equal but for rounding is a tie.

    It is 0 where the candidates deviate by no more than rounding, beside ``scale``, the mean squared length of what they have before the mean is off.
    """
    size = float(gram.diagonal().sum()) / len(gram)
    none = torch.zeros(len(gram), dtype=torch.float64)
    if size <= 1e-12 * scale or not bool(torch.isfinite(cross).all()):
        return none
    found: Tensor = torch.linalg.solve(gram + ridge * size * torch.eye(len(gram), dtype=torch.float64), cross)
    largest = float(found.abs().max())
    rounded: Tensor = torch.round(found / largest, decimals=9) * largest if largest > 1e-12 else none
    return rounded
