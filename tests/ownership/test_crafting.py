"""Descent of a batch of images: the ball, independence of neighbours, and torch's own Adam as the anchor."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelward.core.rng import generator
from modelward.ownership.crafting import descend

GOALS = torch.rand(16, 3, 2, 2, generator=generator(7))


def towards(x: Tensor, which: Tensor) -> Tensor:
    """Return the squared distance to a goal of each image."""
    return (x - GOALS[which]).square().flatten(1).sum(1)


def starts(count: int, seed: int = 0) -> Tensor:
    """Return random images."""
    return torch.rand(count, 3, 2, 2, generator=generator(seed))


@settings(deadline=None, max_examples=25)
@given(count=st.integers(0, 16), steps=st.integers(0, 12), lr=st.floats(1e-3, 0.5), radius=st.floats(0.0, 1.0))
def test_images_stay_in_the_ball_and_in_range(count: int, steps: int, lr: float, radius: float) -> None:
    x = starts(count)
    before = x.clone()
    made = descend(towards, x, steps=steps, lr=lr, radius=radius)
    assert torch.equal(x, before)
    assert made.shape == x.shape
    assert bool(((made >= 0) & (made <= 1)).all())
    assert bool(((made - x).abs() <= radius + 1e-6).all())
    assert steps or torch.equal(made, x)


def test_one_image_moves_as_torch_moves_it() -> None:
    x = starts(1) * 0.2 + 0.4  # away from the edges: torch knows no box
    leaf = x.clone().requires_grad_()
    optimizer = torch.optim.Adam([leaf], lr=0.01)
    for _ in range(10):
        optimizer.zero_grad()
        towards(leaf, torch.tensor([0])).sum().backward()
        optimizer.step()
    assert torch.allclose(descend(towards, x, steps=10, lr=0.01), leaf.detach(), atol=1e-6)


def test_an_image_does_not_feel_its_neighbours() -> None:
    def until_near(x: Tensor, which: Tensor) -> Tensor:
        return (towards(x, which) - 0.05).relu()

    x = starts(8)
    together = descend(until_near, x, steps=40, lr=0.02)
    for number in range(8):
        alone = descend(lambda z, _, n=number: until_near(z, torch.tensor([n])), x[number : number + 1], steps=40, lr=0.02)
        assert torch.allclose(together[number], alone[0], atol=1e-6)
    assert bool((until_near(together, torch.arange(8)) == 0).any())


def test_what_is_done_is_not_asked_again() -> None:
    asked: list[int] = []

    def loss(x: Tensor, which: Tensor) -> Tensor:
        asked.append(len(which))
        return (x.flatten(1).sum(1) - 6 * (which % 2)).relu() * (which % 2)

    x = starts(6)
    made = descend(loss, x, steps=500, lr=0.05)
    assert torch.equal(made[::2], x[::2])
    assert asked[:2] == [6, asked[1]]
    assert asked[1] <= 3
    assert asked == sorted(asked, reverse=True)
    assert len(asked) < 100


def test_a_loss_that_is_not_finite_does_not_end_in_pixels_outside() -> None:
    made = descend(lambda z, _: z.flatten(1).sum(1) * 1e30, starts(2), steps=3, lr=0.1)
    assert bool(torch.isfinite(made).all())
    with pytest.raises(RuntimeError, match="grad"):
        descend(lambda z, _: torch.ones(len(z)), starts(2), steps=1, lr=0.1)
