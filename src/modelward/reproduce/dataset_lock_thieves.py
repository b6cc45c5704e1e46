"""What a thief who knows the dataset lock tries on a locked set before he trains on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.attacks.evasion.pgd import PGD
from modelward.core.guard import outputs
from modelward.core.images import ImageSet
from modelward.core.rng import derive_seed, generator
from modelward.imaging.augment import augmix, cutout
from modelward.imaging.codecs import roundtrip
from modelward.imaging.filters import mean_filter, median_filter, round_levels
from modelward.imaging.quantise import to_float, to_uint8
from modelward.locks.dataset_lock import DatasetLock
from modelward.marking import rdh
from modelward.models.autoencoder import empty_autoencoder, train_autoencoder
from modelward.models.parts import reinitialise
from modelward.training import Recipe
from modelward.training.loop import Adversary

FILTERS: dict[str, Callable[[Tensor], Tensor]] = {
    "blur": lambda x: to_uint8(mean_filter(to_float(x))),
    "median": lambda x: to_uint8(median_filter(to_float(x))),
    "4 bits": lambda x: to_uint8(round_levels(to_float(x), 16)),
    "jpeg 50": lambda x: roundtrip(x, "jpeg", 50),
    "grey": lambda x: x.float().mean(1, keepdim=True).round().to(torch.uint8).expand_as(x).contiguous(),
}
AUGMENTED: dict[str, Callable[..., Tensor]] = {"cutout": cutout, "augmix": augmix}
OTHERS = ("cutmix", "mixup", *AUGMENTED, "adversarial training", "autoencoder", "hidden data taken out", "class means undone")


@dataclass(frozen=True, eq=False)
class Thief:
    """What is tried: its name, the share of clean images he has, the lock, what is published of it, a seed."""

    name: str
    share: float
    lock: DatasetLock
    arrays: Mapping[str, NDArray[np.generic]]
    seed: int


def prepared(
    thief: Thief, images: ImageSet, clean: ImageSet, test: ImageSet, recipe: Recipe
) -> tuple[ImageSet, ImageSet, Recipe, Adversary | None]:
    """Return what a thief trains on, what he asks the net about, how he trains, and against whom."""
    rng = generator(derive_seed(thief.seed, "thief"))
    adversary: Adversary | None = None
    if thief.share:
        count = max(1, round(thief.share * len(clean)))
        pixels = images.pixels.clone()
        pixels[:count] = clean.pixels[:count]
        images = replace(images, pixels=pixels)
    if thief.name in FILTERS:
        images, test = (replace(part, pixels=FILTERS[thief.name](part.pixels)) for part in (images, test))
    elif thief.name == "mixup":
        recipe = replace(recipe, mixup=1.0)
    elif thief.name == "cutmix":
        recipe = replace(recipe, cutmix=1.0)
    elif thief.name in AUGMENTED:
        adversary = _augmenting(thief.name)
    elif thief.name == "adversarial training":
        adversary = _adversary(thief.lock.eps / 255)
    elif thief.name == "autoencoder":
        images, test = _purified(images, clean.few(len(clean) // 20), test, rng)
    elif thief.name == "hidden data taken out":
        images = replace(images, pixels=_without_hidden(images.pixels, thief))
    elif thief.name == "class means undone":
        images = replace(images, pixels=_without_means(images, thief.lock.block))
    return images, test, recipe, adversary


def _adversary(eps: float) -> Adversary:
    """Return PGD of five steps at half the budget of the lock, at which these nets still learn."""
    method = PGD(eps=eps / 2, steps=5, step=eps / 5)

    def attack(model: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:
        training = model.training
        made = method.perturb(model, x, y, rng=rng)
        model.train(training)
        return made

    return attack


def _augmenting(name: str) -> Adversary:
    """Return a change of every batch by one of the augmentations."""

    def change(model: nn.Module, x: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:  # noqa: ARG001
        return AUGMENTED[name](x, rng=rng)

    return change


def _purified(images: ImageSet, own: ImageSet, test: ImageSet, rng: torch.Generator) -> tuple[ImageSet, ImageSet]:
    """Return both sets through an autoencoder that learned from the thief's own clean images, a twentieth."""
    net = empty_autoencoder(images.shape[0], 16)
    reinitialise(net, rng=rng)
    train_autoencoder(net, own.pixels, epochs=40, lr=3e-3, noise=0.06, batch=32, rng=rng)
    first, second = (replace(part, pixels=to_uint8(outputs(net, part.pixels))) for part in (images, test))
    return first, second


def _without_hidden(pixels: Tensor, thief: Thief) -> Tensor:
    """Return images without the bits in them, as anybody can undo them; what they say is enciphered, and the shifts stay."""
    made, rooms, how = pixels.clone(), thief.arrays["rooms"], thief.arrays["how"]
    for number, plan in enumerate(thief.lock.plans()):
        own = np.flatnonzero(how == number)
        if len(own):
            room = rdh.Room(*rooms[own].astype(np.int64).T)
            made[own] = torch.from_numpy(rdh.extract(pixels[own].numpy(), room, block=plan.block)[1])
    return made


def _without_means(images: ImageSet, block: int) -> Tensor:
    """Return images less the shifts that a class has in common, as the mean steps across the edges of its blocks tell them.

    Within a block a picture goes on smoothly, across an edge it steps by the difference of two shifts: least squares give the shifts.
    """
    made = images.pixels.float()
    for k in range(len(images.classes)):
        own = torch.nonzero(images.labels == k).flatten()
        if len(own):
            mean = images.pixels[own].float().mean(0)
            made[own] -= torch.stack([_steps(channel, block) for channel in mean])
    return made.round().clamp(0, 255).to(torch.uint8)


def _steps(mean: Tensor, block: int) -> Tensor:
    """Return the shift of every pixel of one mean image (H, W): that of its block, by least squares over steps across edges."""
    height, width = mean.shape
    high, wide = -(-height // block), -(-width // block)
    number = torch.arange(high * wide).view(high, wide)
    pairs: list[tuple[int, int, float]] = []
    for i in range(high):
        for j in range(wide):
            if (j + 1) * block < width:
                rows, edge = slice(i * block, (i + 1) * block), (j + 1) * block
                pairs.append((int(number[i, j]), int(number[i, j + 1]), _jump(mean[rows, :], edge)))
            if (i + 1) * block < height:
                columns, edge = slice(j * block, (j + 1) * block), (i + 1) * block
                pairs.append((int(number[i, j]), int(number[i + 1, j]), _jump(mean[:, columns].T, edge)))
    matrix = torch.zeros(len(pairs) + 1, high * wide)
    for row, (first, second, _) in enumerate(pairs):
        matrix[row, first], matrix[row, second] = -1.0, 1.0
    matrix[-1] = 1.0
    wanted = torch.tensor([step for *_, step in pairs] + [0.0])
    shifts = torch.linalg.lstsq(matrix, wanted[:, None]).solution.view(1, 1, high, wide)
    return F.interpolate(shifts, scale_factor=block, mode="nearest")[0, 0, :height, :width]


def _jump(lines: Tensor, edge: int) -> float:
    """Return the step across an edge between columns, less what the slopes on both sides explain."""
    inside = [lines[:, edge - 1] - lines[:, edge - 2]] if edge >= 2 else []
    inside += [lines[:, edge + 1] - lines[:, edge]] if edge + 1 < lines.shape[1] else []
    slope = torch.stack(inside).mean(0) if inside else torch.zeros(len(lines))
    return float((lines[:, edge] - lines[:, edge - 1] - slope).mean())


def remapped(found: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return for every answer (K,) the label that it most often stands for among a few clean images; itself where it was never given.

    Examples
    --------
    >>> remapped(torch.tensor([1, 1, 0, 1]), torch.tensor([2, 2, 1, 0]), 3).tolist()
    [1, 2, 2]
    """
    votes = torch.zeros(classes, classes, dtype=torch.int64)
    votes.index_put_((found, labels), torch.ones_like(found), accumulate=True)
    return torch.where(votes.sum(1) > 0, votes.argmax(1), torch.arange(classes))


def every() -> tuple[Any, ...]:
    """Return the names of all that is tried."""
    return (*FILTERS, *OTHERS)
