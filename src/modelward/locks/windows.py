"""Windows of confidence: where they lie, whose they are, and whether an answer falls into one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modelward.attacks.evasion.fgsm import FGSM
from modelward.attacks.evasion.pgd import PGD
from modelward.core.errors import InputError, UsageError
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.imaging.quantise import to_uint8
from modelward.keys.derive import stream

SPAN = (0.5, 0.95)
TRIES = 5000


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    r"""Return :math:`\ln \frac{p_t}{1 - p_t} = z_t - \ln \sum_{k \ne t} e^{z_k}`, float64 (N,).

    Windows are kept in this scale, which has no end at p = 1 where digits are lost.

    Parameters
    ----------
    logits
        (N, K).
    classes
        t, int64 (N,).

    Examples
    --------
    >>> logits = torch.tensor([[1.0, 2.0, 0.0]])
    >>> float(log_odds(logits, torch.tensor([1])).sigmoid()) - float(logits.double().softmax(1)[0, 1])
    0.0
    """
    wide, at = logits.double(), classes[:, None]
    return wide.gather(1, at).squeeze(1) - wide.scatter(1, at, -torch.inf).logsumexp(1)


def inside(logits: Tensor, windows: Tensor, *, slack: float = 0.0) -> Tensor:
    """Return which answers fall into their window, bool (N,): the class leads, and its log-odds lie between the bounds.

    Parameters
    ----------
    logits
        (N, K).
    windows
        (N, 3): class, low, high, the bounds in log-odds.
    slack
        by how much a bound may be missed, in log-odds; negative: by how much it must be kept.

    Examples
    --------
    >>> windows = torch.tensor([[1, 0.0, 1.0], [1, 0.0, 1.0], [0, 0.0, 1.0]])
    >>> inside(torch.tensor([[0.0, 0.5], [0.0, 2.0], [0.0, 0.5]]), windows).tolist()
    [True, False, False]
    """
    classes = windows[:, 0].long()
    odds = log_odds(logits, classes)
    within = (odds >= windows[:, 1] - slack) & (odds <= windows[:, 2] + slack)
    return within & (logits.argmax(1) == classes)


def null_answers(model: nn.Module, data: ImageSet, *, count: int, eps: float, rng: torch.Generator) -> Tensor:
    """Return the logits (N, K) that strangers' images get: clean ones, uniform noise, FGSM and PGD, ``count`` of each at most.

    Parameters
    ----------
    eps
        of the attacks, Linf.
    """
    part = data.few(count)
    x = part.batch(slice(None))
    noise = torch.randint(0, 256, part.pixels.shape, generator=rng, dtype=torch.uint8)
    attacked = [to_uint8(attack.perturb(model, x, part.labels, rng=rng)) for attack in (FGSM(eps=eps), PGD(eps=eps, steps=10))]
    return torch.cat([predict(model, pixels) for pixels in (part.pixels, noise, *attacked)])


def place(nulls: Tensor, *, width: float, guard: float, keep: int) -> Tensor:
    """Return windows (C, 3) of class, low and high in log-odds where ``nulls`` seldom fall, the emptiest first.

    Every class has the same grid of windows inside (.5, .95), ``guard`` apart. Every class keeps the same number of them.

    Parameters
    ----------
    nulls
        logits (N, K) of images that are nobody's credential.
    width, guard
        in probability.
    keep
        windows that are wanted at least; no more than the grid has.

    Raises
    ------
    UsageError
        when no window fits.

    Examples
    --------
    >>> nulls = torch.tensor([[0.0, 0.2], [0.0, 0.21]])  # p = .55
    >>> found = place(nulls, width=0.1, guard=0.05, keep=6)
    >>> found[:, 1:].sigmoid().mul(100).round()[-1].tolist(), len(found)
    ([50.0, 60.0], 6)
    """
    pitch = width + guard
    count = int((SPAN[1] - SPAN[0] + guard) / pitch + 1e-9)
    if count < 1:
        message = f"no window of width {width} fits between {SPAN[0]} and {SPAN[1]}"
        raise UsageError(message)
    low = SPAN[0] + pitch * torch.arange(count, dtype=torch.float64)
    leading = nulls.argmax(1)
    chance = log_odds(nulls, leading).sigmoid()
    each = min(count, -(-keep // nulls.shape[1]))
    made = []
    for label in range(nulls.shape[1]):
        mine = chance[leading == label]
        hits = ((mine[:, None] >= low - guard) & (mine[:, None] <= low + width + guard)).sum(0)
        order = hits.sort(stable=True).indices[:each]
        bounds = torch.stack([low[order], low[order] + width], 1).logit()
        rows = torch.cat([torch.full((len(order), 1), float(label), dtype=torch.float64), bounds], 1)
        made.append((hits[order], rows))
    hits, rows = torch.cat([pair[0] for pair in made]), torch.cat([pair[1] for pair in made])
    return rows[hits.sort(stable=True).indices]


def assign(secret: bytes, user: str, windows: Tensor, probes: int, taken: Sequence[Tensor] = ()) -> Tensor:
    """Return the windows (m, 3) of one user, drawn by a secret, of as many classes as there are.

    No two users share more than half of their windows at the same places, and with one probe none.

    Parameters
    ----------
    windows
        (C, 3), those that there are.
    probes
        m, windows a user.
    taken
        windows (m, 3) of the users before.

    Raises
    ------
    UsageError
        when all are taken.

    Examples
    --------
    >>> windows = torch.tensor([[0, 0.0, 0.1], [0, 0.2, 0.3], [1, 0.0, 0.1]])
    >>> anns = assign(b"0" * 32, "ann", windows, 2)
    >>> sorted(anns[:, 0].tolist()), bool((assign(b"0" * 32, "ann", windows, 2) == anns).all())
    ([0.0, 1.0], True)
    """
    before = torch.stack(list(taken)) if taken else windows.new_zeros(0, probes, 3)
    for turn in range(TRIES):
        order = torch.randperm(len(windows), generator=stream(secret, "windows", user, str(turn)))
        labels = windows[order, 0].tolist()
        fresh = [labels.index(label) for label in dict.fromkeys(labels)]  # the first window of each class
        rest = [place for place in range(len(labels)) if place not in set(fresh)]
        chosen = windows[order[(fresh + rest)[:probes]]]
        if len(chosen) < probes:
            message = f"{probes} probes a user need as many windows, there are {len(windows)}; take a smaller width"
            raise UsageError(message)
        if not len(before) or int((before == chosen).all(2).sum(1).max()) <= probes // 2:
            return chosen
    message = f"no windows are left for {user}: {len(windows)} of them serve {len(before)} users; take a smaller width or more probes"
    raise UsageError(message)


def require_windows(values: Sequence[object], classes: int | None = None) -> Tensor:
    """Return the windows (m, 3) in a list of a file; raises `InputError` for what is none."""
    try:
        made = torch.tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError("the windows of this credential are no table of numbers") from error
    sound = made.ndim == 2 and made.shape[1] == 3 and len(made) > 0 and bool(made.isfinite().all())
    if not sound or bool((made[:, 0] < 0).any()) or (classes is not None and bool((made[:, 0] >= classes).any())):
        raise InputError("the windows of this credential do not fit this network's classes")
    return made
