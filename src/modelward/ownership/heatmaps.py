"""Relevance maps as a fingerprint: how they are made, scaled and compared, and which images tell models apart."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.errors import InputError
from modelward.core.guard import private_copy
from modelward.imaging.quality import ssim
from modelward.imaging.quantise import to_float
from modelward.models.parts import head, reinitialise
from modelward.models.relevance import Relevance

SMALL = 32  # pixels a side, up to which the window of SSIM is 7


def heat(model: nn.Module, pixels: Tensor, classes: Tensor, rules: Sequence[str], *, hardened: bool) -> Tensor:
    """Return relevance summed over channels, (R, N, H, W), one plane a rule, each map scaled.

    Parameters
    ----------
    pixels
        uint8 (N, C, H, W).
    classes
        the logits that are explained, int64 (N,).
    hardened
        explain the logit's lead over the mean logit, whatever its sign and size, in maps of Euclidean length 1; else the logit itself, in maps
        whose largest size is 1.
    """
    found, x = Relevance(model, contrast=hardened), to_float(pixels)
    start = "one" if hardened else "logit"
    maps = torch.stack([found.maps(x, classes, rule=rule, start=start).sum(1) for rule in rules])
    sizes = maps.flatten(2).norm(dim=2) if hardened else maps.flatten(2).abs().amax(2)
    return maps / sizes.clamp_min(1e-30)[..., None, None]


def structural(own: Tensor, other: Tensor) -> Tensor:
    """Return the SSIM (R, N) of maps (R, N, H, W) in [-1, 1], window 7 for maps of at most 32 x 32 and 11 for larger ones.

    >>> maps = torch.eye(12).view(1, 1, 12, 12)
    >>> structural(maps, maps).item(), structural(maps, maps.flip(3)).item() < 0.5
    (1.0, True)
    """
    window = 7 if max(own.shape[2:]) <= SMALL else 11
    return torch.stack([ssim(a[:, None], b[:, None], window=window) for a, b in zip(own, other, strict=True)])


def centred(own: Tensor, other: Tensor, null: Tensor) -> Tensor:
    r"""Return the cosine (R, N) of :math:`S_{own} - S_{null}` and :math:`S_{other} - S_{null}` for maps (R, N, H, W).

    What all models share, the image above all, is in the mean null map and counts for nothing.

    >>> own, null = torch.tensor([[[[1.0, 1.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    >>> centred(own, own, null).item(), centred(own, 2 * null, null).item()
    (1.0, 0.0)
    """
    return F.cosine_similarity((own - null).flatten(2).double(), (other - null).flatten(2).double(), dim=2, eps=1e-12)


def alike_among(suspect: Tensor, candidates: Tensor, *, paper: bool) -> Tensor:
    """Return how alike the maps (R, N, H, W) of a suspect and those of every candidate are, float64 (m + 1, R, N).

    ``paper``: the SSIM; else the cosine after the mean of all candidates is taken off.
    """
    other, every = suspect.half().float(), candidates.float()
    if paper:
        return torch.stack([structural(maps, other) for maps in every]).double()
    mean = every.double().mean(0) if len(every) > 1 else torch.zeros_like(other).double()
    return torch.stack([centred(maps.double(), other.double(), mean) for maps in every])


def balanced(classes: Tensor, worth: Tensor, count: int) -> Tensor:
    """Return the positions of ``count`` images, those of the largest ``worth`` first, the classes by turns.

    >>> balanced(torch.tensor([0, 0, 0, 1]), torch.tensor([0.1, 0.9, 0.5, 0.2]), 3).tolist()
    [1, 3, 2]
    """
    order = worth.argsort(descending=True, stable=True)
    turns = torch.empty_like(order)
    for name in classes.unique():
        mine = order[classes[order] == name]
        turns[mine] = torch.arange(len(mine))
    return order[turns[order].argsort(stable=True)][:count]


def _spread(nulls: Sequence[float]) -> tuple[float, float, int]:
    """Return mean, standard error of one more draw, and degrees of freedom."""
    values = torch.tensor(list(nulls), dtype=torch.float64)
    return float(values.mean()), max(float(values.std()), 1e-12) * (1 + 1 / len(values)) ** 0.5, len(values) - 1


def lower_tail(statistic: float, nulls: Sequence[float]) -> float:
    """Return the chance that one more null model scores at most ``statistic``, were their scores normal (Student's t).

    >>> round(lower_tail(0.5, [0.9, 1.0, 1.1]), 3)
    0.025
    """
    from scipy.special import stdtr

    mean, error, freedom = _spread(nulls)
    return float(stdtr(freedom, (statistic - mean) / error))


def lower_limit(nulls: Sequence[float], chance: float) -> float:
    """Return the largest statistic whose `lower_tail` is at most ``chance``.

    >>> nulls = [0.9, 1.0, 1.1, 0.95]
    >>> round(lower_tail(lower_limit(nulls, 1e-3), nulls), 6)
    0.001
    """
    from scipy.special import stdtrit

    mean, error, freedom = _spread(nulls)
    return mean + error * float(stdtrit(freedom, chance))


def headless(model: nn.Module, *, rng: torch.Generator) -> nn.Module:
    """Return a copy with a random last layer: maps that depend on the whole model must change."""
    copied = private_copy(model)
    with contextlib.suppress(InputError):  # no linear head: nothing to change, and the control then says so
        reinitialise(head(copied)[1], rng=rng)
    return copied
