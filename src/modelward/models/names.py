"""Names of the tensors in somebody's file: wrappers that put a prefix before all of them, and tensors that are stored once or not at all."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel, and of torch.compile
COUNTER = "num_batches_tracked"  # which older files lack, and nothing that is evaluated reads


def unwrapped(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state`` without the wrappers' prefixes that all its names share, where none of them is ``wanted``.

    Examples
    --------
    >>> import torch
    >>> sorted(unwrapped({"module._orig_mod.0.weight": torch.zeros(1)}, {"0.weight": torch.zeros(1)}))
    ['0.weight']
    """
    found = dict(state)
    while found and not found.keys() & wanted.keys():
        prefix = next((prefix for prefix in WRAPPERS if all(name.startswith(prefix) for name in found)), None)
        if prefix is None:
            return dict(state)
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def completed(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``state`` with what it need not hold: the other names of a tensor that ``model`` ties, and counters of batches.

    Examples
    --------
    >>> import torch
    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> net[1].weight = net[0].weight
    >>> sorted(completed(net, {name: net.state_dict()[name] for name in ("0.weight", "0.bias", "1.bias")}))
    ['0.bias', '0.weight', '1.bias', '1.weight']
    """
    held = {**dict(model.named_buffers(remove_duplicate=False)), **dict(model.named_parameters(remove_duplicate=False))}
    known = {id(tensor): state[name] for name, tensor in held.items() if name in state}
    found = dict(state)
    for name, tensor in held.items():
        if name in model.state_dict() and name not in found:
            if id(tensor) in known:
                found[name] = known[id(tensor)]
            elif name.rpartition(".")[2] == COUNTER:
                found[name] = tensor.detach().clone()
    return found
