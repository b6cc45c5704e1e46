"""How specific a class of key images is: decoys beside keys, and what is left of it when its output is gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelward.core.errors import FormatError, InputError
from modelward.core.key import REMEDY, Key
from modelward.marking.chances import told
from modelward.marking.decoys import KINDS
from modelward.statistics import rank_p


@dataclass(frozen=True)
class Trace:
    """The histogram of labels that a suspect gives key images, beside the published model's without its extra outputs.

    Parameters
    ----------
    distance
        chi-square distance of the two histograms, from 0 to 1.
    p
        rank p-value among null models; ``None`` without any.
    n
        key images that the suspect answered with a class of the task.
    """

    distance: float
    p: float | None
    n: int

    def __str__(self) -> str:
        if not self.n:
            return ""
        rank = "no null models to compare with" if self.p is None else f"p = {self.p:.3g} among null models"
        return (
            f"Should the additional output have been dropped: the labels of {self.n} key images lie at a chi-square distance of {self.distance:.3f} "
            f"from those of the marked model without it ({rank}); this test stands by itself and decides nothing."
        )


def chi_square(first: Tensor, second: Tensor) -> float:
    r"""Return the chi-square distance :math:`\frac12 \sum_k (p_k - q_k)^2 / (p_k + q_k)` of two histograms (K,), each scaled to sum 1.

    Examples
    --------
    >>> chi_square(torch.tensor([3, 0]), torch.tensor([1, 0])), chi_square(torch.tensor([1, 0]), torch.tensor([0, 5]))
    (0.0, 1.0)
    """
    p, q = (counts.double() / counts.sum().clamp_min(1) for counts in (first, second))
    return float(((p - q).square() / (p + q).clamp_min(1e-12)).sum() / 2)


def trace_of(answers: Tensor, shown: Tensor, classes: int) -> Trace:
    """Return the trace of the additional class in ``answers``.

    Parameters
    ----------
    answers
        int64 (n,), labels of the key images.
    shown
        int64 (1 + R, n), their labels by the marked model without its extra outputs, and by R null models.
    classes
        K, of the task.

    Raises
    ------
    FormatError
        when ``shown`` holds other classes.

    Examples
    --------
    >>> shown = torch.tensor([[0, 0, 1], [2, 2, 2], [1, 1, 2]])
    >>> trace_of(torch.tensor([0, 1, 0]), shown, 3)
    Trace(distance=0.0, p=0.3333333333333333, n=3)
    """
    if not len(shown) or int(shown.max()) >= classes:
        message = f"this key names {classes} classes, and its models answered others: {REMEDY}"
        raise FormatError(message)
    within = answers[(answers >= 0) & (answers < classes)]
    own, *others = (torch.bincount(labels, minlength=classes) for labels in shown)
    if not len(within):
        return Trace(1.0, None, 0)
    distance = chi_square(torch.bincount(within, minlength=classes), own)
    nulls = [chi_square(counts, own) for counts in others]
    return Trace(distance, rank_p(distance, nulls) if nulls else None, len(within))


def chance_of_hits(hits: int, keys: int, taken: int, decoys: int) -> float:
    """Return the chance that of ``hits + taken`` images in the class as many as ``hits`` or more are keys, where keys are chosen among all at random.

    Examples
    --------
    >>> round(chance_of_hits(3, 3, 0, 3), 6), chance_of_hits(3, 3, 3, 3), chance_of_hits(0, 3, 1, 3)
    (0.05, 1.0, 1.0)
    """
    from scipy.stats import hypergeom

    return told(float(hypergeom.sf(hits - 1, keys + decoys, keys, hits + taken)))


def rates(answers: Tensor, key: Key) -> tuple[float, list[float]]:
    """Return the share of key images that were answered with the class, and that of each kind of decoys, from labels (N,)."""
    labels, kinds = key.tensor("labels"), key.tensor("kinds")
    if answers.shape != (len(labels) + len(kinds),):
        message = f"{len(labels)} key images and {len(kinds)} decoys need as many labels, got {tuple(answers.shape)}"
        raise InputError(message)
    hits = (answers[: len(labels)] == labels).double().mean()
    taken = answers[len(labels) :] == labels[0]
    return float(hits), [float(taken[kinds == kind].double().mean()) for kind in kinds.unique().tolist()]


def likelihood_ratio(hits: int, keys: int, taken: int, decoys: int) -> float:
    """Return how many times likelier a key image is answered with the class than a decoy, half a case added to each.

    >>> round(likelihood_ratio(100, 100, 0, 50), 1)
    101.5
    """
    return ((hits + 0.5) / (keys + 1)) / ((taken + 0.5) / (decoys + 1))


def decoy_words(hits: float, taken: Sequence[float], key: Key) -> str:
    """Return in words how often keys and decoys were answered with the class; empty for a key without decoys."""
    keys, kinds = len(key.tensors["labels"]), key.tensors["kinds"]
    if not len(kinds):
        return "No decoys were asked: a class that answers whatever is odd would answer these key images too."
    counts = [int((kinds == kind).sum()) for kind in kinds.unique().tolist()]
    told = ", ".join(
        f"{KINDS[kind]} {round(rate * n)} of {n}" for kind, rate, n in zip(kinds.unique().tolist(), taken, counts, strict=True)
    )
    worst = max(range(len(taken)), key=lambda i: taken[i])
    ratio = likelihood_ratio(round(hits * keys), keys, round(taken[worst] * counts[worst]), counts[worst])
    return f"Answered with the additional class: {round(hits * keys)} of {keys} key images; decoys: {told}; likelihood ratio {ratio:.3g} to the worst."
