"""Probe images of sample-correlation fingerprints, with where they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelward.core.errors import InputError, UsageError
from modelward.core.images import ImageSet
from modelward.imaging.corruptions import corrupt
from modelward.imaging.mixing import sac_cutmix
from modelward.imaging.quantise import to_uint8
from modelward.ownership.likeness import disputed

KINDS = ("disputed", "wrong", "explainable", "source", "normal", "cutmix", "mixed", "noise")
TREATMENTS = ("none", "jpeg 1", "gaussian_noise 4", "gaussian_blur 2", "cutmix 0.2", "cutmix 0.5", "halves")
MIN_PROBES = 10


@dataclass(frozen=True, eq=False)
class Probes:
    """Query images as uint8 (n, C, H, W), the labels of the images they were made from, and their indices among the candidates."""

    pixels: Tensor
    labels: Tensor
    index: Tensor


def copies(images: ImageSet, corruption: str, severities: Sequence[int], *, rng: torch.Generator) -> ImageSet:
    """Return ``images`` once per severity 0-5 of a corruption, 8-bit, one after the other; severity 0 is the image itself."""
    parts = [
        to_uint8(corrupt(images.batch(slice(None)), corruption, severity, rng=rng)) if severity else images.pixels
        for severity in severities
    ]  # fmt: skip
    name = f"{images.name}, {corruption} {' '.join(map(str, severities))}"
    return ImageSet(torch.cat(parts), images.labels.repeat(len(parts)), images.classes, name)


def mixture(images: ImageSet, *, rng: torch.Generator) -> ImageSet:
    """Return ``images`` once under each of `TREATMENTS`, 8-bit, one after the other.

    Models that learnt the same task by themselves stray from each other in different places under different changes; a copy follows its
    source under all of them.
    """
    x, parts = images.batch(slice(None)), []
    for name, _, level in (treatment.partition(" ") for treatment in TREATMENTS):
        if name == "none":
            parts.append(images.pixels)
        elif name == "cutmix":
            parts.append(to_uint8(sac_cutmix(x, rng=rng, side=float(level))))
        elif name == "halves":
            half = x.clone()
            half[:, :, : x.shape[2] // 2] = x[torch.randperm(len(x), generator=rng)][:, :, : x.shape[2] // 2]
            parts.append(to_uint8(half))
        else:
            parts.append(to_uint8(corrupt(x, name, int(level), rng=rng)))
    return ImageSet(torch.cat(parts), images.labels.repeat(len(parts)), images.classes, f"{images.name}, {', '.join(TREATMENTS)}")


def select(images: ImageSet, kind: str, count: int, *, answers: Sequence[Tensor], rng: torch.Generator) -> Probes:
    """Return up to ``count`` probes, chosen by all candidates alike.

    Parameters
    ----------
    images
        images that no model under study was trained on.
    kind
        ``disputed``: those on which the candidates disagree most; ``wrong``: most candidates err; ``explainable``: and some is right; ``source``: one
        candidate alone errs; ``normal``: any; ``mixed``: the disputed ones, of images made by `mixture`; ``cutmix``: any, one square patch of side
        .2 W pasted from another image; ``noise``: uniform noise (the null control of probe choice).
    answers
        logits (n, K) of every candidate, in their order.
    """
    if kind not in KINDS:
        message = f"probes are {', '.join(KINDS)}, not {kind!r}"
        raise UsageError(message)
    order = torch.randperm(len(images), generator=rng)
    labels = torch.stack([logits.argmax(1) for logits in answers])
    if kind in {"wrong", "explainable", "source"}:
        order = order[_telling(labels != images.labels, kind)[order]]
    elif kind in {"disputed", "mixed"}:
        order = order[disputed(labels)[order].argsort(descending=True, stable=True)]
    index = order[:count]
    if len(index) < MIN_PROBES:
        message = f"only {len(index)} of {len(images)} images serve as {kind!r} probes, {MIN_PROBES} are needed; pass more images, or probes_from='normal'"
        raise InputError(message)
    pixels = images.pixels[index]
    if kind == "cutmix":
        pixels = to_uint8(sac_cutmix(images.batch(index), rng=rng, side=0.2))
    elif kind == "noise":
        pixels = torch.randint(0, 256, pixels.shape, generator=rng, dtype=torch.uint8)
    return Probes(pixels, images.labels[index], index)


def _telling(wrong: Tensor, kind: str) -> Tensor:
    """Return a bool mask (n,) of images, from which candidates err on which, bool (m + 1, n)."""
    share = wrong.double().mean(0)
    if kind == "source":
        return wrong.sum(0) == 1
    return (share > 0.5) & (share < 1) if kind == "explainable" and len(wrong) > 1 else share > 0.5
