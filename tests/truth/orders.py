"""unit-order on nets of equal shape: as they are, with the units of both sorted by norm, and with both pruned structurally."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tests.foreign.nets import LeNet
from tests.truth.judging import row
from tests.truth.worlds import SHARED_START, Scene
from torch import Tensor, nn

from modelward.core.rng import generator
from modelward.core.siblings import Siblings
from modelward.core.suspect import Access
from modelward.marking.unit_maps import in_order, unit_maps, weights_of
from modelward.ownership import UnitOrder

SHARE = 2 / 3


def by_norm(model: nn.Module) -> list[Tensor]:
    """Return for each group of units their order by the norm of what they read, largest first."""
    weights, maps = weights_of(model), unit_maps(model)
    rows = {place.rows: weights[place.name].flatten(1).norm(dim=1) for place in reversed(maps.tensors) if place.rows is not None}
    return [rows[group].argsort(descending=True) for group in range(len(maps.units))]


def sorted_by_norm(model: nn.Module) -> nn.Module:
    """Return a copy whose units stand in the order of their norms."""
    return in_order(model, by_norm(model))


@torch.no_grad()
def pruned_structurally(model: nn.Module) -> nn.Module:
    """Return a copy of a foreign LeNet without the third of every layer's units whose norm is smallest; the others keep their order."""
    assert isinstance(model, LeNet)
    made = copy.deepcopy(model)
    kept, spots = torch.arange(made.conv1.in_channels), 1
    for name in ("conv1", "conv2", "fc1", "fc2", "out"):
        layer = getattr(made, name)
        wanted = kept if layer.weight.shape[1] == len(kept) or spots == 1 else (kept[:, None] * spots + torch.arange(spots)).flatten()
        weight = layer.weight[:, wanted]
        left = torch.arange(len(weight))
        if name != "out":
            norms = layer.weight.flatten(1).norm(dim=1)
            left = norms.argsort(descending=True)[: int(SHARE * len(norms))].sort().values
        setattr(made, name, _smaller(layer, weight[left], layer.bias[left]))
        kept, spots = left, (25 if name == "conv2" else 1)
    return made


def _smaller(layer: nn.Module, weight: Tensor, bias: Tensor) -> nn.Module:
    """Return a layer like ``layer`` with fewer units."""
    if isinstance(layer, nn.Conv2d):
        made: nn.Module = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=layer.padding)  # type: ignore[arg-type]
    else:
        made = nn.Linear(weight.shape[1], weight.shape[0])
    made.load_state_dict({"weight": weight.clone(), "bias": bias.clone()})
    return made.eval()


CHANGES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "as they are": copy.deepcopy, "both sorted by norm": sorted_by_norm, "both pruned structurally": pruned_structurally,
}  # fmt: skip


def orders(scene: Scene, folder: Path) -> dict[str, Any]:
    """Return the verdicts of unit-order on all strangers of the owner's shape, changed as the owner's model is."""
    found, method = [], UnitOrder()
    equal = [
        (one, model) for one in scene.strangers() if one.kind not in SHARED_START and isinstance(model := one.model(folder), LeNet)
    ]  # fmt: skip
    for change, make in CHANGES.items():
        owner = make(scene.world.owner.model(folder))
        _, key = method.protect(owner, scene.pool, siblings=Siblings(start="none"), rng=generator(7))
        rows = [{"kind": one.kind, "name": one.name, **row(method, key, make(model), Access.WEIGHTS)} for one, model in equal]
        found.append({"change": change, "rows": rows})
    return {"method": "unit-order", "changes": found}
