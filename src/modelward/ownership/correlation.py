r"""Sample correlation: how alike a model answers to each pair of probes.

For outputs :math:`o_1..o_n` the matrix is :math:`C_{ij} = 1 - \cos(o_i, o_j)` (or a Gaussian kernel of the normalised outputs), and the
distance of two models is :math:`d = \lVert C_s - C_v \rVert_1 / n^2`. Permuting the classes or scaling any output does not change it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from modelward.core.errors import InputError, UsageError

VIEWS = ("logits", "logp", "softmax", "temp", "temp_c", "label")
KERNELS = ("cos", "rbf")
TOP = 0.70
_TINY = 1e-30


def correlation(outputs: Tensor, kernel: str = "cos") -> Tensor:
    """Return the matrix (n, n) of pairwise dissimilarities (``cos``, in [0, 2]) or similarities (``rbf``, in (0, 1]) of outputs (n, K).

    Raises
    ------
    InputError
        when an output row is all zeros: its direction is undefined.

    Examples
    --------
    >>> import torch
    >>> correlation(torch.tensor([[1.0, 0.0], [0.0, 2.0]])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    norms = outputs.norm(dim=1, keepdim=True)
    if bool((norms == 0).any()):
        message = f"{int((norms == 0).sum())} of {len(outputs)} outputs are all zeros, their correlation is undefined"
        raise InputError(message)
    unit: Tensor = outputs / norms
    cosine = (unit @ unit.T).clamp_(-1, 1)
    cosine.fill_diagonal_(1)
    if kernel == "cos":
        return cosine.neg_().add_(1)
    if kernel == "rbf":
        return torch.exp(-2 * (1 - cosine))
    message = f"kernel is {' or '.join(KERNELS)}, not {kernel!r}"
    raise UsageError(message)


def distance(first: Tensor, second: Tensor) -> float:
    """Return the mean absolute difference of two correlation matrices (n, n)."""
    if first.shape != second.shape:
        message = f"{len(first)} and {len(second)} probes cannot be compared"
        raise InputError(message)
    return float((first - second).abs().mean())


def overlap(first: Tensor, second: Tensor, kernel: str = "cos") -> float:
    r"""Return the inner product of the similarity matrices of two sets of outputs (n, K) and (n, L).

    For the cosine kernel it is :math:`\lVert U^T W \rVert_F^2` of the normalised outputs, at a cost linear in n.
    """
    units = [outputs / outputs.norm(dim=1, keepdim=True).clamp_min(1e-12) for outputs in (first, second)]
    if kernel == "cos":
        return float((units[0].T @ units[1]).square().sum())
    return float((correlation(units[0], kernel) * correlation(units[1], kernel)).sum())


def shared_deviation(suspect: Tensor, source: Tensor, siblings: Sequence[Tensor], kernel: str = "cos") -> float:
    r"""Return how much of the source's deviation from its siblings a suspect shares: about 0 for an independent model, 1 for the source.

    With similarity matrices S, V and the siblings' mean R it is the projection
    :math:`\langle S - R, V - R \rangle / \lVert V - R \rVert^2`. What any model learns from the same task or the same data is in R and
    cancels; what is left of the source is what only a copy has.

    Parameters
    ----------
    suspect, source, siblings
        outputs (n, K) in one view.

    Raises
    ------
    InputError
        when the source does not differ from its siblings.
    """

    def product(a: Tensor, b: Tensor) -> float:
        return overlap(a, b, kernel)

    def mean(outputs: Tensor) -> float:
        return sum(product(outputs, sibling) for sibling in siblings) / len(siblings)

    own = sum(mean(sibling) for sibling in siblings) / len(siblings)
    to_source = mean(source)
    length = product(source, source) - 2 * to_source + own
    if length <= 1e-9 * max(own, 1e-12):
        raise InputError(
            "the source answers like its siblings: nothing of its own could be recognised; use siblings trained from other seeds"
        )
    return (product(suspect, source) - mean(suspect) - to_source + own) / length


def log_probabilities(probabilities: Tensor) -> Tensor:
    """Return logits (n, K), up to a shift per sample, from probabilities; zeros become half the smallest positive answer."""
    positive = probabilities[probabilities > 0]
    floor = max(_TINY, 0.5 * float(positive.min())) if len(positive) else _TINY
    return probabilities.clamp_min(floor).log()


def matched_temperature(logits: Tensor, top: float = TOP) -> float:
    """Return the temperature T at which the mean largest probability of softmax(logits / T) is ``top``.

    It is searched on three nested grids between 1e-3 and 1e3; outside that the nearest end is returned.
    """
    low, high = -3.0, 3.0
    shifted = logits - logits.amax(1, keepdim=True)
    for _ in range(3):
        grid = torch.linspace(low, high, 33)
        means = 1 / torch.exp(shifted / (10**grid)[:, None, None]).sum(2)
        below = int((means.mean(1) > top).sum())  # the mean falls as the temperature grows
        low, high = float(grid[max(0, below - 1)]), float(grid[min(32, below)])
    return float(10 ** ((low + high) / 2))


def view_of(answers: Tensor, view: str, *, are_logits: bool = False, classes: int = 2) -> Tensor:
    """Return what the correlation is computed on.

    Parameters
    ----------
    answers
        probabilities (n, K), logits when ``are_logits``, or labels (n,) int64 for the ``label`` view.
    classes
        for labels: how many there are at least.
    view
        ``logits``; ``logp``: logits minus their log-sum-exp, which is all that probabilities tell of them; ``softmax``; ``label``:
        softmax(.01 + one-hot); ``temp``: softmax at the temperature that makes the mean top probability .70, so that confident and cautious
        copies look alike; ``temp_c``: the same minus its mean over the probes.
    """
    if view == "label":
        labels = answers if answers.ndim == 1 else answers.argmax(1)
        classes = max(classes, int(labels.max()) + 1) if answers.ndim == 1 else answers.shape[1]
        return (0.01 + F.one_hot(labels.long(), classes).float()).softmax(1)
    if answers.ndim != 2:
        message = f"the view {view!r} needs probabilities; for labels use view='label'"
        raise InputError(message)
    logits = answers.float() if are_logits else log_probabilities(answers.float())
    if view == "logits":
        return logits
    if view == "logp":
        return logits.log_softmax(1)
    if view == "softmax":
        return logits.softmax(1)
    if view in {"temp", "temp_c"}:
        soft = (logits / matched_temperature(logits)).softmax(1)
        return soft - soft.mean(0, keepdim=True) if view == "temp_c" else soft
    message = f"view is {' or '.join(VIEWS)}, not {view!r}"
    raise UsageError(message)
