"""How one layer's relevance is shared among its inputs: z+, zB, w^2, epsilon, alpha-beta (Montavon et al. 2017; Bach et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Linear = Callable[[Tensor, Tensor], Tensor]  # (inputs, weights) -> outputs, without bias
TINY = 1e-30  # of a denominator: below it nothing is shared, so that any scale of the weights gives the same maps


@dataclass(frozen=True)
class Rule:
    """How relevance is shared in inner layers and at the pixels.

    Parameters
    ----------
    alpha
        weight of the positive contributions, ``alpha - 1`` that of the negative ones; ``None``: all contributions together (epsilon rule).
    eps
        of the epsilon rule: added to the size of every denominator.
    pixels
        ``inner``: the first layer as the others; ``box``: zB, for inputs between bounds; ``squares``: w^2, for unbounded inputs.
    """

    alpha: float | None
    eps: float = 0.0
    pixels: str = "inner"


RULES: dict[str, Rule] = {
    "dtd": Rule(1.0, pixels="box"),
    "w2": Rule(1.0, pixels="squares"),
    "epsilon": Rule(None, eps=1e-6),
    "alpha2-beta1": Rule(2.0),
    "alpha1-beta0": Rule(1.0),
}


def quotient(relevance: Tensor, total: Tensor, eps: float = 0.0) -> Tensor:
    """Return ``relevance / total``, 0 where ``total`` is; ``eps`` is added to the size of ``total`` first.

    >>> quotient(torch.tensor([2.0, 1.0, 3.0]), torch.tensor([4.0, 0.0, -2.0]), eps=1.0)
    tensor([ 0.4000,  1.0000, -1.0000])
    """
    if eps:
        total = torch.where(total >= 0, total + eps, total - eps)
    return relevance / torch.where(total.abs() <= TINY, torch.inf, total)


def pull(outputs: Tensor, inputs: Sequence[Tensor], weights: Tensor, *, keep: bool) -> tuple[Tensor, ...]:
    """Return the products of ``weights`` with the Jacobian of ``outputs``; ``keep``: they can be differentiated themselves."""
    return torch.autograd.grad(outputs, inputs, weights, create_graph=keep, retain_graph=keep)


def leaf(value: Tensor) -> Tensor:
    """Return ``value`` where it is part of a graph, else a copy that begins one."""
    return value if value.requires_grad else value.detach().requires_grad_()


def proportional(apply: Callable[..., Tensor], parts: Sequence[Tensor], relevance: Tensor, *, eps: float = 0.0, bias: Tensor | float = 0.0,
                 keep: bool) -> list[Tensor]:  # fmt: skip
    """Return the relevance of each part of a linear function: what it contributes to every output, as a share of that output's total.

    Parameters
    ----------
    apply
        the function, linear in all ``parts`` together.
    relevance
        of its outputs.
    eps, bias
        the total is ``apply(*parts) + bias``, made larger by ``eps``.
    """
    with torch.enable_grad():
        leaves = [leaf(part) for part in parts]
        outputs = apply(*leaves)
        shares = pull(outputs, leaves, quotient(relevance, outputs + bias, eps), keep=keep)
    with torch.set_grad_enabled(keep):
        return [part * share for part, share in zip(leaves, shares, strict=True)]


def positive(linear: Linear, x: Tensor, weight: Tensor, relevance: Tensor, *, keep: bool) -> Tensor:
    r"""Return :math:`R_i = \sum_j (x_i w_{ij})^+ / \sum_{i'} (x_{i'} w_{i'j})^+ \, R_j`; for inputs >= 0 that is z+."""
    plus, minus = weight.clamp(min=0), weight.clamp(max=0)
    if bool((x >= 0).all()):
        return proportional(lambda x: linear(x, plus), [x], relevance, keep=keep)[0]
    parts = proportional(
        lambda high, low: linear(high, plus) + linear(low, minus), [x.clamp(min=0), x.clamp(max=0)], relevance, keep=keep
    )  # fmt: skip
    return parts[0] + parts[1]


def alpha_beta(linear: Linear, x: Tensor, weight: Tensor, relevance: Tensor, alpha: float, *, keep: bool) -> Tensor:
    r"""Return :math:`R_i = \sum_j (\alpha \, z^+_{ij} / z^+_j - (\alpha - 1) \, z^-_{ij} / z^-_j) R_j`.

    An output without negative contributions gives its positive ones all of its relevance, and one without positive ones its negative ones.
    """
    if alpha == 1:
        return positive(linear, x, weight, relevance, keep=keep)
    with torch.no_grad():
        low, high, plus, minus = x.clamp(max=0), x.clamp(min=0), weight.clamp(min=0), weight.clamp(max=0)
        gains = linear(high, plus) + linear(low, minus) > TINY
        losses = linear(high, minus) + linear(low, plus) < -TINY
    won = relevance * (gains * torch.where(losses, alpha, 1.0))
    lost = relevance * (losses * torch.where(gains, alpha - 1, -1.0))
    return positive(linear, x, weight, won, keep=keep) - positive(linear, x, -weight, lost, keep=keep)


def box(linear: Linear, x: Tensor, low: Tensor, high: Tensor, weight: Tensor, relevance: Tensor, *, keep: bool) -> Tensor:
    r"""Return the zB rule for inputs in [l, h]: contributions :math:`x_i w_{ij} - l_i w^+_{ij} - h_i w^-_{ij}`, none of them negative."""
    plus, minus = weight.clamp(min=0), weight.clamp(max=0)  # x w - l w+ - h w- = (x - l) w+ + (x - h) w-
    parts = proportional(lambda above, below: linear(above, plus) + linear(below, minus), [x - low, x - high], relevance, keep=keep)
    return parts[0] + parts[1]


def squares(linear: Linear, x: Tensor, weight: Tensor, relevance: Tensor, *, keep: bool) -> Tensor:
    r"""Return the w^2 rule for unbounded inputs: contributions :math:`w_{ij}^2`."""
    return proportional(lambda ones: linear(ones, weight.square()), [torch.ones_like(x)], relevance, keep=keep)[0]
