"""What thieves make of locked images: they clean them, mix their own in, train against an adversary, or rename what was learned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from modelward.attacks.theft.adversarial_finetune import pgd_adversary
from modelward.attacks.theft.label_remap import LabelRemap
from modelward.core.guard import outputs, predict
from modelward.core.images import ImageSet
from modelward.core.rng import derive_seed, generator
from modelward.core.view import AttackerView
from modelward.evaluation.rows import Row, rate
from modelward.evaluation.zoo import null_recipe
from modelward.imaging.filters import median_filter
from modelward.imaging.quantise import to_float, to_uint8
from modelward.models.autoencoder import empty_autoencoder, train_autoencoder
from modelward.models.nets import build
from modelward.models.parts import reinitialise
from modelward.training import fit
from modelward.training.loop import Adversary

CLEAN, PURE, LABELS = 0.1, 0.05, 40  # shares of clean images that a thief mixes in and learns to clean by; labels that he renames by
STEPS = 3


@dataclass(frozen=True, eq=False)
class School:
    """Where networks learn: their architecture, the clean test images that they are asked about, a seed, and what every row says.

    All networks of a school begin with the same weights: what they learn differs by the images alone.
    """

    arch: str
    test: ImageSet
    seed: int
    said: dict[str, float]

    def net(self, images: ImageSet, adversary: Adversary | None = None) -> nn.Module:
        """Return a network that was trained on images."""
        channels, height, width = images.shape
        rng = generator(derive_seed(self.seed, "train"))
        made = build(self.arch, classes=len(images.classes), channels=channels, size=(height, width), rng=rng)
        fit(made, images.pixels, images.labels, null_recipe(self.arch), rng=rng, adversary=adversary)
        return made

    def row(self, metric: str, net: nn.Module, asked: ImageSet | None = None, **rest: Any) -> Row:
        """Return a network's accuracy on the test images, or on what a thief makes of them."""
        right = predict(net, (asked or self.test).pixels).argmax(1) == self.test.labels
        chance = float(self.test.labels.bincount().max() / len(self.test))
        extra = {"chance": chance, **self.said, **rest.pop("extra", {})}
        return rate(metric, int(right.sum()), len(right), extra=extra, **rest)

    def learn(self, metric: str, images: ImageSet, **rest: Any) -> Row:
        """Return the accuracy of a network that was trained on images."""
        return self.row(metric, self.net(images), **rest)


def attempts(school: School, locked: ImageSet, own: ImageSet, published: nn.Module, eps: float) -> Iterator[Row]:
    """Yield what thieves reach; where they have clean images of their own, training on those alone stands beside it.

    Parameters
    ----------
    locked, own
        what is published, and the thief's clean images.
    published
        the network that learned from the locked images as they are.
    eps
        what a pixel was moved by at most, in [0, 1].
    """
    for name, change in CLEANERS.items():
        cleaned = replace(locked, pixels=change(locked.pixels))
        yield school.learn("recovered", cleaned, attack=name, extra=_told("cleaning"))
    few = own.few(max(1, round(CLEAN * len(locked))))
    both = ImageSet(torch.cat([locked.pixels, few.pixels]), torch.cat([locked.labels, few.labels]), locked.classes, locked.name)
    mixed = _told("clean images", school.learn("from_scratch", few), len(few))
    yield school.learn("recovered", both, attack=f"{CLEAN:.0%} clean images beside", budget=f"images {len(few)}", extra=mixed)
    yield _renamed(school, own, published)
    hardened = school.net(locked, pgd_adversary(eps / 2, eps / 4, STEPS))  # at half the budget these networks still learn
    yield school.row("recovered", hardened, attack="adversarial training", budget=f"PGD, {STEPS} steps", extra=_told("training"))
    yield _purified(school, locked, own.few(max(1, round(PURE * len(locked)))))


def _told(group: str, alone: Row | None = None, images: int | None = None) -> dict[str, Any]:
    """Return what goes with an attempt: training from scratch on the thief's own images, where he has any."""
    interval = [alone.ci_low, alone.ci_high] if alone else None
    return {"group": group, "from_scratch": alone.value if alone else None, "from_scratch_ci": interval, "images": images}


def _renamed(school: School, own: ImageSet, published: nn.Module) -> Row:
    """Return what renaming the answers of a network that learned from locked images gives."""
    theft = LabelRemap(images=LABELS)
    renamed = theft.steal(AttackerView.of_model(published, own), rng=generator(derive_seed(school.seed, "rename"))).model
    alone = school.learn("from_scratch", own.few(LABELS))
    told = _told("clean images", alone, LABELS)
    return school.row("recovered", renamed, attack="labels renamed", budget=f"images {LABELS}", extra=told)


def _purified(school: School, locked: ImageSet, own: ImageSet) -> Row:
    """Return what is learned from images that went through an autoencoder, which a thief trained on clean images of his own."""
    coder, rng = empty_autoencoder(own.shape[0], 16), generator(derive_seed(school.seed, "coder"))
    reinitialise(coder, rng=rng)
    train_autoencoder(coder, own.pixels, epochs=40, lr=3e-3, noise=0.06, batch=32, rng=rng)
    first, asked = (replace(part, pixels=to_uint8(outputs(coder, part.pixels))) for part in (locked, school.test))
    told = _told("cleaning", school.learn("from_scratch", own), len(own))
    return school.learn("recovered", first, asked=asked, attack="autoencoder", budget=f"images {len(own)}", extra=told)


def _coarse(pixels: Tensor) -> Tensor:
    """Return images of four grey levels a channel."""
    return pixels // 64 * 64 + 32


CLEANERS: dict[str, Callable[[Tensor], Tensor]] = {
    "median filter": lambda pixels: to_uint8(median_filter(to_float(pixels))),
    "four grey levels": _coarse,
}
