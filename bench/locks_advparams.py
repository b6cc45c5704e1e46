"""AdvParams: time for one parameter that is moved, against one forward and backward pass over all of its images; one JSON object.

Both sides are timed one after the other in every round, on one torch thread; each figure is a median over rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from modelward import AdvParams, build, generator, load_data
from modelward.core.guard import private_copy
from modelward.core.images import ImageSet
from modelward.imaging.quantise import to_float

TARGET = "<= 1.3"
MOVES = 32


def seconds(work: Callable[[], object]) -> float:
    """Return how long ``work`` takes."""
    gc.collect()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rows(rounds: int, images: int = 256) -> list[dict[str, object]]:
    """Return a row for every architecture and recipe: the ratio, its smallest and largest round."""
    data: ImageSet = load_data("fashion-mini").train
    made: list[dict[str, object]] = []
    for arch in ("lenet5", "resnet8"):
        model = build(arch, classes=10, rng=generator(0)).eval()
        count = sum(parameter.numel() for parameter in model.parameters())
        x, y, plain = to_float(data.pixels[:images]), data.labels[:images], private_copy(model)
        names = {"paper": {"layers": 4, "per_layer": MOVES // 4, "step": 1.0, "beta": 0.0, "target": 1e9},
                 "hardened, one a gradient": {"share": MOVES / count, "each": 1}, "hardened": {"share": MOVES / count}}  # fmt: skip
        for name, fields in names.items():
            method = AdvParams(variant=name.partition(",")[0], images=images, **fields)

            def passes(plain: torch.nn.Module = plain, x: torch.Tensor = x, y: torch.Tensor = y) -> None:
                torch.autograd.grad(F.cross_entropy(plain(x), y), list(plain.parameters()))

            method.trail(model, data, rng=generator(0)), passes()
            found = []
            for _ in range(rounds):
                one = statistics.median(seconds(passes) for _ in range(5))
                trails: list[int] = []
                spent = seconds(lambda m=method, t=trails, n=model: t.append(len(m.trail(n, data, rng=generator(0)).moves)))
                found.append(spent / trails[0] / one)
            made.append({"figure": f"AdvParams, time for a moved parameter, {arch}, {name}", "against": f"one forward+backward of {images} images",
                         "value": statistics.median(found), "low": min(found), "high": max(found), "rounds": rounds, "target": TARGET})  # fmt: skip
    return made


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps({"rows": rows(options.rounds), "torch": torch.__version__, "threads": 1}, indent=1) + "\n")


if __name__ == "__main__":
    main()
