"""Two classes that differ by a bright half, small enough to train on in a blink."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from modelward.core.images import ImageSet
from modelward.core.rng import generator

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))


def halves(count: int, seed: int, *, noise: int = 120) -> ImageSet:
    rng = generator(seed)
    labels = torch.randint(0, 2, (count,), generator=rng)
    pixels = torch.randint(0, 256 - noise, (count, 1, 8, 8), generator=rng)
    for label, side in enumerate((slice(0, 4), slice(4, 8))):
        pixels[labels == label, :, :, side] += noise
    return ImageSet(pixels.to(torch.uint8), labels, ("left", "right"), "halves")


@pytest.fixture(scope="session")
def train() -> ImageSet:
    return halves(96, 0)


@pytest.fixture(scope="session")
def test() -> ImageSet:
    return halves(64, 1)
