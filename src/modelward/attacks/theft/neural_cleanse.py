"""Neural Cleanse (Wang et al., "Neural Cleanse: identifying and mitigating backdoor attacks in neural networks", IEEE S&P 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.attacks.theft.fine_prune import activity, late, silence
from modelward.attacks.theft.unlearning import WHITE_BOX, Ground, ScanningTheft, told
from modelward.core.card import Card
from modelward.core.result import Trace
from modelward.marking.inversion import Inversion
from modelward.marking.scanning import ScanReport
from modelward.models.channels import Group

MODES = ("unlearn", "prune")


def stamped_images(ground: Ground, report: ScanReport, classes: tuple[int, ...], *, rng: torch.Generator) -> Tensor:
    """Return the thief's images under the trigger of each class, float (n * classes, C, H, W)."""
    x = ground.pixels.to(torch.float32).div(255)
    return torch.cat([report.stamped(x, target, rng=rng) for target in classes])


def activation_gap(model: nn.Module, group: Group, ground: Ground, stamped: Tensor) -> Tensor:
    """Return how much more each channel (C,) of ``group`` answers to stamped images than to clean ones, as a share of its layer's largest answer."""
    clean = activity(model, group, ground.pixels)
    gap: Tensor = (activity(model, group, stamped) - clean) / clean.max().clamp_min(1e-12)
    return gap


@dataclass(frozen=True, kw_only=True)
class NeuralCleanse(ScanningTheft):
    """Find the mask and pattern of every class pixel by pixel; prune the channels that answer to them, or train them away.

    Parameters
    ----------
    mode
        ``"unlearn"``: fine-tune with a fifth of the images under the found triggers and with their labels; ``"prune"``: silence the channels of
        the late layer that answer to the triggers most, one after another, as long as the watched accuracy holds.
    ratio
        share of the channels to prune at most; for ``"prune"`` the battery's .1.
    stamped
        share of a batch that is under a trigger, for ``"unlearn"``.

    Examples
    --------
    >>> from modelward import AttackerView, embedded_model, generator, load_data
    >>> view = AttackerView.of_model(embedded_model().model, load_data("fashion-mini").test.take(slice(64)))
    >>> NeuralCleanse(mode="prune", steps=30, success=0.1, ratio=0.5, drop=1.0).steal(view, rng=generator(0)).log["removed"]
    8
    """

    card: ClassVar[Card] = Card(
        name="neural-cleanse",
        title="find triggers pixel by pixel, then prune or unlearn them",
        paper="Wang et al.: Neural Cleanse: identifying and mitigating backdoor attacks in neural networks, IEEE S&P 2019",
        taxonomy=WHITE_BOX,
        limits=("finds one pattern that sends images of any class to one class", "pruning acts on the last convolution alone"),
        cost="5 seconds of search for ten classes on LeNet-5, then 5 epochs on 500 images",
    )

    mode: str = "unlearn"
    epochs: int = 5
    ratio: float = 0.1
    stamped: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            mode=(self.mode in MODES, " or ".join(MODES)),
            ratio=(0 < self.ratio < 1, "in (0, 1)"),
            stamped=(0 < self.stamped < 1, "in (0, 1)"),
        )

    @property
    def plan(self) -> Inversion:
        """The search without generator and critic."""
        return Inversion(kind="direct", steps=self.steps, realism=0.0)

    @property
    def effort(self) -> float:
        """Pruning does not train."""
        return super().effort - (self.epochs if self.mode == "prune" else 0)

    def _remove(self, model: nn.Module, ground: Ground, *, rng: torch.Generator, trace: Trace) -> tuple[int, dict[str, Any]]:
        report = self.scan(model, ground.images, rng=rng)
        classes = self._treated(report, trace)
        log: dict[str, Any] = {"scan": told(report), "treated": list(classes)}
        if self.mode == "prune":
            return 0, {**log, "removed": self._prune(model, ground, report, classes, rng=rng) if classes else 0}
        share = max(1, round(self.batch * self.stamped / (1 - self.stamped)))
        return self.epochs, {**log, **self._unlearnt(model, ground, report, classes, per_batch=share, rng=rng)}

    def _prune(self, model: nn.Module, ground: Ground, report: ScanReport, classes: tuple[int, ...], *, rng: torch.Generator) -> int:
        """Silence channels in the order of their gap; return how many."""
        group, start = late(model), ground.accuracy(model)
        order = activation_gap(model, group, ground, stamped_images(ground, report, classes, rng=rng)).argsort(descending=True, stable=True)
        allowed = max(self.drop, 1.5 / len(ground.watched))
        for number, channel in enumerate(order[: max(1, round(self.ratio * group.size))]):
            before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            silence(group, channel[None])
            if ground.accuracy(model) < start - allowed:
                model.load_state_dict(before)
                return number
        return max(1, round(self.ratio * group.size))
