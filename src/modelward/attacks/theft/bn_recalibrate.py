"""Recalibration of batch normalisation: new running statistics from images without labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.theft.finetune import WHITE_BOX
from modelward.core.card import Card
from modelward.core.errors import InputError
from modelward.core.families import Theft, TheftMethod
from modelward.core.guard import plain_copy
from modelward.core.result import Trace
from modelward.core.view import AttackerView, Labels

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, kw_only=True)
class RecalibrateNorm(TheftMethod):
    """Forget the running means and variances of every batch normalisation and average them anew over the thief's images.

    No weight changes; marks and locks that live in the statistics, or in weights that they balance, come undone.

    Parameters
    ----------
    images, batch
        how many images, and how many at once; every batch counts the same in the cumulative average.

    Examples
    --------
    >>> from modelward import AttackerView, build, generator, load_data
    >>> net = build("cnn:width=2", classes=10, rng=generator(0))
    >>> view = AttackerView.of_model(net, load_data("fashion-mini").test.take(slice(64)), labels="none")
    >>> theft = RecalibrateNorm().steal(view, rng=generator(0))
    >>> int(theft.model.body[1].num_batches_tracked), bool(theft.model.body[1].running_var.max() != 1)
    (1, True)
    """

    card: ClassVar[Card] = Card(
        name="bn-recalibrate", title="new batch-normalisation statistics",
        paper="Schneider et al.: Improving robustness against common corruptions by covariate shift adaptation, NeurIPS 2020, arXiv 2006.16971",
        taxonomy=WHITE_BOX, cost="one forward pass of 400 images",
    )  # fmt: skip
    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE, Labels.STOLEN, Labels.NONE)

    images: int = 400
    batch: int = 100

    def __post_init__(self) -> None:
        self._require(images=(self.images >= 2, ">= 2"), batch=(self.batch >= 2, ">= 2"))

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        model = plain_copy(view.weights).eval()
        if not norms_of(model):
            raise InputError("this network has no batch normalisation with running statistics; there is nothing to recalibrate")
        chosen = torch.randperm(len(view.images), generator=rng)[: self.images]
        used = renew_statistics(model, (view.images.batch(part) for part in chosen.split(self.batch) if len(part) > 1))
        if not used:
            raise InputError("recalibration needs at least two images")
        trace.steps = 1
        return Theft(model, view.arch, log={"epochs": 0, "norms": len(norms_of(model)), "images": used})


def norms_of(model: nn.Module) -> list[nn.Module]:
    """Return the batch normalisations of ``model`` that have running statistics."""
    return [module for module in model.modules() if isinstance(module, NORMS) and module.running_mean is not None]


@torch.no_grad()
def renew_statistics(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Average the running statistics of ``model`` anew over image batches (N, C, H, W), in place; return how many images there were."""
    norms = [module for module in norms_of(model) if isinstance(module, NORMS)]
    momenta, used = [norm.momentum for norm in norms], 0
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    for part in batches:
        model(part)
        used += len(part)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    return used
