"""Craft one universal perturbation from 300 images on LeNet-5 at several radii: ``python bench/universal.py --out FILE``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from modelward import RandomNoise, UniversalPerturbation, embedded_model, generator, load_data
from modelward.core.guard import predict


def main() -> None:
    """Print fooling on the images it was crafted from and on 300 unseen ones, beside noise of equal norm, and the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, test = embedded_model().model, load_data("fashion-mini").test
    seen, unseen = test.take(slice(0, 300)), test.take(slice(300, 600))
    rows = []
    for eps in (2.0, 3.0, 3.5, 4.0):
        method = UniversalPerturbation(norm="l2", eps=eps)
        result = method.run(model, seen.batch(slice(None)), seen.labels, rng=generator(0))
        change = method.fit(model, seen, rng=generator(0))
        x, before = unseen.batch(slice(None)), predict(model, unseen.pixels).argmax(1)
        noise = RandomNoise(norm="l2", eps=eps).perturb(model, x, unseen.labels, rng=generator(1))
        fooled = [float((predict(model, images).argmax(1) != before).float().mean()) for images in (change.apply(x), noise)]
        rows.append({"eps": eps, "seen": change.fooling_rate, "unseen": fooled[0], "noise": fooled[1], "n": 300, "seconds": result.seconds})
        print("  ".join(f"{name} {value:.3f}" for name, value in rows[-1].items()))
    if options.out:
        options.out.write_text(json.dumps({"rows": rows, "torch": torch.__version__}, indent=1) + "\n")


if __name__ == "__main__":
    main()
