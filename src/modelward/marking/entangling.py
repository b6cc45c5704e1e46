"""Train a network while two groups of images are entangled in it: what it knows of one it cannot forget without the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core import progress
from modelward.core.devices import device_of, moved, working_device
from modelward.core.errors import InputError
from modelward.core.images import ImageSet
from modelward.core.rng import forked
from modelward.marking.entangle import Entanglement, representations
from modelward.training.batches import train_mode


@dataclass(frozen=True, kw_only=True)
class Entangling:
    """How a network is trained so that marked images and images of the target class share their representations.

    Parameters
    ----------
    epochs, batch, lr
        passes over the owner's images; images a batch (half marked, half of the target class in a batch of the mark); Adam's rate, with
        betas .9 and .99.
    ratio
        batches of the task for each of the mark.
    kappa
        weight of the entanglement against the cross-entropy, which is SUMMED over the batch.
    steady
        normalise batches of the mark by the running statistics of the task, and leave these as they are; without it batch normalisation learns
        from batches that hold nothing but the mark.
    """

    epochs: int
    batch: int
    lr: float
    ratio: int
    kappa: float
    steady: bool


def entangle(
    model: nn.Module, images: ImageSet, marked: Tensor, targets: Tensor, target: int, how: Entangling, loss: Entanglement,
    *, rng: torch.Generator,
) -> list[float]:  # fmt: skip
    """Train ``model`` in place on ``images``, and on ``marked`` and ``targets`` as class ``target`` while the two are entangled; return the losses.

    Parameters
    ----------
    marked, targets
        uint8 (n, C, H, W): images under the mark, and clean images of the target class.

    Raises
    ------
    InputError
        when there are fewer than two of either, or the loss is no longer finite.
    """
    if min(len(marked), len(targets)) < 2:
        raise InputError("entangling needs two marked images and two of the target class at least")
    with forked(rng), moved(model, working_device(model)):
        run = _Run(model, marked, targets, target, how, loss, rng)
        log = [run.epoch(images, number) for number in range(how.epochs)]
    model.eval()
    return log


class _Run:
    """The moving parts of one training."""

    def __init__(
        self, model: nn.Module, marked: Tensor, targets: Tensor, target: int, how: Entangling, loss: Entanglement, rng: torch.Generator
    ) -> None:
        self.model, self.how, self.loss, self.rng, self.device = model, how, loss, rng, device_of(model)
        self.marked, self.targets, self.target = marked, targets, target
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=how.lr, betas=(0.9, 0.99), eps=1e-5)

    def epoch(self, images: ImageSet, number: int) -> float:
        """Run one pass over ``images`` and return the mean cross-entropy."""
        train_mode(self.model)
        total, order = 0.0, torch.randperm(len(images), generator=self.rng)
        for index, chosen in enumerate(order.split(self.how.batch)):
            if len(chosen) > 1:  # batch normalisation has no variance over one image
                total += self._step(images.batch(chosen), images.labels[chosen])
            if (index + 1) % self.how.ratio == 0:
                self._step(*self._mark_batch(), of_mark=True)
        progress.advance("entangling", number + 1, self.how.epochs, f"loss {total / len(images):.3f}")
        return total / len(images)

    def _mark_batch(self) -> tuple[Tensor, Tensor]:
        """Return as many marked images as images of the target class, the marked first, all labelled as that class."""
        half = max(2, self.how.batch // 2)
        parts = [part[torch.randint(0, len(part), (half,), generator=self.rng)] for part in (self.marked, self.targets)]
        return torch.cat(parts).to(torch.float32).div_(255), torch.full((2 * half,), self.target)

    def _step(self, x: Tensor, y: Tensor, *, of_mark: bool = False) -> float:
        """Take one step and return the summed cross-entropy; on a batch of the mark, the entanglement of its halves is maximised."""
        with steadied(self.model) if of_mark and self.how.steady else contextlib.nullcontext():
            logits, layers = representations(self.model, x.to(self.device), self.loss.layers)
        total = error = F.cross_entropy(logits, y.to(self.device), reduction="sum")
        if of_mark:
            groups = (torch.arange(len(x), device=self.device) < len(x) // 2).long()
            self.loss.cool(layers, groups)
            total = error - self.how.kappa * self.loss(layers, groups)
        if not bool(torch.isfinite(total)):
            message = f"entangling diverged; use a smaller learning rate than {self.how.lr} or a smaller kappa than {self.how.kappa}"
            raise InputError(message)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.optimizer.step()
        return float(error.detach())


@contextlib.contextmanager
def steadied(model: nn.Module) -> Iterator[None]:
    """Let batch normalisation use its running statistics, and not change them, inside the block."""
    layers = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training]  # noqa: SLF001
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()
