"""Attack a model from the shell: attacked images as PNG files, the model's answers to them, and figures with their null control."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelward.audit.question import Question, fitted
from modelward.audit.scope import require_family
from modelward.core import progress
from modelward.core.canonical import plain
from modelward.core.errors import InputError
from modelward.core.families import EvasionMethod
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.rng import derive_seed, generator
from modelward.evaluation.rows import Row, rate
from modelward.evaluation.work_evasion import radius_words
from modelward.imaging.norms import l1, l2, linf, random_in_ball
from modelward.imaging.quantise import as_8bit, to_uint8
from modelward.io.atomic import write_bytes
from modelward.io.images import png_bytes
from modelward.io.tables import write_csv

BATCH = 64
SIZES = {"linf": linf, "l2": l2, "l1": l1}


@dataclass(frozen=True)
class Attacked:
    """An attack on labelled images.

    Parameters
    ----------
    images
        what was attacked.
    pixels
        uint8 (N, C, H, W): the attacked images as they are written.
    targets
        labels to reach, for a targeted attack.
    before, after, after_float, after_noise
        the model's labels (N,): on the images, on the attacked ones in 8 bits and as floats, and on images with noise of the same norm.
    sizes
        by norm, the size (N,) of the change in 8 bits, pixels in [0, 1].
    flags, seconds
        reasons not to trust it; time of the attack.
    """

    images: ImageSet
    pixels: Tensor
    targets: Tensor | None
    before: Tensor
    after: Tensor
    after_float: Tensor
    after_noise: Tensor
    sizes: dict[str, Tensor]
    flags: tuple[str, ...]
    seconds: float


def attack(question: Question, method: str, settings: dict[str, Any], *, count: int = 512) -> dict[str, Any]:
    """Attack the first ``count`` test images of a question's data; return the result document, with the `Attacked` under ``attacked``.

    Raises
    ------
    UsageError
        for a method of another family or a setting that it does not have.
    InputError
        when model and data do not fit.
    """
    chosen: EvasionMethod = require_family(method, EvasionMethod, "evasion").configured(settings)
    loaded, splits = fitted(question)
    images = splits.test.few(count)
    found = attack_images(chosen, loaded.model, images, seed=derive_seed(question.seed, "attack", method))
    rows = _rows(chosen, found, seed=question.seed, threads=question.threads)
    return {
        "method": method, "settings": plain(chosen.settings()), "model": loaded.digest, "arch": loaded.arch, "data": images.name,
        "images": len(images), "seed": question.seed, "rows": [row.as_json() for row in rows], "flags": list(found.flags), "attacked": found,
    }  # fmt: skip


def attack_images(method: EvasionMethod, model: nn.Module, images: ImageSet, *, seed: int) -> Attacked:
    """Attack images in batches; a targeted attack aims at the class after the true one."""
    targets = (images.labels + 1) % len(images.classes) if method.targeted else None
    aims = images.labels if targets is None else targets
    parts, flags, seconds = [], list[str](), 0.0
    size = len(images) if method.universal else BATCH
    for start in range(0, len(images), size):
        chosen = slice(start, start + size)
        result = method.run(model, images.batch(chosen), aims[chosen], rng=generator(derive_seed(seed, start)))
        parts.append(result.value)
        flags += [flag for flag in result.flags if flag not in flags]
        seconds += result.seconds
        progress.advance(f"attack by {method.card.name}", min(start + size, len(images)), len(images))
    value, x = torch.cat(parts), images.batch(slice(None))
    noise = _noise_of_equal_norm(x, value, method.norm, seed)
    before, after, exact, noisy = (predict(model, part).argmax(1) for part in (images.pixels, as_8bit(value), value, noise))
    change = as_8bit(value) - x
    return Attacked(
        images, to_uint8(value), targets, before=before, after=after, after_float=exact, after_noise=noisy,
        sizes={norm: size(change) for norm, size in SIZES.items()}, flags=tuple(flags), seconds=seconds,
    )  # fmt: skip


def _noise_of_equal_norm(x: Tensor, value: Tensor, norm: str, seed: int) -> Tensor:
    """Return the images with random noise of each sample's own size in ``norm``, in 8 bits: what the same change does without intent."""
    unit = random_in_ball(tuple(x.shape), norm, 1.0, rng=generator(derive_seed(seed, "noise")), on_sphere=True)
    return as_8bit((x + unit * SIZES[norm](value - x).view(-1, 1, 1, 1)).clamp_(0, 1))


def _rows(method: EvasionMethod, found: Attacked, *, seed: int, threads: int) -> list[Row]:
    """Return accuracy before, after and under noise, the success of a targeted attack, and the sizes of the changes."""
    labels, n = found.images.labels, len(found.images)
    budget = f"{method.norm} {radius_words(method.eps, method.norm)}"
    facts: dict[str, Any] = {"data": found.images.name, "seed": seed, "threads": threads}
    here = facts | {"attack": method.card.name, "budget": budget, "flags": found.flags, "seconds": found.seconds}
    rows = [
        rate("accuracy", int((found.before == labels).sum()), n, attack="none", **facts),
        rate("accuracy", int((found.after == labels).sum()), n, **here, extra={"float_accuracy": float((found.after_float == labels).float().mean())}),
        rate("accuracy", int((found.after_noise == labels).sum()), n, attack="noise", budget=f"{method.norm}, each image's own size", **facts),
    ]  # fmt: skip
    if found.targets is not None:
        rows.append(rate("target_reached", int((found.after == found.targets).sum()), n, **here))
    changed = (found.after != labels) & (found.before == labels)
    for norm, sizes in found.sizes.items():
        of = sizes[changed].tolist()
        value = statistics.median(of) if of else float("nan")
        rows.append(Row(metric=f"median_{norm}", value=value, n=len(of), unit="pixels in [0, 1], images that were turned", **here))
    return rows


def require_room(folder: Path) -> Path:
    """Return the folder of the attacked images below ``folder``; raises `InputError` when it holds images already: two attacks must not mix."""
    target = folder / "images"
    if target.is_dir() and any(target.iterdir()):
        message = f"{target} holds images already; choose another --out"
        raise InputError(message)
    return target


def write_attack(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write ``images/00000.png ...``, ``answers.csv``, ``samples.csv`` and ``attack.json``; return the document without its tensors.

    ``answers.csv`` has the header ``file,label`` and holds the model's answers to the files, re-read in 8 bits.
    """
    import json

    found: Attacked = document["attacked"]
    target = require_room(folder)
    target.mkdir(parents=True, exist_ok=True)
    names = [f"{index:05d}.png" for index in range(len(found.pixels))]
    for name, image in zip(names, found.pixels, strict=True):
        write_bytes(target / name, png_bytes(image.numpy()))
    write_csv(folder / "answers.csv", ("file", "label"), zip(names, found.after.tolist(), strict=True))
    write_csv(folder / "samples.csv", ("file", "truth", "before", "after", *found.sizes), _samples(names, found))
    told = {key: value for key, value in document.items() if key != "attacked"}
    text = json.dumps({"schema": "modelward/attack", "version": 1, **told}, indent=1, allow_nan=False)
    write_bytes(folder / "attack.json", text.encode() + b"\n")
    return told


def _samples(names: Sequence[str], found: Attacked) -> list[list[object]]:
    """Return one line an image: truth, answers, sizes of the change."""
    columns = (found.images.labels, found.before, found.after, *(sizes.double().round(decimals=6) for sizes in found.sizes.values()))
    return [[name, *values] for name, *values in zip(names, *(column.tolist() for column in columns), strict=True)]
