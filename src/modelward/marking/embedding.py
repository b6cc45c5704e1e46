"""Teach a network its key images beside its task: keys join every normal batch, so that batch normalisation never sees a batch of keys."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from modelward.core.errors import InputError
from modelward.core.guard import predict, private_copy
from modelward.core.images import ImageSet
from modelward.core.rng import forked
from modelward.models.net import Net
from modelward.models.nets import build
from modelward.training import Extras, Recipe, fit
from modelward.training.batches import joined
from modelward.training.extras import Companions, Penalty
from modelward.training.loop import Epoch

STARTS = ("finetune", "scratch")


def fresh_copy(model: nn.Module, start: str, *, rng: torch.Generator) -> nn.Module:
    """Return a network to mark: a copy of ``model`` (``"finetune"``), or one of its architecture with new weights (``"scratch"``).

    Raises
    ------
    InputError
        for new weights of a module that does not say its architecture.
    """
    if start == "finetune":
        return private_copy(model)
    if not isinstance(model, Net):
        raise InputError("training from scratch needs a network that says its architecture; use start='finetune'")
    made = build(model.arch, classes=model.classes, channels=model.channels, size=model.size, rng=rng)
    return made.train()


def sampler(pixels: Tensor, labels: Tensor, per_batch: int, more: Companions | None = None) -> Companions:
    """Return a source of ``per_batch`` random key images with their labels, followed by what ``more`` gives.

    Parameters
    ----------
    pixels
        uint8 (n, C, H, W).
    labels
        int64 (n,), or probabilities (n, K).
    """

    def draw(rng: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(0, len(pixels), (per_batch,), generator=rng)
        x, y = pixels[chosen].to(torch.float32).div_(255), labels[chosen]
        return (x, y) if more is None else joined(x, y, *more(rng))

    return draw


def hit_rate(model: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    """Return the share of key images that ``model`` gives their label, in [0, 1]."""
    return float((predict(model, pixels).argmax(1) == labels).double().mean())


def embed(
    model: nn.Module,
    images: ImageSet,
    pixels: Tensor,
    labels: Tensor,
    *,
    recipe: Recipe,
    per_batch: int,
    more: Companions | None = None,
    penalty: Penalty | None = None,
    until: Callable[[nn.Module], bool] | None = None,
    rng: torch.Generator,
) -> list[Epoch]:
    """Train ``model`` in place on ``images`` and, ``per_batch`` of them in every batch, on key images; return the log.

    Parameters
    ----------
    model
        image batch -> logits; it may have more outputs than ``images`` has classes.
    images
        the owner's training images.
    pixels, labels
        key images, uint8 (n, C, H, W), and what they are to be answered with.
    recipe, per_batch
        how to train; how many keys join each batch.
    more
        further samples for every batch, such as decoys.
    penalty, until
        as `modelward.training.Extras` says.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> from modelward.data import load_data
    >>> rng, images = generator(0), load_data("fashion-mini").train.take(slice(0, 256))
    >>> net = build("mlp:width=32", classes=10, channels=1, size=(28, 28), rng=rng)
    >>> keys = torch.randint(0, 256, (10, 1, 28, 28), generator=rng, dtype=torch.uint8)
    >>> log = embed(net, images, keys, torch.arange(10), recipe=Recipe(epochs=8, lr=0.05, batch=32), per_batch=8, rng=rng)
    >>> hit_rate(net, keys, torch.arange(10))
    1.0
    """
    if not len(pixels):
        raise InputError("no key images to embed")
    extras = Extras(sampler(pixels, labels, per_batch, more), penalty, until)
    with forked(rng):
        return fit(model, images.pixels, images.labels, recipe, rng=rng, extras=extras, task="embedding")
