"""Compare the engines on short training cells, and jobs with threads: ``python bench/machines.py --only ray,farm --models 20``."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from modelward import Recipe, load_data
from modelward.core.images import ImageSet
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine
from modelward.evaluation.parcels import put_images
from modelward.evaluation.place import Place
from modelward.evaluation.ray_cluster import joined
from modelward.evaluation.store import Store


def farm(store: Store, images: ImageSet, models: int, *, epochs: int, threads: int = 1) -> list[Cell]:
    """Return cells that train small nets."""
    digest = put_images(store, images)
    recipe = dict(vars(Recipe(epochs=epochs, batch=64, lr=0.05)))
    return [
        Cell("modelward.evaluation.work_training:train", {"arch": "resnet8", "recipe": recipe, "fraction": 1.0, "group": "bench"},
             {"images": digest, "test": digest}, seed=seed, label=f"net {seed}", threads=threads)
        for seed in range(models)
    ]  # fmt: skip


def timed(images: ImageSet, models: int, *, epochs: int, jobs: int, threads: int = 1, place: Place | None = None) -> float:
    """Return the seconds of one farm in a fresh store."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        cells = farm(store, images, models, epochs=epochs, threads=threads)
        started = time.perf_counter()
        run = Engine(store, jobs=jobs, place=place or Place()).run(cells)
        seconds = time.perf_counter() - started
    if run.failed:
        raise SystemExit(next(iter(run.failed.values())))
    return seconds


def ray_rows(images: ImageSet, options: argparse.Namespace) -> list[tuple[str, float, str]]:
    """Time two Ray workers against two processes, workers' start in both; the start of Ray itself is a figure of its own."""
    started = time.perf_counter()
    ratios, ray, process = [], [], []
    with joined(None, 2):
        start = time.perf_counter() - started
        for _ in range(options.rounds):
            process.append(timed(images, options.models, epochs=options.epochs, jobs=2))
            ray.append(timed(images, options.models, epochs=options.epochs, jobs=2, place=Place("ray")))
            ratios.append(ray[-1] / process[-1])
    return [
        ("start of Ray, seconds", start, ""),
        (f"{options.models} nets, 2 processes, seconds", statistics.median(process), ""),
        (f"{options.models} nets, 2 Ray workers, seconds", statistics.median(ray), ""),
        ("Ray workers / processes", statistics.median(ratios), "<= 1.15"),
    ]


def farm_rows(images: ImageSet, options: argparse.Namespace) -> list[tuple[str, float, str]]:
    """Time two jobs of one thread against one job of two threads."""
    ratios = []
    for _ in range(options.rounds):
        wide = timed(images, options.models, epochs=options.epochs, jobs=1, threads=2)
        ratios.append(timed(images, options.models, epochs=options.epochs, jobs=2, threads=1) / wide)
    return [(f"{options.models} nets: 2 jobs x 1 thread / 1 job x 2 threads", statistics.median(ratios), "<= 1.0")]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="ray,farm")
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    images = load_data("fashion-mini").train.take(slice(0, options.images))
    parts = {"ray": ray_rows, "farm": farm_rows}
    rows = [row for name, part in parts.items() if name in options.only.split(",") for row in part(images, options)]
    for figure, value, target in rows:
        sys.stdout.write(f"{figure:60} {value:9.3f}  {target}\n")
    if options.out:
        options.out.write_text(json.dumps([dict(zip(("figure", "value", "target"), row, strict=True)) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
