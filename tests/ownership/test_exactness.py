"""The p-value of a fingerprint holds for any suspect: owner, siblings and suspect drawn anew many times, through `protect` and `judge`."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from modelward.core.deciding import DRAWS
from modelward.core.families import OwnershipMethod
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.core.siblings import Siblings
from modelward.core.suspect import Access, Suspect
from modelward.ownership import SAC, SACJC, WeightDistance

SHAPE, CLASSES, ROUNDS = (1, 4, 4), 4, 100
KINDS = ("independent", "over-confident", "the shared part")


def linear(weight: Tensor) -> nn.Module:
    """Return a linear net with these weights (K, 16)."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES, bias=False))
    with torch.no_grad():
        net[1].weight.copy_(weight)
    return net


def drawn(kind: str, shared: Tensor, rng: torch.Generator) -> nn.Module:
    """Return a suspect that was made without the owner's private draw."""
    own = torch.randn(shared.shape, generator=rng)
    return linear({"independent": shared + own, "over-confident": 50 * (shared + own), "the shared part": shared}[kind])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "access"),
    [
        (SACJC(count=40), "probabilities"), (SACJC(count=40), "label"), (SAC(count=40), "probabilities"), (SAC(variant="paper", count=40), "weights"),
        (WeightDistance(), "weights"),
    ],
    ids=["sac-jc", "sac-jc by labels", "sac", "sac as the paper has it", "weight-distance"],
)  # fmt: skip
def test_a_stranger_is_claimed_in_one_case_of_twenty(method: OwnershipMethod, access: str, kind: str) -> None:
    rng, found = generator(5), 0
    for number in range(ROUNDS):
        pixels = torch.randint(0, 256, (60, *SHAPE), generator=rng, dtype=torch.uint8)
        images = ImageSet(pixels, torch.randint(0, CLASSES, (60,), generator=rng), tuple("abcd"), "noise")
        shared = 2 * torch.randn(CLASSES, 16, generator=rng)
        owner, *siblings = (linear(shared + torch.randn(shared.shape, generator=rng)) for _ in range(DRAWS[0] + 1))
        _, key = method.protect(owner, images, siblings=Siblings(models=tuple(siblings), start="none"), rng=generator(number))
        p = method.verify(Suspect.of_model(drawn(kind, shared, rng), access=Access(access)), key).p_value
        assert p is not None
        found += p <= 0.05 + 1e-12
    assert found / ROUNDS <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / ROUNDS)
