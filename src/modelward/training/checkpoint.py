"""Checkpoints from which training goes on bit for bit: weights, optimizer, averages, log."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelward.core.canonical import canonical_json
from modelward.core.devices import device_of
from modelward.core.errors import FormatError
from modelward.io.files import one_line
from modelward.io.safetensors import load_tensors, save_tensors
from modelward.training.average import Average

Log = list[tuple[int, float, float]]


class Checkpoint:
    """One file, replaced atomically after every epoch.

    Parameters
    ----------
    path
        the file.
    run
        digest of all that decides the run: seed, recipe, images, targets. The file of another run is ignored.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.path, self.run = path, run

    def write(self, model: nn.Module, optimizer: torch.optim.Optimizer, average: Average, log: Log) -> None:
        """Write the whole state."""
        tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
        tensors |= {f"shadow/{name}": tensor for name, tensor in average.shadow.items()}
        tensors |= {f"best/{name}": tensor for name, tensor in average.best.items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in state.items() if value is not None}
        facts = {"run": self.run, "log": log, "updates": average.updates, "best_score": average.best_score}
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_tensors(self.path, plain, {"training": canonical_json(facts).decode()})

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, average: Average, path: Path | None = None
    ) -> Sequence[tuple[int, float, float]]:
        """Put a saved state back and return its log; an absent or foreign file gives an empty log. ``path`` is a copy of the file.

        Raises
        ------
        FormatError
            when the file claims to be of this run and its content does not fit.
        """
        path = path or self.path
        if not path.exists():
            return []
        tensors, metadata = load_tensors(path)
        try:
            facts = json.loads(metadata.get("training", "{}"))
            if facts.get("run") != self.run:
                return []
            return self._put_back(tensors, facts, model, optimizer, average)
        except (ValueError, TypeError, AttributeError, LookupError, RuntimeError, RecursionError) as error:
            message = f"{path.name} is no checkpoint that training can go on from ({one_line(error)}); remove it to begin anew"
            raise FormatError(message) from error

    def _put_back(
        self, tensors: dict[str, Tensor], facts: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, average: Average
    ) -> Sequence[tuple[int, float, float]]:
        """Put the state of this very run back and return its log."""
        log = [(int(e[0]), float(e[1]), float(e[2])) for e in facts["log"]]
        updates, best_score = int(facts["updates"]), float(facts["best_score"])
        model.load_state_dict(_under("model/", tensors))
        device = device_of(model)
        average.shadow, average.best = ({n: t.to(device) for n, t in _under(part, tensors).items()} for part in ("shadow/", "best/"))
        average.updates, average.best_score = updates, best_score
        state: dict[int, dict[str, Tensor]] = {}
        parameters = [
            parameter for group in optimizer.param_groups for parameter in group["params"]
        ]  # fused steps need their memory layout
        for name, tensor in _under("optimizer/", tensors).items():
            index, _, key = name.partition("/")
            like = parameters[int(index)]
            if tensor.numel() != 1 and tensor.shape != like.shape:
                message = f"the optimizer's {name} has shape {tuple(tensor.shape)}, its parameter {tuple(like.shape)}"
                raise ValueError(message)
            state.setdefault(int(index), {})[key] = torch.empty_like(like).copy_(tensor) if tensor.shape == like.shape else tensor
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
        return log


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose name starts with ``prefix``, without it."""
    return {name.removeprefix(prefix): tensor.clone() for name, tensor in tensors.items() if name.startswith(prefix)}
