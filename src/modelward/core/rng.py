"""Randomness is an argument: generators, seeds from coordinates, and the one allowed fork of the global generator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from modelward.core.canonical import digest_of


def derive_seed(*coordinates: object) -> int:
    """Return a seed in [0, 2**63) that depends on the coordinates alone, never on order of execution.

    >>> derive_seed("cell", 1) == derive_seed("cell", 1) != derive_seed("cell", 2)
    True
    """
    return int(digest_of(list(coordinates))[:16], 16) >> 1


def generator(seed: int) -> torch.Generator:
    """Return a CPU generator seeded with ``seed``."""
    made = torch.Generator()
    made.manual_seed(seed)
    return made


def spawn(rng: torch.Generator) -> int:
    """Draw one 63-bit seed from ``rng``, to hand to an independent part."""
    return int(torch.randint(0, 2**63 - 1, (), generator=rng).item())


@contextlib.contextmanager
def forked(rng: torch.Generator) -> Iterator[None]:
    """Run a block that draws from torch's global generator (initialisers, dropout) on a seed drawn from ``rng``.

    The global state is restored afterwards.
    """
    seed = spawn(rng)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
