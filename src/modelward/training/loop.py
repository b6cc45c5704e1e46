"""One loop for every network: channels last, bf16 where it pays, schedules, mixing, averaging, early stop, resumable bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core import progress
from modelward.core.canonical import digest_of
from modelward.core.devices import device_of, moved, working_device
from modelward.core.errors import InputError
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.lineage import images_digest, remember
from modelward.core.rng import generator, spawn
from modelward.imaging.mixing import cutmix_batch, mixup
from modelward.training.average import Average
from modelward.training.batches import augmented, joined, train_mode
from modelward.training.checkpoint import Checkpoint
from modelward.training.extras import Extras
from modelward.training.layout import laid_out, layout
from modelward.training.ranks import Ranks
from modelward.training.recipe import Recipe
from modelward.training.synchronised import synchronised

Adversary = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True)
class Epoch:
    """One line of a training log: mean loss, validation accuracy (``None`` without validation images)."""

    number: int
    loss: float
    accuracy: float | None


def accuracy(model: nn.Module, images: ImageSet) -> float:
    """Return the fraction of ``images`` that ``model`` classifies correctly, in fp32."""
    return float((predict(model, images.pixels).argmax(1) == images.labels).float().mean())


def fit(
    model: nn.Module,
    pixels: Tensor,
    targets: Tensor,
    recipe: Recipe,
    *,
    rng: torch.Generator,
    validation: ImageSet | None = None,
    checkpoint: Path | None = None,
    adversary: Adversary | None = None,
    extras: Extras | None = None,
    task: str = "training",
) -> list[Epoch]:
    """Train ``model`` in place, on the device that it lies on, and return its log.

    In a process group (`together`, torchrun) every process calls this with the same images and ends with the same weights: each computes its
    share of every batch, the order, the augmentation and the batch statistics are those of one process, and the first process alone writes
    the checkpoint and reports progress. An adversary draws for each share by itself.

    Parameters
    ----------
    model
        image batch in [0, 1] -> logits. Parameters with ``requires_grad=False`` stay as they are.
    pixels
        uint8 images (N, C, H, W).
    targets
        int64 labels (N,) or probabilities (N, K), for which the loss is the cross-entropy with soft targets.
    recipe
        the hyper-parameters.
    rng
        one seed is drawn from it; each epoch derives its own from that, so that a resumed run is bit-equal.
    validation
        images for ``recipe.patience``.
    checkpoint
        file to resume from and to write after every epoch; the file of another seed, recipe or training set is ignored and replaced.
    adversary
        ``(model, x, y, rng) -> x_adv`` in place of each batch, for adversarial training.
    extras
        samples that join every batch, a penalty, an early end; with one process only.

    Raises
    ------
    InputError
        when images and targets do not fit, or when the loss is no longer finite; for ``extras`` among many processes.
    """
    extras = extras or Extras()
    if len(pixels) != len(targets) or not len(pixels):
        message = f"{len(pixels)} images and {len(targets)} targets; training needs at least one and as many of each"
        raise InputError(message)
    began, seed = state_digest(model), spawn(rng)
    with moved(model, working_device(model)):
        log = _fit(model, pixels, targets, recipe, seed, validation, checkpoint, adversary, extras, task)
    plain = validation is None and adversary is None and extras == Extras()
    remember(model, recipe, seed=seed, start=began, images=images_digest(pixels, targets), plain=plain)
    return log


def _fit(
    model: nn.Module, pixels: Tensor, targets: Tensor, recipe: Recipe, seed: int, validation: ImageSet | None,
    checkpoint: Path | None, adversary: Adversary | None, extras: Extras, task: str,
) -> list[Epoch]:  # fmt: skip
    """Do as `fit`, with a model that lies where it is trained."""
    run = _Run(model, recipe, seed=seed, steps=recipe.epochs * -(-len(pixels) // recipe.batch), adversary=adversary, extras=extras)
    saved = Checkpoint(checkpoint, digest_of([run.seed, recipe, state_digest({"x": pixels, "y": targets})])) if checkpoint else None
    log = run.restore(saved) if saved else []
    for number in range(len(log), recipe.epochs):
        if recipe.patience and _stale(log, recipe.patience):
            break
        loss = run.epoch(pixels, targets, number)
        with run.average.applied(model):
            score = run.ranks.agreed(accuracy(model, validation)) if validation is not None and recipe.patience else None
        log.append(Epoch(number, loss, score))
        run.average.note(model, score)
        if run.ranks.first:
            progress.advance(task, number + 1, recipe.epochs, f"loss {loss:.3f}")
        if saved and run.ranks.first:
            saved.write(model, run.optimizer, run.average, [(e.number, e.loss, -1.0 if e.accuracy is None else e.accuracy) for e in log])
        if extras.until is not None and extras.until(model):
            break
    run.average.settle(model)
    model.eval()
    return log


def _stale(log: list[Epoch], patience: int) -> bool:
    """Return whether the best epoch is ``patience`` epochs or more ago."""
    scores = [epoch.accuracy or 0.0 for epoch in log]
    return bool(scores) and len(scores) - 1 - max(range(len(scores)), key=lambda i: (scores[i], -i)) >= patience


class _Run:
    """The moving parts of one training run."""

    def __init__(self, model: nn.Module, recipe: Recipe, *, seed: int, steps: int, adversary: Adversary | None, extras: Extras) -> None:
        self.layout = layout(model)
        self.model = model.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.device = device_of(model)
        self.ranks = Ranks.now(self.device)
        self.recipe, self.seed, self.steps, self.adversary = recipe, self.ranks.agreed_seed(seed), steps, adversary
        self.extras = extras
        if not self.ranks.alone and (extras.companions or extras.penalty or extras.until):
            raise InputError("extra samples and penalties are for training in one process; train the mark without torchrun")
        self.parallel = self.ranks.parallel(self.model)
        self.optimizer = recipe.make_optimizer(model.parameters())
        self.average = Average(recipe.ema, keep_best=recipe.patience > 0)
        self.bf16 = recipe.autocasts(model)

    def restore(self, saved: Checkpoint) -> list[Epoch]:
        """Put the state of a checkpoint back and return its log."""
        with self.ranks.file_of_first(saved.path) as path:
            log = saved.restore(self.model, self.optimizer, self.average, path)
        return [Epoch(int(e[0]), e[1], None if e[2] < 0 else e[2]) for e in log]

    def epoch(self, pixels: Tensor, targets: Tensor, number: int) -> float:
        """Run one epoch and return the mean loss."""
        rng = generator((self.seed + 0x9E3779B97F4A7C15 * (number + 1)) % 2**63)
        order = torch.randperm(len(pixels), generator=rng)
        batches = order.split(self.recipe.batch)
        train_mode(self.model)
        total = torch.zeros((), device=self.device)
        for index, chosen in enumerate(batches):
            if len(chosen) == 1 and len(order) > 1:
                continue  # batch normalisation has no variance over one image
            x, y = self._batch(pixels[chosen], targets[chosen], rng)
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.rate(number * len(batches) + index, self.steps)
            total += self._step(x, y) * len(chosen)
        total = self.ranks.total(total)
        loss = float(total) / len(order)
        if not torch.isfinite(total):
            message = f"training diverged in epoch {number + 1} (loss {loss}); use a smaller learning rate than {self.recipe.lr}"
            raise InputError(message)
        return loss

    def _batch(self, pixels: Tensor, targets: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the augmented and mixed float batch with its targets, on the model's device; all draws are made on the CPU."""
        recipe = self.recipe
        x = augmented(pixels.to(torch.float32).div_(255), crop=recipe.crop, flip=recipe.flip, rng=rng)
        x, y = x.to(self.device), targets.to(self.device)
        if self.adversary is not None:
            x = self._attacked(x, y, rng, self.adversary)
        if recipe.mixup or recipe.cutmix:
            soft = y if y.ndim == 2 else F.one_hot(y, self._classes(x)).float()
            use_mixup = bool(recipe.mixup) and (not recipe.cutmix or float(torch.rand((), generator=rng)) < 0.5)
            mixed = mixup(x, soft, rng=rng, alpha=recipe.mixup) if use_mixup else cutmix_batch(x, soft, rng=rng, alpha=recipe.cutmix)
            x, y = mixed
        if self.extras.companions is not None:
            x, y = joined(x, y, *self.extras.companions(rng))
        return laid_out(x, self.layout), y

    def _attacked(self, x: Tensor, y: Tensor, rng: torch.Generator, adversary: Adversary) -> Tensor:
        """Return the batch under the adversary, of which every process attacks its share."""
        if self.ranks.alone:
            return adversary(self.model, x, y, rng)
        mine, own = self.ranks.share(len(x)), generator((spawn(rng) + self.ranks.rank) % 2**63)
        part = x[mine]
        return self.ranks.whole(adversary(self.model, part, y[mine], own) if len(part) else part, len(x))

    def _classes(self, x: Tensor) -> int:
        """Return the number of outputs, asked of the model once."""
        if not hasattr(self, "_outputs"):
            self._outputs = predict(self.model, x[:2]).shape[1]
            train_mode(self.model)
        return self._outputs

    def _step(self, x: Tensor, y: Tensor) -> Tensor:
        """Take one optimisation step and return the detached loss; of many processes, this one's part of the sum that is the loss."""
        mine = self.ranks.share(len(x))
        with synchronised(self.model, self.ranks):
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
                logits = self.parallel(x[mine])
            loss = self._loss(logits.float() / self.recipe.temperature, y[mine], len(x))
            if self.extras.penalty is not None:
                loss = loss + self.extras.penalty(self.model)
            self.optimizer.zero_grad(set_to_none=True)
            (loss * self.ranks.size).backward()  # gradients of processes are averaged
        self.optimizer.step()
        self.average.update(self.model)
        return loss.detach()

    def _loss(self, logits: Tensor, y: Tensor, count: int) -> Tensor:
        """Return the mean cross-entropy; of many processes, the sum over this one's share by the ``count`` of all."""
        smoothing = self.recipe.label_smoothing
        if self.ranks.alone:
            return F.cross_entropy(logits, y, label_smoothing=smoothing)
        return F.cross_entropy(logits, y, label_smoothing=smoothing, reduction="sum") / count
