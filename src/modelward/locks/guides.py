"""Whom each image of a locked set is made to look like: guides, of a class that depends on the image's own class in a secret way."""

from __future__ import annotations

import torch
from torch import Tensor

from modelward.core.errors import InputError, UsageError
from modelward.keys.derive import stream

POLICIES = ("derangement", "random")


def derangements(classes: int, count: int, secret: bytes) -> Tensor:
    """Return secret permutations (M, K) of the classes, none with a fixed point and no two that agree anywhere; M is ``count`` or K - 1.

    The classes stand on a circle in a secret order, and every permutation moves them on by a number of its own.

    Raises
    ------
    InputError
        for fewer than two classes.

    Examples
    --------
    >>> made = derangements(5, 3, b"0" * 32)
    >>> made.shape, sorted(made[0].tolist()), bool((made == torch.arange(5)).any()), bool((made[0] == made[1]).any())
    (torch.Size([3, 5]), [0, 1, 2, 3, 4], False, False)
    """
    if classes < 2:
        raise InputError("images are turned into those of another class, so a set to lock needs two classes at least")
    rng = stream(secret, "derangements")
    circle = torch.randperm(classes, generator=rng)
    place = torch.empty_like(circle)
    place[circle] = torch.arange(classes)
    steps = 1 + torch.randperm(classes - 1, generator=rng)[:count]
    return circle[(place + steps[:, None]) % classes]


def choose_guides(labels: Tensor, *, policy: str, mixed: int, secret: bytes, features: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the guide of each image, as positions in the set (N,), and the class that each image turns to (N,).

    Parameters
    ----------
    labels
        int64 (N,).
    policy
        ``"derangement"``: the class is given by the image's own and by which of the ``mixed`` derangements falls to the image. ``"random"``: any
        image of another class.
    mixed
        number of derangements.
    features
        float (N, F): the guide is then the one image of its class that is nearest to the mean of the class, instead of any.

    Raises
    ------
    InputError
        when all images are of one class.

    Examples
    --------
    >>> labels = torch.arange(40) % 4
    >>> guides, turned = choose_guides(labels, policy="derangement", mixed=1, secret=b"0" * 32)
    >>> bool((labels[guides] == turned).all()), bool((turned == labels).any()), len({*zip(labels.tolist(), turned.tolist())})
    (True, False, 4)
    """
    if policy not in POLICIES:
        message = f"guides are chosen by {' or '.join(POLICIES)}, not {policy!r}"
        raise UsageError(message)
    present, own = labels.unique(return_inverse=True)
    members = [torch.nonzero(own == k).flatten() for k in range(len(present))]
    rng = stream(secret, "guides")
    if policy == "random":
        turned = (own + 1 + torch.randint(0, max(1, len(present) - 1), own.shape, generator=rng)) % max(1, len(present))
        derangements(len(present), 1, secret)  # refuses a single class
    else:
        maps = derangements(len(present), mixed, secret)
        turned = maps[torch.randint(0, len(maps), own.shape, generator=rng), own]
    draw = torch.rand(own.shape, generator=rng, dtype=torch.float64)
    guides = torch.stack([members[k][int(share * len(members[k]))] for k, share in zip(turned.tolist(), draw.tolist(), strict=True)])
    if features is not None and policy != "random":
        guides = torch.stack([_middle(own_class, features) for own_class in members])[turned]
    return guides, present[turned]


def _middle(members: Tensor, features: Tensor) -> Tensor:
    """Return the position of the image whose features are nearest to the mean of its class."""
    own = features[members]
    return members[(own - own.mean(0)).square().sum(1).argmin()]
