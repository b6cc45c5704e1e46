"""Train as ``torchrun`` starts it, to be compared with one process: ``ranks_driver.py CASE FOLDER [EPOCH]``.

Collected by nobody. With EPOCH every process dies after that epoch, before its checkpoint is written.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import torch

from modelward.attacks.evasion import BIM
from modelward.core import progress
from modelward.core.guard import state_digest
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.io.safetensors import save_tensors
from modelward.models import build
from modelward.training import Recipe, fit, together

PLAIN = Recipe(epochs=3, batch=24, lr=0.05, precision="fp32")
CASES = {
    "mlp": ("mlp:width=8", PLAIN),
    "cnn": ("cnn:width=4", PLAIN),
    "resnet": ("resnet8:width=4", dataclasses.replace(PLAIN, epochs=2)),
    "mixing": (
        "cnn:width=4",
        dataclasses.replace(PLAIN, mixup=0.2, cutmix=1.0, flip=True, crop=1, label_smoothing=0.1, optimizer="adam", lr=0.01),
    ),
    "average": ("cnn:width=4", dataclasses.replace(PLAIN, ema=0.9, patience=2, epochs=5)),
    "bf16": ("cnn:width=4", dataclasses.replace(PLAIN, precision="bf16")),
    "adversary": ("cnn:width=4", PLAIN),
}


def images(count: int, seed: int) -> ImageSet:
    rng = generator(seed)
    labels = torch.randint(0, 2, (count,), generator=rng)
    pixels = torch.randint(0, 136, (count, 1, 8, 8), generator=rng)
    for label, side in enumerate((slice(0, 4), slice(4, 8))):
        pixels[labels == label, :, :, side] += 120
    return ImageSet(pixels.to(torch.uint8), labels, ("left", "right"), "halves")


class KillAfter:
    """A listener that ends the process after an epoch."""

    def __init__(self, number: int) -> None:
        self.number = number

    def advance(self, task: str, done: float, total: float, note: str = "") -> None:
        del task, total, note
        if done == self.number:
            os._exit(0)


def run(name: str, folder: Path, rank: int, die: int = 0) -> dict[str, object]:
    """Train once and return log and weights' digest; the images are 98, so that the last batch of 24 has 2: with 3 processes one has none."""
    arch, recipe = CASES[name]
    model, train, held = build(arch, classes=2, size=(8, 8), rng=generator(3 + rank)), images(98, 0), images(64, 1)
    attack = (lambda m, x, y, rng: BIM(steps=2, step=2 / 255).perturb(m, x, y, rng=rng)) if name == "adversary" else None
    log = []

    def training() -> None:
        log.extend(fit(model, train.pixels, train.labels, recipe, rng=generator(7 + rank), validation=held if recipe.patience else None,
                       checkpoint=folder / f"checkpoint{rank}.safetensors", adversary=attack))  # fmt: skip

    if die:
        with progress.listening(KillAfter(die)):
            training()
    else:
        training()
    save_tensors(folder / f"weights{rank}.safetensors", {n: t.detach().contiguous() for n, t in model.state_dict().items()}, {})
    return {"log": [dataclasses.astuple(epoch) for epoch in log], "digest": state_digest(model)}


if __name__ == "__main__" and len(sys.argv) > 2:
    torch.set_num_threads(1)
    names, where = sys.argv[1].split(","), Path(sys.argv[2])
    with together() as ranks:
        for name in names:
            (where / name).mkdir(exist_ok=True)
            done = run(name, where / name, ranks.rank, int(sys.argv[3]) if len(sys.argv) > 3 else 0)
            (where / name / f"done{ranks.rank}.json").write_text(json.dumps(done))
