"""Many tiny nets at once: one batched product a layer instead of one training after the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.rng import generator

INPUTS, CLASSES, POINTS = 8, 5, 400
Crowd = list[Tensor]  # weight (N, out, in) and bias (N, out) of every layer of N nets


def blobs(seed: int, points: int = POINTS) -> tuple[Tensor, Tensor]:
    """Return points (P, 8) around five fixed centres, and their classes (P,)."""
    centres = torch.randn(CLASSES, INPUTS, generator=generator(99)) * 1.5
    rng = generator(seed)
    labels = torch.randint(0, CLASSES, (points,), generator=rng)
    return centres[labels] + torch.randn(points, INPUTS, generator=rng), labels


def begun(count: int, width: int, *, seed: int) -> Crowd:
    """Return N nets of two hidden layers with torch's initial weights, uniform in +-1 / sqrt(inputs)."""
    rng, made = generator(seed), []
    for inputs, outputs in ((INPUTS, width), (width, width), (width, CLASSES)):
        bound = inputs**-0.5
        made += [(torch.rand(count, outputs, *more, generator=rng) * 2 - 1) * bound for more in ((inputs,), ())]
    return made


def trained(crowd: Crowd, *, seed: int, steps: int = 300, lr: float = 0.1) -> Crowd:
    """Return the nets after SGD with momentum, each on batches of its own from the same images."""
    x, y = blobs(0)
    rng, weights = generator(seed), [tensor.clone().requires_grad_() for tensor in crowd]
    optimiser = torch.optim.SGD(weights, lr=lr, momentum=0.9, weight_decay=1e-4)
    for _ in range(steps):
        picked = torch.randint(0, POINTS, (len(crowd[0]), 32), generator=rng)
        hidden = x[picked]
        for layer in range(3):
            hidden = torch.baddbmm(weights[2 * layer + 1][:, None], hidden, weights[2 * layer].transpose(1, 2))
            hidden = hidden.relu() if layer < 2 else hidden
        loss = F.cross_entropy(hidden.flatten(0, 1), y[picked].flatten(), reduction="none").view(picked.shape).mean(1).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return [tensor.detach() for tensor in weights]


def repeated(crowd: Crowd, times: int) -> Crowd:
    """Return every net ``times`` times, one after the other."""
    return [tensor.repeat_interleave(times, 0) for tensor in crowd]


def nets(crowd: Crowd) -> list[nn.Sequential]:
    """Return the nets one by one."""
    made = []
    for parts in zip(*crowd, strict=True):
        width = len(parts[1])
        net = nn.Sequential(nn.Linear(INPUTS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, CLASSES))
        for parameter, part in zip(net.parameters(), parts, strict=True):
            parameter.data.copy_(part)
        made.append(net.eval())
    return made


def kept(crowd: Crowd, chosen: list[Tensor]) -> Crowd:
    """Return the nets with the hidden units ``chosen`` (N, C) of each of the two layers alone, in that order."""
    one, two = (layer[:, :, None] for layer in chosen)
    first, bias1, middle, bias2, last, bias3 = crowd
    middle = middle.take_along_dim(two, 1).take_along_dim(one.transpose(1, 2), 2)
    pruned = [bias.take_along_dim(units, 1) for bias, units in ((bias1, chosen[0]), (bias2, chosen[1]))]
    return [first.take_along_dim(one, 1), pruned[0], middle, pruned[1], last.take_along_dim(two.transpose(1, 2), 2), bias3]
