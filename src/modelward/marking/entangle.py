"""How entangled two groups of images are in a network's representations: the soft nearest neighbour loss, its temperatures learnt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from modelward.core.errors import InputError, UsageError

ACTIVATIONS = frozenset({"relu", "relu_", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "hardswish", "tanh"})
DISTANCES = ("cosine", "euclidean")
COLDEST, HOTTEST = 1e3, 1e-4  # of the inverse temperature: it is a scale, and a step may not turn its sign


def distances(features: Tensor, distance: str) -> Tensor:
    """Return the distances (N, N) between rows of ``features`` (N, D): squared Euclidean, or 1 - cosine.

    Examples
    --------
    >>> x = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    >>> distances(x, "euclidean")[0, 1].item(), distances(x, "cosine")[0, 1].item()
    (25.0, 1.0)
    """
    if distance not in DISTANCES:
        message = f"a distance is {' or '.join(DISTANCES)}, not {distance!r}"
        raise UsageError(message)
    if distance == "cosine":
        unit = F.normalize(features, dim=1)
        return 1 - unit @ unit.T
    squares = features.square().sum(1)
    return (squares[:, None] + squares[None] - 2 * features @ features.T).clamp_min(0)


def soft_nearest_neighbours(features: Tensor, groups: Tensor, inverse: Tensor | float, distance: str = "cosine") -> Tensor:
    r"""Return the soft nearest neighbour loss: small where images have neighbours of their own group, large where groups are mixed.

    .. math:: -\frac 1 N \sum_i \log \frac{\sum_{j \ne i, y_j = y_i} e^{-d(x_i, x_j) / T}}{\sum_{k \ne i} e^{-d(x_i, x_k) / T}}

    Parameters
    ----------
    features
        (N, ...), flattened.
    groups
        int64 (N,); an image that is alone in its group has no term.
    inverse
        1 / T, above 0.
    distance
        ``"cosine"`` or ``"euclidean"`` (squared).

    Raises
    ------
    InputError
        when no image has another of its group.

    Notes
    -----
    Frosst, Papernot, Hinton: Analyzing and improving representations with the soft nearest neighbor loss (ICML 2019, arXiv 1902.01889).

    Examples
    --------
    >>> apart = torch.tensor([[0.0], [0.1], [9.0], [9.1]])
    >>> loss = [soft_nearest_neighbours(apart, torch.tensor(y), 1.0, "euclidean").item() for y in ([0, 0, 1, 1], [0, 1, 0, 1])]
    >>> round(loss[0], 3), loss[1] > 10
    (0.0, True)
    """
    same = groups[:, None] == groups[None]
    own = torch.eye(len(groups), dtype=torch.bool, device=groups.device)
    valid = (same & ~own).any(1)
    if not bool(valid.any()):
        raise InputError("the soft nearest neighbour loss needs two images of one group at least")
    near = -distances(features.flatten(1), distance) * inverse
    near, same, own = near[valid], same[valid], own[valid]
    among_all = near.masked_fill(own, -torch.inf).logsumexp(1)
    among_own = near.masked_fill(own | ~same, -torch.inf).logsumexp(1)
    return (among_all - among_own).mean()


class _Tape(TorchFunctionMode):
    """A hook on the activation functions: it sees those that blocks call as functions, too, which hooks on modules would miss."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Iterable[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None) -> Any:
        del types
        made = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in ACTIVATIONS:
            self.outputs.append(made)
        return made


def representations(model: nn.Module, x: Tensor, count: int) -> tuple[Tensor, list[Tensor]]:
    """Return the logits (N, K) and the last ``count`` representations before them, each as it leaves its activation function.

    Raises
    ------
    InputError
        for a network without an activation function that is known.

    Examples
    --------
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> logits, found = representations(net, torch.rand(5, 1, 2, 2), 3)
    >>> logits.shape, [tuple(layer.shape) for layer in found]
    (torch.Size([5, 2]), [(5, 3)])
    """
    with _Tape() as tape:
        logits: Tensor = model(x)
    found = [made for made in tape.outputs if len(made) == len(x)][-count:]
    if not found:
        raise InputError(
            "this network has no activation function whose output could be entangled; its layers are all linear, or of its own making"
        )
    return logits, found


@dataclass(kw_only=True)
class Entanglement:
    """The soft nearest neighbour losses of the last layers, summed, each with a temperature of its own that is learnt.

    Parameters
    ----------
    layers
        how many representations.
    temperature
        T at the start.
    distance
        of `distances`.
    lr
        of the plain gradient steps on t = 100 / T, downwards in the loss; 0 keeps it.
    """

    layers: int = 3
    temperature: float = 1.0
    distance: str = "cosine"
    lr: float = 0.1
    inverse: Tensor | None = None

    def __call__(self, layers: Sequence[Tensor], groups: Tensor) -> Tensor:
        """Return the sum over ``layers`` (N, ...) for ``groups`` (N,), at the temperatures of now."""
        inverse = self._inverse(len(layers)).to(layers[0].device)
        parts = [soft_nearest_neighbours(x, groups, inverse[i], self.distance) for i, x in enumerate(layers)]
        return torch.stack(parts).sum()

    def cool(self, layers: Sequence[Tensor], groups: Tensor) -> None:
        """Take one step on every temperature."""
        if not self.lr:
            return
        with torch.enable_grad():
            t = (100 * self._inverse(len(layers))).requires_grad_()
            parts = [soft_nearest_neighbours(x.detach().cpu(), groups.cpu(), t[i] / 100, self.distance) for i, x in enumerate(layers)]
            (grad,) = torch.autograd.grad(torch.stack(parts).sum(), t)
        self.inverse = ((t.detach() - self.lr * grad) / 100).clamp(HOTTEST, COLDEST)

    def _inverse(self, count: int) -> Tensor:
        """Return 1 / T of every layer."""
        return torch.full((count,), 1 / self.temperature) if self.inverse is None else self.inverse
