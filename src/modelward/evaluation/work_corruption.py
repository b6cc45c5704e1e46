"""Work: accuracy under everyday changes of the images: recompression, noise, blur."""

from __future__ import annotations

import torch
from torch import Tensor

from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.rng import derive_seed, generator
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_model
from modelward.evaluation.rows import rate
from modelward.imaging.codecs import roundtrip
from modelward.imaging.corruptions import gaussian_blur, gaussian_noise
from modelward.imaging.quantise import to_uint8

LEVELS: dict[str, tuple[float, ...]] = {
    "jpeg": (95, 75, 50, 25, 10),
    "webp": (95, 75, 50, 25, 10),
    "noise": (0.02, 0.05, 0.1, 0.15, 0.2),
    "blur": (0.4, 0.6, 0.8, 1.0, 1.5),
}
UNITS = {"jpeg": "quality", "webp": "quality", "noise": "sigma", "blur": "sigma (pixels)"}


def changed(images: ImageSet, kind: str, level: float, *, rng: torch.Generator) -> Tensor:
    """Return the 8-bit images (N, C, H, W) under one change."""
    if kind in {"jpeg", "webp"}:
        return roundtrip(images.pixels, kind, int(level))
    x = images.batch(slice(None))
    return to_uint8(gaussian_noise(x, level, rng=rng) if kind == "noise" else gaussian_blur(x, level))


def curve(job: Job) -> Outcome:
    """Measure accuracy over the levels of one change, and on the same images unchanged. Settings: ``kind``, ``count``. Inputs: ``model``, ``test``."""
    torch.set_num_threads(job.threads)
    images, model = get_images(job.store, job.inputs["test"]), get_model(job.store, job.inputs["model"])
    images, kind = images.few(int(job.settings["count"])), str(job.settings["kind"])
    unchanged, rows = int((predict(model, images.pixels).argmax(1) == images.labels).sum()), []
    for level in LEVELS[kind]:
        pixels = changed(images, kind, level, rng=generator(derive_seed(job.seed, kind, level)))
        correct = predict(model, pixels).argmax(1) == images.labels
        rows.append(
            rate("accuracy", int(correct.sum()), len(correct), attack=kind, budget=f"{UNITS[kind]} {level:g}", data=images.name, seed=job.seed,
                 threads=job.threads, extra={"level": level, "unchanged": unchanged}).as_json()
        )  # fmt: skip
    return Outcome(rows)
