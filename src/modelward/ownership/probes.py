"""Probe images of sample-correlation fingerprints, with where they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelward.core.errors import InputError, UsageError
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.imaging.corruptions import corrupt
from modelward.imaging.mixing import sac_cutmix
from modelward.imaging.quantise import to_uint8

KINDS = ("wrong", "explainable", "source", "normal", "cutmix", "mixed", "noise")
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


def select(
    images: ImageSet, kind: str, count: int, *, victim: nn.Module, references: Sequence[nn.Module] = (), rng: torch.Generator
) -> Probes:
    """Return up to ``count`` probes.

    Parameters
    ----------
    images
        candidates that no model under study was trained on.
    kind
        ``wrong``: the victim errs; ``explainable``: and some reference is right; ``source``: and every reference is right; ``normal``: any;
        ``mixed``: any, of candidates made by `mixture`;
        ``cutmix``: one square patch of side .2 W pasted from another image; ``noise``: uniform noise (the null control of probe choice).
    """
    if kind not in KINDS:
        message = f"probes are {', '.join(KINDS)}, not {kind!r}"
        raise UsageError(message)
    order = torch.randperm(len(images), generator=rng)
    if kind in {"wrong", "explainable", "source"}:
        order = order[_telling(images, kind, victim, references)[order]]
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


def _telling(images: ImageSet, kind: str, victim: nn.Module, references: Sequence[nn.Module]) -> Tensor:
    """Return a bool mask (N,): the victim errs, and the references understand the image as far as ``kind`` asks."""
    wrong = predict(victim, images.pixels).argmax(1) != images.labels
    if kind == "wrong" or not references:
        return wrong
    right = torch.stack([predict(model, images.pixels).argmax(1) == images.labels for model in references])
    return wrong & (right.all(0) if kind == "source" else right.any(0))
