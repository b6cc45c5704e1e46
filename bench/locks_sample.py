"""Sample-specific lock: an authorised answer against a plain one, and drawing triggers, images a second; one JSON object.

Both sides are timed one after the other in every round, on one torch thread; each figure is a median over rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

import torch

from modelward import SampleLock, build, generator, load_data

BATCH = 256


def seconds(work: Callable[[], object]) -> float:
    """Return how long ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rows(rounds: int) -> list[dict[str, object]]:
    """Return the ratio for every architecture, and how fast triggers are drawn."""
    data, made = load_data("fashion-mini").train.take(slice(BATCH)), []
    x = data.batch(slice(None))
    for arch in ("lenet5", "resnet8"):
        model = build(arch, classes=10, rng=generator(0)).eval()
        lock = SampleLock(epochs=0, least=0.0)  # speed does not depend on training
        locked, key = lock.lock(model, data, rng=generator(0))
        opened, net = lock.unlock(locked, key), lock.generator_of(key)
        with torch.inference_mode():
            opened(x), model(x), net(x)
            ratios, drawn = [], []
            for _ in range(rounds):
                plain = seconds(lambda m=model: m(x))
                ratios.append(seconds(lambda m=opened: m(x)) / plain)
                drawn.append(BATCH / seconds(lambda n=net: n(x)))
        made += [
            {"figure": f"sample-lock, authorised answer, {arch}", "against": f"a plain answer, {BATCH} images", "value": statistics.median(ratios),
             "low": min(ratios), "high": max(ratios), "rounds": rounds, "target": "none"},
            {"figure": f"sample-lock, triggers drawn, {arch}", "against": "images a second", "value": statistics.median(drawn), "low": min(drawn),
             "high": max(drawn), "rounds": rounds, "target": "none"},
        ]  # fmt: skip
    return made


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps({"rows": rows(options.rounds), "torch": torch.__version__, "threads": 1}, indent=1) + "\n")


if __name__ == "__main__":
    main()
