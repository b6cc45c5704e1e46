"""Time hiding and recovery of a locked set of 32x32 colour images on one core: ``python bench/locks_dataset.py --out FILE``."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

from modelward import generator
from modelward.core.rng import derive_seed
from modelward.locks.collision import Shifts
from modelward.locks.hiding import hide, reveal

GOAL = 200.0


def pictures(count: int) -> torch.Tensor:
    """Return colour images with coarse and fine structure, as photographs have it, uint8 (N, 3, 32, 32)."""
    rng = generator(derive_seed("bench", "pictures"))
    coarse = torch.nn.functional.interpolate(torch.rand(count, 3, 5, 5, generator=rng), size=(32, 32), mode="bicubic")
    fine = 0.02 * torch.randn(count, 3, 32, 32, generator=rng)
    return ((coarse + fine) * 255).clamp(0, 255).to(torch.uint8)


def main() -> None:
    """Print images a second for blocks of 4 and of 2 pixels, coded both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pixels, rows = pictures(options.images), []
    names, secret = [str(i) for i in range(options.images)], bytes(32)
    for block in (4, 2):
        plan = Shifts(eps=16, unit=8, block=block)
        low, high = plan.limits(pixels)
        drawn = torch.randint(-2, 3, low.shape, generator=generator(1))
        shifts = torch.minimum(torch.maximum(drawn, low), high).to(torch.int16)
        seconds = []
        for _ in range(options.rounds):
            started = time.process_time()
            hidden = hide(pixels, shifts, plan, secret=secret, names=names)
            middle = time.process_time()
            fits = hidden.rooms[:, 0] > 0
            kept = type(hidden)(hidden.pixels[fits], hidden.rooms[fits])
            back = reveal(kept, plan, secret=secret, names=[n for n, fit in zip(names, fits.tolist(), strict=True) if fit])
            seconds.append((middle - started, time.process_time() - middle))
            if not torch.equal(back, pixels[fits]):
                raise SystemExit("what came back is not what was hidden")
        hiding, opening = (options.images / statistics.median(column) for column in zip(*seconds, strict=True))
        rows.append({"block": block, "hidden_per_second": hiding, "recovered_per_second": opening, "fit": float(fits.float().mean()),
                     "goal": GOAL, "met": min(hiding, opening) >= GOAL, "n": options.images})  # fmt: skip
    text = json.dumps({"rows": rows, "torch": torch.__version__}, indent=1)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
