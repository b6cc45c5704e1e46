"""Training in several processes at once: who this process is, its share of a batch, and what all of them must agree on."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from modelward.core.errors import UsageError


@contextlib.contextmanager
def together(device: str | torch.device = "cpu") -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started, for the length of the block; without torchrun the process is alone.

    Parameters
    ----------
    device
        what this process trains on: ``gloo`` connects CPUs, ``nccl`` CUDA devices. Name each process its own, as in
        ``f"cuda:{os.environ['LOCAL_RANK']}"``.

    Raises
    ------
    UsageError
        when this process belongs to a group already.

    Examples
    --------
    >>> with together() as ranks:
    ...     ranks.rank, ranks.size, ranks.first
    (0, 1, True)
    """
    if distributed.is_available() and distributed.is_initialized():
        raise UsageError("this process belongs to a process group already: call fit as it is, without together()")
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Ranks(0, 1)
        return
    distributed.init_process_group("nccl" if torch.device(device).type == "cuda" else "gloo")
    try:
        yield Ranks.now()
    finally:
        distributed.destroy_process_group()


class Ranks:
    """One process among those that train a model.

    Parameters
    ----------
    rank, size
        its number, and how many there are.
    device
        of the model; what is exchanged lies there.
    """

    def __init__(self, rank: int, size: int, device: torch.device | None = None) -> None:
        self.rank, self.size, self.device = rank, size, device or torch.device("cpu")

    @classmethod
    def now(cls, device: torch.device | None = None) -> Ranks:
        """Return the ranks of the process group that this process belongs to, alone without one."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls(0, 1, device)
        return cls(distributed.get_rank(), distributed.get_world_size(), device)

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is nobody to agree with."""
        return self.size == 1

    def share(self, count: int) -> slice:
        """Return this process's part of ``count`` images: in order, of sizes that differ by one at most, maybe empty.

        >>> [Ranks(rank, 3).share(7) for rank in range(3)]
        [slice(0, 3, None), slice(3, 5, None), slice(5, 7, None)]
        """
        small, more = divmod(count, self.size)
        start = self.rank * small + min(self.rank, more)
        return slice(start, start + small + (self.rank < more))

    def total(self, value: Tensor) -> Tensor:
        """Return the sum over all processes; no gradient flows."""
        if self.alone:
            return value
        value = value.detach().clone().to(self.device)
        distributed.all_reduce(value)
        return value

    def agreed(self, value: float) -> float:
        """Return the first process's ``value``: decisions must not part where machines round differently."""
        return self._sent(torch.tensor(value, dtype=torch.float64)).item()

    def agreed_seed(self, seed: int) -> int:
        """Return the first process's 63-bit ``seed``."""
        return int(self._sent(torch.tensor(seed, dtype=torch.int64)).item())

    def whole(self, part: Tensor, count: int) -> Tensor:
        """Return the batch (``count``, ...) of which every process holds its share."""
        if self.alone:
            return part
        batch = part.new_zeros((count, *part.shape[1:]))
        batch[self.share(count)] = part
        return self.total(batch)

    def parallel(self, model: nn.Module) -> nn.Module:
        """Return what to call in place of ``model``: its gradients are averaged over all processes in the backward pass."""
        if self.alone or not any(parameter.requires_grad for parameter in model.parameters()):
            return model
        return nn.parallel.DistributedDataParallel(model, forward_sync_buffers=False)

    @contextlib.contextmanager
    def file_of_first(self, path: Path) -> Iterator[Path]:
        """Yield where the first process's file can be read here; machines need not share a disk."""
        if self.alone:
            yield path
            return
        held = path.read_bytes() if self.first and path.exists() else b""
        length = self.agreed_seed(len(held))
        data = torch.zeros(length, dtype=torch.uint8)
        if self.first and length:
            data = torch.frombuffer(bytearray(held), dtype=torch.uint8)
        data = self._sent(data) if length else data
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            if length:
                copy.write_bytes(data.cpu().numpy().tobytes())
            yield copy

    def _sent(self, value: Tensor) -> Tensor:
        """Return the first process's tensor."""
        if self.alone:
            return value
        value = value.to(self.device)
        distributed.broadcast(value, src=0)
        return value
