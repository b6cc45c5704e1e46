"""Put the neurons of a suspect in the order, and at the scale, of a reference: what changes weights and no answer is undone.

Weights are matched as in Ainsworth, Hayase, Srinivasa: Git Re-Basin, ICLR 2023, arXiv 2209.04836.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.copies import copied
from modelward.core.errors import InputError
from modelward.models.channels import Group, groups
from modelward.models.renaming import reorder, rescale

CLOSE = 1e-3
FARTHEST = 2.0**12


@torch.no_grad()
def aligned(model: nn.Module, reference: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of ``model`` whose hidden neurons stand where those of ``reference`` do, at their scale; its answers are those of ``model``.

    Each group of neurons is matched by the cosines of its incoming weights, layer after layer from the input, until nothing moves any more.

    Parameters
    ----------
    reference
        parameters of a network by name. A ``model`` of other names or shapes, or one whose neurons cannot be followed, comes back as it is.

    Examples
    --------
    >>> from modelward import AttackerView, PermuteNeurons, embedded_model, generator, load_data
    >>> net, images = embedded_model().model, load_data("fashion-mini").test.take(slice(64))
    >>> thief = PermuteNeurons().steal(AttackerView.of_model(net, images, labels="none"), rng=generator(0)).model
    >>> back = aligned(thief, dict(net.named_parameters()))
    >>> bool((thief.body[3].weight == net.body[3].weight).all()), bool(torch.allclose(back.body[3].weight, net.body[3].weight))
    (False, True)
    """
    clone = copied(model).requires_grad_(False)
    mine = dict(clone.named_parameters())
    if {name: tensor.shape for name, tensor in mine.items()} != {name: tensor.shape for name, tensor in reference.items()}:
        return clone
    orders, scales = _groups(clone, scaling=False), _groups(clone, scaling=True)
    like, wanted_orders, wanted_scales = copy.deepcopy((clone, orders, scales))  # what is traced once is not traced again
    for name, parameter in like.named_parameters():
        parameter.copy_(reference[name])
    for _ in range(len(orders) + len(scales)):
        moved = [_match(group, wanted) for group, wanted in zip(orders, wanted_orders, strict=True)]
        stretched = [_stretch(group, wanted) for group, wanted in zip(scales, wanted_scales, strict=True)]
        if not any((*moved, *stretched)):
            break
    return clone


def _groups(model: nn.Module, *, scaling: bool) -> list[Group]:
    """Return the groups of a network; none where they cannot be found."""
    try:
        return list(groups(model, scaling=scaling))
    except InputError:
        return []


def _features(group: Group) -> Tensor:
    """Return what each channel is recognised by, (C, features): the directions of its incoming weights."""
    rows = [layer.weight.flatten(1) for layer in group.writers if isinstance(layer, nn.Linear | nn.Conv2d)]
    return torch.cat([F.normalize(part.float(), dim=1) for part in rows], 1) if rows else torch.zeros(group.size, 0)


def _match(group: Group, wanted: Group) -> bool:
    """Reorder the channels of ``group`` to those that ``wanted`` has; return whether any moved."""
    from scipy.optimize import linear_sum_assignment

    likeness = _features(wanted) @ _features(group).T
    if not len(likeness.flatten()) or not bool(torch.isfinite(likeness).all()):
        return False
    order = torch.from_numpy(linear_sum_assignment(-likeness.numpy())[1])
    if bool((order == torch.arange(group.size)).all()):
        return False
    reorder(group, order)
    return True


def _stretch(group: Group, wanted: Group) -> bool:
    """Bring the channels of ``group`` to the length of those of ``wanted``; return whether any changed."""
    now, then = _lengths(group), _lengths(wanted)
    scale = (then / now.clamp_min(1e-12)).clamp(1 / FARTHEST, FARTHEST)
    scale = torch.where((now > 0) & (then > 0), scale, 1.0)
    if bool(((scale - 1).abs() < CLOSE).all()):
        return False
    rescale(group, scale)
    return True


def _lengths(group: Group) -> Tensor:
    """Return the length of the weights and biases that write each channel, (C,)."""
    parts = [
        tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None] for layer in group.writers for tensor in layer.parameters(recurse=False)
    ]
    return torch.cat([part.float() for part in parts], 1).norm(dim=1) if parts else torch.zeros(group.size)
