"""The soft nearest neighbour loss: clusters, gradients, a slow reference; and training that maximises it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modelward.core.errors import InputError, UsageError
from modelward.core.rng import generator
from modelward.marking.entangle import DISTANCES, Entanglement, distances, representations, soft_nearest_neighbours
from modelward.marking.entangling import Entangling, entangle, steadied
from modelward.models import build


def clusters(gap: float, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return 20 + 20 points of two normal clusters that lie ``gap`` apart, and their groups."""
    points = torch.randn(40, 3, generator=generator(seed))
    points[20:, 0] += gap
    return points, (torch.arange(40) >= 20).long()


def slow(x: Tensor, groups: Tensor, inverse: float, distance: str) -> float:
    """Return the loss as its formula is written."""
    terms = []
    for i in range(len(x)):
        own = everyone = 0.0
        for j in range(len(x)):
            if i == j:
                continue
            d = 1 - torch.cosine_similarity(x[i], x[j], dim=0) if distance == "cosine" else (x[i] - x[j]).square().sum()
            everyone += math.exp(-float(d) * inverse)
            own += math.exp(-float(d) * inverse) if groups[i] == groups[j] else 0.0
        if own:
            terms.append(-math.log(own / everyone))
    return sum(terms) / len(terms)


def test_identical_clusters_lose_the_chance_of_a_neighbour_and_separated_ones_nothing() -> None:
    points = torch.randn(20, 3, generator=generator(0))
    groups = torch.arange(40) // 20
    same = soft_nearest_neighbours(points.repeat(2, 1), groups, 1e-4, "euclidean")
    assert float(same) == pytest.approx(math.log(39 / 19), abs=1e-3)  # of 39 others 19 are of the own group
    apart, labels = clusters(100.0)
    assert float(soft_nearest_neighbours(apart, labels, 1.0, "euclidean")) == pytest.approx(0, abs=1e-6)


def test_it_falls_as_the_groups_part() -> None:
    losses = [float(soft_nearest_neighbours(*clusters(gap), 0.2, "euclidean")) for gap in (0.0, 1.0, 3.0, 9.0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > 10 * losses[3]


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), count=st.integers(3, 9), inverse=st.floats(0.01, 5), distance=st.sampled_from(DISTANCES))
def test_it_is_its_formula(seed: int, count: int, inverse: float, distance: str) -> None:
    rng = generator(seed)
    x = torch.randn(count, 4, generator=rng)
    groups = torch.cat([torch.tensor([0, 0]), torch.randint(0, 3, (count - 2,), generator=rng)])
    assert float(soft_nearest_neighbours(x, groups, inverse, distance)) == pytest.approx(
        slow(x, groups, inverse, distance), rel=1e-3, abs=1e-4
    )


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_are_those_of_small_differences(distance: str) -> None:
    x = torch.randn(6, 3, generator=generator(1), dtype=torch.float64).requires_grad_()
    inverse = torch.tensor(0.7, dtype=torch.float64).requires_grad_()
    groups = torch.tensor([0, 0, 0, 1, 1, 2])  # the last is alone: it has no term, and no gradient that is no number
    assert torch.autograd.gradcheck(lambda a, b: soft_nearest_neighbours(a, groups, b, distance), (x, inverse))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="two images of one group"):
        soft_nearest_neighbours(torch.rand(3, 2), torch.arange(3), 1.0)
    with pytest.raises(UsageError, match="cosine or euclidean"):
        distances(torch.rand(3, 2), "manhattan")
    with pytest.raises(InputError, match="no activation function"):
        representations(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(2, 1, 2, 2), 3)


@pytest.mark.parametrize(("arch", "widths"), [("mlp:width=7", [7, 7]), ("lenet5", [1600, 120, 84]), ("resnet8", [3])])
def test_representations_are_the_last_before_the_logits(arch: str, widths: list[int]) -> None:
    net = build(arch, classes=4, channels=1, size=(28, 28), rng=generator(0)).eval()
    x = torch.rand(5, 1, 28, 28, generator=generator(1))
    logits, found = representations(net, x, 3)
    assert torch.equal(logits, net(x))
    if arch == "resnet8":  # whose blocks call their activations as functions
        assert len(found) == 3
    else:
        assert [layer[0].numel() for layer in found] == widths
    assert all(bool((layer >= 0).all()) for layer in found)
    assert not any(module._forward_hooks for module in net.modules())


def test_temperatures_step_down_the_loss_and_stay_positive() -> None:
    x, groups = clusters(1.0)
    loss = Entanglement(temperature=5.0, distance="euclidean", lr=50.0)
    before = float(loss([x], groups))
    for _ in range(20):
        loss.cool([x], groups)
    assert loss.inverse is not None
    assert float(loss([x], groups)) < before
    wild = Entanglement(temperature=5.0, distance="euclidean", lr=1e9)
    for _ in range(5):
        wild.cool([x], groups)
        assert wild.inverse is not None
        assert bool((wild.inverse > 0).all())
        assert math.isfinite(float(wild([x], groups)))
    still = Entanglement(lr=0.0)
    still.cool([x], groups)
    assert still.inverse is None


def test_training_mixes_the_groups_and_without_kappa_it_does_not(make_blobs, train_net) -> None:
    images = make_blobs(200, 3)
    marked = images.pixels[images.labels == 0].clone()
    marked[:, :, :3, :3] = 255
    targets = images.pixels[images.labels == 1]
    mixed = {}
    for kappa in (0.0, 8.0):
        net = train_net("mlp:width=24", images, 0, epochs=2)
        how = Entangling(epochs=6, batch=32, lr=0.003, ratio=2, kappa=kappa, steady=True)
        entangle(net, images, marked, targets, 1, how, Entanglement(temperature=0.2, lr=0.0), rng=generator(4))
        both = torch.cat([marked[:30], targets[:30]]).float().div(255)
        _, layers = representations(net, both, 1)
        mixed[kappa] = float(soft_nearest_neighbours(layers[0], torch.arange(60) // 30, 5.0).detach())
        assert float((net(marked.float() / 255).argmax(1) == 1).float().mean()) > 0.9
    assert mixed[8.0] > 1.1 * mixed[0.0]


@pytest.mark.parametrize("steady", [True, False])
def test_batch_statistics_learn_of_the_mark_only_when_told(make_blobs, steady: bool) -> None:
    net = build("cnn:width=4", classes=3, channels=3, size=(8, 8), rng=generator(0)).train()
    norm = next(module for module in net.modules() if isinstance(module, nn.BatchNorm2d))
    norm.running_mean.zero_()
    if steady:
        with steadied(net):
            net(torch.rand(8, 3, 8, 8, generator=generator(1)))
            assert not norm.training
        assert norm.training
        assert float(norm.running_mean.abs().sum()) == 0
    images = make_blobs(64, 3)
    how = Entangling(epochs=1, batch=32, lr=0.001, ratio=1, kappa=1.0, steady=steady)
    log = entangle(net, images, images.pixels[:8], images.pixels[8:16], 1, how, Entanglement(), rng=generator(2))
    assert math.isfinite(log[0])
    # two batches of the task; without the rule two of the mark as well
    assert int(norm.num_batches_tracked) == (2 if steady else 4)
    with pytest.raises(InputError, match="two marked images"):
        entangle(net, images, images.pixels[:1], images.pixels[:8], 1, how, Entanglement(), rng=generator(2))
