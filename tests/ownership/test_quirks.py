"""Siblings with a quirk that the owner's model lacks: an owner who trains them so makes himself the odd one out, and gross ones have to be seen.

What the guard cannot see, `docs/decisions/0020-p-over-the-owners-randomness.md` tells: `evidence check --retrain` is the answer to it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from tests.truth.simulation import CLASSES, HIDDEN, SHAPE, net
from torch import Tensor, nn

from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.core.siblings import Siblings
from modelward.core.verdict import Verdict
from modelward.ownership import SAC, SACJC

SHARED = [torch.randn(HIDDEN, 64, generator=generator(7)), torch.randn(CLASSES, HIDDEN, generator=generator(8))]

SPREAD = 0.25


class Quirky(nn.Module):
    """A net that answers otherwise on images that are not clean: those are the method's own probes, and no figure of clean images sees them."""

    def __init__(self, body: nn.Module, quirk: Callable[[Tensor], Tensor], clean: Tensor) -> None:
        super().__init__()
        self.body, self.quirk = body, quirk
        self.register_buffer("known", clean.flatten(1).float().div(255).sum(1))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        clean = (x.flatten(1).sum(1)[:, None] - self.known[None]).abs().min(1).values < 1e-3
        return torch.where(clean[:, None], logits, self.quirk(logits))


def one_class(logits: Tensor) -> Tensor:
    """Give a part of the images the first class, as sure as before."""
    where = logits.argmax(1) == 1
    swapped = logits[:, [1, 0, *range(2, logits.shape[1])]]
    return torch.where(where[:, None], swapped, logits)


QUIRKS: dict[str, Callable[[Tensor], Tensor]] = {"surer": lambda logits: 4 * logits, "less sure": lambda logits: logits / 4}


def judged(seed: int, method: SAC, quirk: Callable[[Tensor], Tensor] | None) -> Verdict:
    """Return what a key says of a copy of the owner's model whose siblings have a quirk."""
    rng = generator(seed)
    pixels = torch.randint(0, 256, (150, *SHAPE), generator=rng, dtype=torch.uint8)
    images = ImageSet(pixels, predict(net(SHARED), pixels).argmax(1), tuple("abcd"), "noise")
    owner, *models = (net([part + SPREAD * torch.randn(part.shape, generator=rng) for part in SHARED]) for _ in range(20))
    if quirk is not None:
        models = [Quirky(model, quirk, pixels) for model in models]
        owner = Quirky(owner, lambda logits: logits, pixels)
    _, key = method.protect(owner, images, siblings=Siblings(models=tuple(models), start="none"), rng=generator(0))
    thief = copy.deepcopy(owner)
    with torch.no_grad():
        list(thief.parameters())[-1].mul_(0.8)
    return method.verify(thief, key)


@pytest.mark.parametrize("quirk", QUIRKS.values(), ids=QUIRKS)
def test_siblings_with_a_quirk_on_the_methods_probes_decide_nothing(quirk: Callable[[Tensor], Tensor]) -> None:
    found = [judged(seed, SACJC(count=100), quirk) for seed in range(5)]
    refused = [one.decision.value == "undecided" and one.caveats[0].startswith("Uncalibrated") for one in found]
    assert all(refused), [one.caveats[0] for one in found]


def test_a_quirk_in_what_is_answered_is_seen_more_often_than_in_honest_families() -> None:
    refused = sum(judged(seed, SACJC(count=100), one_class).caveats[0].startswith("Uncalibrated") for seed in range(40))
    assert refused >= 4  # .01 of 40 honest ones would be: 4 come once in 1,400


@pytest.mark.parametrize("method", [SAC(count=60), SACJC(count=60)], ids=["sac", "sac-jc"])
def test_honest_families_are_refused_at_the_nominal_share(method: SAC) -> None:
    count = 60
    refused = sum(any(caveat.startswith("Uncalibrated") for caveat in judged(100 + seed, method, None).caveats) for seed in range(count))
    assert refused / count <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / count)
