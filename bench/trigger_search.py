"""Time the trigger search over ten classes in one batched optimisation against the same search class by class, on one torch thread."""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from modelward import Recipe, build, fit, generator, load_data
from modelward.core.guard import frozen, predict
from modelward.marking.inversion import Inversion, Search


def main() -> None:
    """Measure, and print the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--arch", default="lenet5")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = load_data("fashion-mini").train.take(slice(0, 1000))
    net = build(options.arch, classes=10, channels=1, size=(28, 28), rng=generator(0))
    fit(net, images.pixels, images.labels, Recipe(epochs=2, lr=0.05, batch=64), rng=generator(1))
    x, answers = images.batch(slice(0, 200)), predict(net, images.pixels[:200]).argmax(1)

    def seconds(batch: int, *targets: list[int], screen: bool = False) -> float:
        started = time.process_time()
        for chosen in targets:
            search = Search(net, x, answers, torch.tensor(chosen), Inversion(steps=options.steps, batch=batch), rng=generator(2))
            search.advance(options.steps // 5 if screen else options.steps)
            if screen:
                search.keep(torch.arange(5))
                search.advance(options.steps - options.steps // 5)
        return time.process_time() - started

    rows = []
    with frozen(net):
        for batch in (16, 64):
            found = []
            for _ in range(options.rounds):
                alone = seconds(batch, *([k] for k in range(10)))
                found.append((alone, seconds(batch, list(range(10))), seconds(batch, list(range(10)), screen=True)))
            for k, how in ((1, ""), (2, ", five of ten kept after a fifth of the steps")):
                figure = f"trigger search over ten classes in one batch{how}, {options.arch}, {batch} images a class"
                faster = statistics.median(row[0] / row[k] for row in found)
                rows.append({"figure": figure, "against": "class by class, times faster", "value": faster, "target": ">= 3"})
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
