"""ActiveGuard: a crafting step for all users against one forward and backward pass, and answers to the authorised; one JSON object.

Both sides are timed one after the other in every round, on one torch thread; each figure is a median over rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F

from modelward import ActiveGuard, build, generator, load_data
from modelward.attacks.evasion.descent import leaf_of
from modelward.core.guard import frozen
from modelward.imaging.quantise import to_float
from modelward.locks.gate import Pass
from modelward.locks.probing import Crafting

USERS, PROBES, ASKED, STEPS = 100, 4, 256, 10
SECRET = b"a secret of thirty-two bytes ...."


def seconds(work: Callable[[], object]) -> float:
    """Return how long ``work`` takes."""
    gc.collect()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compared(work: Callable[[], object], against: Callable[[], object], rounds: int) -> list[float]:
    """Return time of ``work`` over time of ``against``, for every round after a warm one; who goes first takes turns."""
    work(), against()
    made = []
    for number in range(rounds):
        first, second = (work, against) if number % 2 else (against, work)
        spent = {first: seconds(first), second: seconds(second)}
        made.append(spent[work] / spent[against])
    return made


def row(figure: str, against: str, found: Sequence[float], target: str) -> dict[str, object]:
    """Return a figure with its smallest and largest round."""
    return {"figure": figure, "against": against, "value": statistics.median(found), "low": min(found), "high": max(found),
            "rounds": len(found), "target": target}  # fmt: skip


def crafting(arch: str, rounds: int) -> dict[str, object]:
    """Return what a step costs beside the pure passes over as many images."""
    net, seeds = build(arch, classes=10, rng=generator(0)).eval(), load_data("fashion-mini").train.pixels[: USERS * PROBES]
    windows = torch.tensor([[number % 10, 0.5, 0.6] for number in range(len(seeds))], dtype=torch.float64)
    craft, x, y = Crafting(), to_float(seeds), windows[:, 0].long()
    run = craft.begun(x, windows)

    def steps() -> None:
        for number in range(1, STEPS + 1):
            craft.step(net, run, windows, number)

    def passes() -> None:
        for _ in range(STEPS):
            leaf = leaf_of(x)  # in the layout that the attacks use too
            torch.autograd.grad(F.cross_entropy(net(leaf), y), leaf)

    with frozen(net):
        found = compared(steps, passes, rounds)
    return row(f"ActiveGuard, a crafting step of {len(x)} probes, {arch}", "one forward+backward of as many images", found, "<= 1.2")


def answering(arch: str, rounds: int) -> list[dict[str, object]]:
    """Return what an authorised answer costs beside one of the original, opened from a bound file and through a pass of the server."""
    images = load_data("fashion-mini").train.take(slice(0, 256))
    net = build(arch, classes=10, rng=generator(0)).eval()
    method = ActiveGuard(nulls=64, steps=1, bits=16, epochs=1, share=0.0005, images=32)
    locked, key = method.lock(net, images, secret=SECRET, rng=generator(0))
    opened, x = method.unlock(locked, key), images.batch(slice(0, ASKED))
    door, made = Pass("ann", opened), []
    with torch.no_grad():
        for name, ask in (("bound", opened), ("server", door)):

            def answers(ask: Callable[[torch.Tensor], torch.Tensor] = ask) -> None:
                for _ in range(STEPS):
                    ask(x)

            def plain() -> None:
                for _ in range(STEPS):
                    net(x)

            found = compared(answers, plain, 3 * rounds)
            made.append(row(f"ActiveGuard, authorised answers to {ASKED} images, {name}, {arch}", "the original network", found, "<= 1.02"))
    return made


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    archs = ("lenet5", "resnet8")
    rows = [crafting(arch, options.rounds) for arch in archs] + [made for arch in archs for made in answering(arch, options.rounds)]
    sys.stdout.write(json.dumps({"rows": rows, "torch": torch.__version__, "threads": 1}, indent=1) + "\n")


if __name__ == "__main__":
    main()
