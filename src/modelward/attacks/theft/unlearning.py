"""What the attacks on trigger marks share: a scan, and further training in which found triggers mean nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from modelward.attacks.theft.finetune import WHITE_BOX
from modelward.core.families import Theft, TheftMethod
from modelward.core.guard import plain_copy, predict
from modelward.core.images import ImageSet
from modelward.core.result import Trace
from modelward.core.rng import generator, spawn
from modelward.core.view import AttackerView
from modelward.marking.inversion import Inversion
from modelward.marking.scanning import ScanReport, scan
from modelward.models.parts import head
from modelward.training import Extras, Recipe, fit
from modelward.training.extras import Companions

__all__ = ["WHITE_BOX", "Ground", "ScanningTheft", "reached", "relearn", "stamped_companions", "told"]


@dataclass(frozen=True, eq=False)
class Ground:
    """The thief's clean images, shared out: those he trains on, and those he watches the accuracy on."""

    pixels: Tensor
    targets: Tensor
    watched: Tensor
    watched_targets: Tensor
    images: ImageSet

    @classmethod
    def of(cls, view: AttackerView, clean: int, held: float, *, rng: torch.Generator) -> Ground:
        """Return ``clean`` drawn images of the view (all when there are no more), the share ``held`` of them set apart."""
        targets, pixels = view.targets(), view.images.pixels
        chosen = torch.randperm(len(pixels), generator=rng)[:clean]
        apart = chosen[: max(1, round(held * len(chosen)))]
        rest = chosen[len(apart) :] if len(chosen) > len(apart) else chosen
        unread = torch.zeros(len(chosen), dtype=torch.int64)  # a scan asks the model, not the labels
        images = ImageSet(pixels[chosen], unread, view.images.classes, view.images.name)
        return cls(pixels[rest], targets[rest], pixels[apart], targets[apart], images)

    def accuracy(self, model: nn.Module) -> float:
        """Return the accuracy on the images set apart."""
        return float((predict(model, self.watched).argmax(1) == self.watched_targets).float().mean())


def stamped_companions(ground: Ground, report: ScanReport, classes: Sequence[int], count: int) -> Companions:
    """Return a source of ``count`` clean images under drawn triggers of ``classes``, with the labels that they have without."""

    def draw(rng: torch.Generator) -> tuple[Tensor, Tensor]:
        where = torch.randint(0, len(ground.pixels), (count,), generator=rng)
        x, which = ground.pixels[where].to(torch.float32).div_(255), torch.randint(0, len(classes), (count,), generator=rng)
        for place, target in enumerate(classes):
            mine = which == place
            if bool(mine.any()):
                x[mine] = report.stamped(x[mine], target, rng=rng)
        return x, ground.targets[where]

    return draw


def reached(model: nn.Module, ground: Ground, report: ScanReport, classes: Sequence[int], *, rng: torch.Generator) -> float:
    """Return the share of watched images that a trigger still sends from another class to its own, the largest over ``classes``."""
    shares, answers = [0.0], predict(model, ground.watched).argmax(1)
    for target in classes:
        foreign = ground.watched[(ground.watched_targets != target) & (answers != target)]  # an image that goes there anyway is not moved
        if len(foreign):
            changed = report.stamped(foreign.to(torch.float32).div(255), target, rng=rng)
            shares.append(float((predict(model, changed).argmax(1) == target).float().mean()))
    return max(shares)


def relearn(
    model: nn.Module,
    ground: Ground,
    recipe: Recipe,
    companions: Companions | None,
    *,
    drop: float,
    left: Callable[[nn.Module], float],
    still: float,
    rng: torch.Generator,
) -> int:
    """Train ``model`` in place and come back to its best epoch.

    Accuracy falls when a trigger is unlearnt and comes back afterwards, so that nothing is stopped on the way. Of the epochs that lost no more than
    ``drop`` of the watched accuracy the best is that with the least ``left`` of the trigger, all below ``still`` being equal, and then the
    most accurate; where every epoch lost more, that with the largest difference of accuracy and what is left.

    Returns the number of the epoch, from 1.
    """
    start, seen = ground.accuracy(model), list[tuple[bool, float, float]]()
    best: dict[str, Tensor] = {}

    def note(net: nn.Module) -> bool:
        accuracy, share = ground.accuracy(net), left(net)
        within = accuracy >= start - drop
        seen.append((within, -max(share, still) if within else accuracy - share, accuracy))
        if max(seen) == seen[-1]:
            best.update({name: tensor.clone() for name, tensor in net.state_dict().items()})
        return False

    fit(model, ground.pixels, ground.targets, recipe, rng=rng, extras=Extras(companions=companions, until=note))
    if best:
        model.load_state_dict(best)
    return len(seen) - seen[::-1].index(max(seen)) if seen else 0


def told(report: ScanReport) -> dict[str, Any]:
    """Return what a log says of a scan."""
    return {
        "classes": list(report.classes), "sizes": report.sizes.tolist(), "success": report.success.tolist(),
        "anomaly": report.anomaly.tolist(), "p": report.p.tolist(), "flagged": list(report.flagged),
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ScanningTheft(TheftMethod, ABC):
    """Look for triggers, then take them out.

    Parameters
    ----------
    steps, restarts
        Adam steps of the search, and searches a class.
    clean
        images of the thief that are used, drawn from those that he has.
    gate, success
        index above which a class is flagged, and share of images that its trigger must send there.
    least
        how many classes are treated though fewer are flagged: those with the smallest triggers. With 0 an unflagged model is only fine-tuned.
    epochs, lr, batch
        of the training afterwards, with Adam.
    drop
        accuracy on a fifth of his images, set apart, that the thief is ready to lose, in [0, 1]; it chooses among the epochs.
    still
        share of the images under a found trigger that may still go to its class when it counts as gone.
    """

    steps: int = 200
    restarts: int = 1
    clean: int = 500
    gate: float = 2.0
    success: float = 0.9
    least: int = 1
    epochs: int = 10
    lr: float = 0.001
    batch: int = 32
    drop: float = 0.03
    still: float = 0.05

    def __post_init__(self) -> None:
        self._require(
            steps=(self.steps >= 1, ">= 1"), restarts=(self.restarts >= 1, ">= 1"), clean=(self.clean >= 2, ">= 2"),
            success=(0 < self.success <= 1, "in (0, 1]"), least=(self.least >= 0, ">= 0"), epochs=(self.epochs >= 0, ">= 0"),
            lr=(self.lr > 0, "> 0"), batch=(self.batch >= 1, ">= 1"), drop=(0 <= self.drop <= 1, "in [0, 1]"),
            still=(0 <= self.still <= 1, "in [0, 1]"),
        )  # fmt: skip

    @property
    def effort(self) -> float:
        """The search costs about as much as an epoch on the thief's images, for every 20 steps."""
        return self.epochs + self.steps * self.restarts / 20

    @property
    @abstractmethod
    def plan(self) -> Inversion:
        """How triggers are searched for."""

    def scan(self, model: nn.Module, images: ImageSet, *, rng: torch.Generator) -> ScanReport:
        """Return what the search of this attack finds in ``model``."""
        return scan(model, images, plan=self.plan, restarts=self.restarts, gate=self.gate, success=self.success, rng=rng)

    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        model = plain_copy(view.weights)
        ground = Ground.of(view, self.clean, 0.2, rng=rng)
        epochs, log = self._remove(model, ground, rng=rng, trace=trace)
        trace.steps += epochs
        for parameter in model.parameters():
            parameter.requires_grad_(True)
            parameter.grad = None
        return Theft(model, view.arch, log={"epochs": epochs, "head": head(model)[0], "images": len(ground.images), **log})

    @abstractmethod
    def _remove(self, model: nn.Module, ground: Ground, *, rng: torch.Generator, trace: Trace) -> tuple[int, dict[str, Any]]:
        """Change the copy ``model`` in place; return the epochs of training and what to log."""

    def _recipe(self) -> Recipe:
        """Return how the copy is trained."""
        return Recipe(epochs=self.epochs, lr=self.lr, batch=self.batch, optimizer="adam", schedule="constant", weight_decay=0.0)

    def _unlearnt(
        self, model: nn.Module, ground: Ground, report: ScanReport, classes: Sequence[int], *, per_batch: int, rng: torch.Generator
    ) -> dict[str, Any]:
        """Train the triggers of ``classes`` away; return the epoch that was kept, and what share of images the triggers still move."""
        judge = spawn(rng)

        def left(net: nn.Module) -> float:
            return reached(net, ground, report, classes, rng=generator(judge))

        companions = stamped_companions(ground, report, classes, per_batch) if classes else None
        kept = relearn(model, ground, self._recipe(), companions, drop=self.drop, left=left, still=self.still, rng=rng)
        return {"treated": list(classes), "kept_epoch": kept, "left": left(model)}

    def _treated(self, report: ScanReport, trace: Trace) -> tuple[int, ...]:
        """Return the classes whose triggers are taken out."""
        if not bool(report.sizes.isfinite().any()):
            trace.flag("the search found no trigger for any class: more steps are needed")
        return report.flagged or report.suspicious(self.least)
