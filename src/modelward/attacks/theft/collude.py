"""Collusion: several users mix their copies of one model, so that the mark of none is left whole (Boneh, Shaw, CRYPTO 1995; DeepMarks, section 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modelward.core.errors import InputError, UsageError
from modelward.core.guard import plain_copy

WAYS = ("average", "median", "min", "max", "splice", "splice-filters")


@torch.no_grad()
def collude(copies: Sequence[nn.Module], way: str = "average", *, rng: torch.Generator) -> nn.Module:
    """Return the model that the owners of ``copies`` mix from them; the copies stay as they are.

    Parameters
    ----------
    copies
        two or more models of one architecture.
    way
        ``average``, ``median``, ``min`` or ``max`` of every number; ``splice``: every tensor from one of them, by lot; ``splice-filters``: every row
        of every tensor.
    rng
        the lot.

    Raises
    ------
    InputError
        for copies that do not fit each other.
    UsageError
        for another way.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> from modelward.models.nets import build
    >>> copies = [build("mlp:width=8", classes=2, size=(4, 4), rng=generator(seed)) for seed in range(3)]
    >>> mixed = collude(copies, "max", rng=generator(0))
    >>> bool((mixed.body[1].weight >= copies[0].body[1].weight).all())
    True
    """
    if way not in WAYS:
        message = f"copies are mixed by {', '.join(WAYS)}, not by {way!r}"
        raise UsageError(message)
    states = [copy.state_dict() for copy in copies]
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in states]
    if len(states) < 2 or any(shape != shapes[0] for shape in shapes):
        message = f"collusion needs two or more copies of one model, got {len(states)} that do not all fit each other"
        raise InputError(message)
    made = plain_copy(copies[0])
    for name, tensor in made.state_dict().items():
        tensor.copy_(_mixed(torch.stack([state[name] for state in states]), way, rng))
    return made.eval()


def _mixed(stack: Tensor, way: str, rng: torch.Generator) -> Tensor:
    """Return one tensor of several (c, ...)."""
    count = len(stack)
    if way == "splice" or not stack.is_floating_point():
        return stack[int(torch.randint(0, count, (), generator=rng))]
    if way == "splice-filters":
        rows = stack.shape[1] if stack.ndim > 1 else 1
        lot = torch.randint(0, count, (rows,), generator=rng)
        return stack[lot, torch.arange(rows)] if stack.ndim > 1 else stack[lot[0]]
    if way == "median":  # of an even number, the mean of the two in the middle
        return stack.double().quantile(0.5, dim=0).to(stack.dtype)
    return stack.mean(0) if way == "average" else stack.amin(0) if way == "min" else stack.amax(0)
