"""The size of the test: owner, siblings and suspect drawn anew ten thousand times, through `protect` and `judge`, on nets small enough for that."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from modelward.core.deciding import DRAWS
from modelward.core.errors import InputError
from modelward.core.families import OwnershipMethod
from modelward.core.images import ImageSet
from modelward.core.rng import derive_seed, generator
from modelward.core.siblings import Siblings
from modelward.core.suspect import Access, Suspect
from modelward.core.verdict import ALPHA
from modelward.ownership import CAE, SAC, SACJC, InFIP, IPGuard, UnitMatch, WeightDistance

SHAPE, CLASSES, HIDDEN, IMAGES = (1, 8, 8), 4, 12, 100
CASES: dict[str, tuple[OwnershipMethod, tuple[Access, ...], int]] = {
    "sac-jc": (SACJC(count=40), (Access.PROBABILITIES, Access.LABEL), 10_000),
    "sac": (SAC(count=40), (Access.PROBABILITIES, Access.LABEL), 10_000),
    "weight-distance": (WeightDistance(), (Access.WEIGHTS,), 10_000),
    "unit-match": (UnitMatch(), (Access.WEIGHTS,), 10_000),
    "ipguard": (IPGuard(count=50, steps=150, k=0.05, lr=0.05, pool=2, target="random"), (Access.LABEL,), 500),
    "cae": (CAE(count=50, surrogates=2, epochs=6, steps=80, lr=0.05), (Access.LABEL,), 500),
    "infip": (InFIP(count=50), (Access.WEIGHTS,), 500),
}
"""Method, ways to ask, and repetitions; those that craft images or draw maps are repeated less often."""


def net(weights: list[Tensor]) -> nn.Module:
    """Return a net of one hidden layer with these weights."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(SHAPE), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(weights[0])
        model[1].bias.copy_(-weights[0].sum(1) / 2)  # centred images: without that one class gets them all
        model[3].weight.copy_(weights[1])
    return model.eval()


def _drawn(shared: list[Tensor], rng: torch.Generator) -> list[Tensor]:
    """Return weights of a net that shares a part with all others of its family."""
    return [part + torch.randn(part.shape, generator=rng) / part.shape[1] ** 0.5 for part in shared]


SUSPECTS: dict[str, Callable[[list[Tensor], torch.Generator], list[Tensor]]] = {
    "independent": _drawn,
    "scaled down": lambda shared, rng: [0.1 * part for part in _drawn(shared, rng)],
    "over-confident": lambda shared, rng: [8 * part for part in _drawn(shared, rng)],
    "constant": lambda shared, rng: [_drawn(shared, rng)[0], torch.zeros_like(shared[1])],
    "the shared part": lambda shared, _: shared,
    "nothing shared": lambda shared, rng: _drawn([torch.zeros_like(part) for part in shared], rng),
}
CONTINUOUS = ("independent", "scaled down", "over-confident", "nothing shared")


def once(method: OwnershipMethod, levels: tuple[Access, ...], m: int, seed: int, kind: str) -> dict[str, float]:
    """Return the p-values of one suspect of one owner by the way of asking."""
    rng = generator(seed)
    pixels = torch.randint(0, 256, (IMAGES, *SHAPE), generator=rng, dtype=torch.uint8)
    images = ImageSet(pixels, torch.randint(0, CLASSES, (IMAGES,), generator=rng), tuple("abcd"), "noise")
    shared = [torch.randn(HIDDEN, math.prod(SHAPE), generator=rng) / 8, torch.randn(CLASSES, HIDDEN, generator=rng) / HIDDEN**0.5]
    owner, *others = (net(_drawn(shared, rng)) for _ in range(m + 3))
    family = Siblings(models=tuple(others[:m]), start="none" if method.card.name != "weight-distance" else "base", tuning=tuple(others[m:]))
    _, key = method.protect(owner, images, siblings=family, rng=generator(derive_seed(seed, "enrol")))
    suspect = net(SUSPECTS[kind](shared, rng))
    told = {access: method.verify(Suspect.of_model(suspect, access=access), key).p_value for access in levels}
    return {access.value: 1.0 if p is None else p for access, p in told.items()}


def simulate(name: str, m: int, *, first: int = 0, repetitions: int) -> dict[str, Any]:
    """Return how often p was at most .05, by kind of suspect (they take turns) and way of asking; an owner whose key could not be made is counted beside."""
    assert m in DRAWS
    method, levels, _ = CASES[name]
    drawn, claimed, refused = dict[str, int](), dict[str, int](), 0
    kinds = tuple(SUSPECTS)
    for number in range(first, first + repetitions):
        kind = kinds[number % len(kinds)]
        try:
            told = once(method, levels, m, derive_seed("simulation", name, m, number), kind)
        except InputError:
            refused += 1
            continue
        for access, p in told.items():
            what = f"{kind}, {access}"
            drawn[what] = drawn.get(what, 0) + 1
            claimed[what] = claimed.get(what, 0) + (p <= ALPHA + 1e-12)
    return {"method": name, "m": m, "refused": refused, "drawn": drawn, "claimed": claimed}
