"""Train every model of the scenes that is not in a folder yet: ``python -m tests.truth.train FOLDER [SCENE ...]``; several may run side by side."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from tests.truth.worlds import Scene, photographs, scenes


def train(scene: Scene, name: str, folder: Path) -> None:
    """Train what is missing; a model that another process has begun is left to it."""
    for suspect in scene.everybody(folder):
        claim = folder / f"{suspect.digest}.claimed"
        if (folder / f"{suspect.digest}.safetensors").exists():
            continue
        try:
            claim.touch(exist_ok=False)
        except FileExistsError:
            continue
        began = time.perf_counter()
        try:
            suspect.model(folder)
        finally:
            claim.unlink()
        print(f"{name}: {suspect.name}: {time.perf_counter() - began:.1f} s", flush=True)


def main(folder: Path, names: list[str]) -> None:
    """Train the scenes called ``names``, or all of them on garments."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    found = scenes(folder) | {"photographs": photographs()}
    for name in names or ["foreign", "base", "ours"]:
        train(found[name], name, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
