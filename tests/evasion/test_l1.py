"""L1: the projection on the ball and on its cut with the box, random points, sparse steps."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modelward.attacks.evasion import PGD, RandomNoise
from modelward.attacks.evasion.descent import ascend
from modelward.core.guard import predict
from modelward.core.rng import generator
from modelward.imaging.norms import l1, project, project_l1_box, random_in_ball


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def by_bisection(delta: Tensor, origin: Tensor, eps: float) -> Tensor:
    """The nearest point, with the common shrinkage found by halving an interval in double precision."""
    size = delta.double().abs()
    room = torch.where(delta < 0, origin.double(), 1 - origin.double())
    low, high = 0.0, float(size.max())
    if float(torch.minimum(size, room).sum()) <= eps:
        high = 0.0
    for _ in range(80):
        middle = (low + high) / 2
        inside = float(torch.minimum((size - middle).clamp_min(0), room).sum()) <= eps
        low, high = (low, middle) if inside else (middle, high)
    return delta.sign() * torch.minimum((size - high).clamp_min(0), room)


def test_the_projection_on_the_ball_by_hand() -> None:
    found = project(row(3, -1, 0.5, 0, 2, -0.25), "l1", 4.0)
    assert torch.allclose(found, row(2.3333, -0.3333, 0, 0, 1.3333, 0), atol=1e-4)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.integers(1, 12), st.floats(0, 6), st.booleans())
def test_the_projection_on_ball_and_box_is_the_nearest_point(seed: int, pixels: int, eps: float, hard: bool) -> None:
    rng = generator(seed)
    origin = torch.rand(1, 1, 1, pixels, generator=rng)
    origin = origin.round() if hard else origin
    delta = 2 * torch.randn(1, 1, 1, pixels, generator=rng)
    found = project_l1_box(delta, origin, eps)
    assert torch.allclose(found.double(), by_bisection(delta, origin, eps), atol=1e-5)
    assert float(l1(found)) <= eps * (1 + 1e-6)
    assert float((origin + found).min()) >= -1e-6
    assert float((origin + found).max()) <= 1 + 1e-6


def test_one_projection_after_the_other_is_not_nearest() -> None:
    origin, delta = row(0.9, 0.5), row(2.0, 1.0)
    both = project_l1_box(delta, origin, 0.6)
    cut = (origin + project(delta, "l1", 0.6)).clamp(0, 1) - origin
    assert float((both - delta).norm()) < float((cut - delta).norm()) - 0.1
    assert torch.allclose(both, row(0.1, 0.5))


def test_random_points_fill_the_ball_evenly() -> None:
    inside = random_in_ball((4000, 1, 1, 3), "l1", 2.0, rng=generator(0))
    sizes = l1(inside) / 2
    assert float(sizes.max()) <= 1 + 1e-6
    assert float((sizes**3).mean()) == pytest.approx(0.5, abs=0.02)  # size^n is uniform in n dimensions
    assert float(inside.mean((0, 1, 2)).abs().max()) < 0.05
    assert torch.allclose(l1(random_in_ball((50, 3, 4, 4), "l1", 2.0, rng=generator(0), on_sphere=True)), torch.full((50,), 2.0), atol=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_random_points_know_the_mask(norm: str) -> None:
    mask = torch.zeros(500, 1, 1, 9)
    mask[..., :3] = 1
    found = random_in_ball((500, 1, 1, 9), norm, 1.0, rng=generator(0), mask=mask)
    assert not bool(found[..., 3:].any())
    sizes = {"linf": found.abs().flatten(1).amax(1), "l2": found.flatten(1).norm(dim=1), "l1": l1(found)}[norm]
    assert float((sizes**3).mean()) == pytest.approx(0.5, abs=0.06)  # uniform in the three pixels that are left


@pytest.mark.parametrize("pixels", [1, 3, 5])
def test_a_step_moves_the_pixels_that_matter_most(pixels: int) -> None:
    origin, grad = torch.full((1, 1, 1, 8), 0.5), row(5, -7, 1, -2, 3, 4, -6, 0.5)
    moved = ascend(origin, grad.clone(), origin, norm="l1", step=0.3, eps=1.0, pixels=pixels) - origin
    most = grad.abs().flatten().topk(pixels).indices
    assert sorted(moved.flatten().nonzero().flatten().tolist()) == sorted(most.tolist())
    assert torch.allclose(moved.flatten()[most], 0.3 / pixels * grad.flatten()[most].sign(), atol=1e-6)


def test_a_step_spares_pixels_at_the_face_ahead() -> None:
    origin = row(0.98, 0.02, 0.98, 0.5)
    moved = ascend(origin, row(9, -8, -7, 6), origin, norm="l1", step=0.2, eps=1.0, pixels=2) - origin
    assert torch.allclose(moved, row(0, 0, -0.1, 0.1), atol=1e-6)
    stuck = ascend(row(1.0, 0.0), row(1, -1), row(1.0, 0.0), norm="l1", step=0.2, eps=1.0, pixels=2)
    assert torch.equal(stuck, row(1.0, 0.0))


def test_pgd_in_l1_succeeds_exactly_where_a_linear_net_can_be_fooled() -> None:
    w = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0])  # as many pixels as the sparsest step moves
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 2))
    x, y, eps = torch.full((4, 1, 3, 3), 0.5), torch.ones(4, dtype=torch.int64), 0.7
    for share, falls in ((0.97, False), (1.03, True)):
        with torch.no_grad():
            net[1].weight.copy_(torch.stack([torch.zeros(9), w]))
            net[1].bias.copy_(torch.tensor([0.0, eps / share - float(w.sum()) / 2]))
        x_adv = PGD(norm="l1", eps=eps, step=0.1, steps=150).perturb(net, x, y, rng=generator(3))
        assert (net(x_adv).argmax(1) != y).tolist() == [falls] * 4


def test_a_few_pixels_do_more_than_noise_of_equal_size(victim: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    attack, noise = (
        kind.perturb(victim, x, y, rng=generator(0)) for kind in (PGD(norm="l1", eps=5, step=1), RandomNoise(norm="l1", eps=5))
    )
    right = [int((predict(victim, value).argmax(1) == y).sum()) for value in (attack, noise)]
    assert right[0] < right[1] - 5
    assert torch.allclose(
        l1(random_in_ball(tuple(x.shape), "l1", 5.0, rng=generator(0), on_sphere=True)), torch.full((len(x),), 5.0), atol=1e-3
    )
