from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from modelward.core.rng import derive_seed, forked, generator, spawn

seeds = st.integers(0, 2**63 - 1)
coordinates = st.lists(st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False), max_size=4)


@given(seeds)
def test_a_fork_restores_the_global_state(seed: int) -> None:
    before = torch.get_rng_state()
    with forked(generator(seed)):
        nn.Linear(3, 2)
        torch.rand(5)
    assert torch.equal(torch.get_rng_state(), before)


@given(seeds)
def test_a_fork_draws_from_its_generator_alone(seed: int) -> None:
    drawn = []
    for noise in (0, 7):
        torch.rand(noise)  # whatever the global generator did before
        with forked(generator(seed)):
            drawn.append(torch.rand(4))
    assert torch.equal(*drawn)


def test_a_fork_restores_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="size"), forked(generator(0)):
        torch.rand(3) @ torch.rand(2)
    assert torch.equal(torch.get_rng_state(), before)


def test_two_forks_of_one_generator_differ() -> None:
    rng, drawn = generator(0), []
    for _ in range(2):
        with forked(rng):
            drawn.append(torch.rand(4))
    assert not torch.equal(*drawn)


@given(coordinates, coordinates)
def test_seeds_depend_on_the_coordinates_alone(one: list[object], other: list[object]) -> None:
    assert 0 <= derive_seed(*one) < 2**63
    assert derive_seed(*one) == derive_seed(*one)
    assert one == other or derive_seed(*one) != derive_seed(*other)


@given(seeds)
def test_generators_of_one_seed_agree(seed: int) -> None:
    one, other = generator(seed), generator(seed)
    spawned = spawn(one)
    assert spawned == spawn(other)
    assert 0 <= spawned < 2**63
    assert spawn(one) != spawned
    spawn(other)
    assert torch.equal(torch.rand(3, generator=one), torch.rand(3, generator=other))
