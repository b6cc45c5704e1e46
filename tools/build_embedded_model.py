"""Train the LeNet-5 that comes with the package: on the owner's half of fashion-mini, seed 0.

Run it as ``python tools/build_embedded_model.py``; the same torch release and thread count give the same file.
"""

from __future__ import annotations

from pathlib import Path

import torch

import modelward
from modelward.core.rng import derive_seed, generator
from modelward.data import load_data, study
from modelward.evaluation.zoo import null_recipe
from modelward.models import build, save_model
from modelward.models.embedded import FILE
from modelward.training import accuracy, fit


def main() -> None:
    """Train and write the file."""
    torch.set_num_threads(1)
    parts = study(load_data("fashion-mini"), trained_on="owner", seed=0)
    rng = generator(derive_seed("embedded lenet5"))
    mean = float(parts.owner.pixels.float().mean() / 255)
    std = float(parts.owner.pixels.float().std() / 255)
    net = build("lenet5", classes=10, rng=rng, mean=[round(mean, 4)], std=[round(std, 4)])
    fit(net, parts.owner.pixels, parts.owner.labels, null_recipe("lenet5"), rng=rng)
    facts = {
        "trained_on": "owner", "data": "fashion-mini", "split_seed": "0", "owner_digest": parts.owner.digest, "source": "tools/build_embedded_model.py",
        "start": "none", "accuracy": f"{accuracy(net, parts.test):.4f}",
    }  # fmt: skip
    target = Path(modelward.__file__).parent / "models" / "embedded" / FILE
    target.parent.mkdir(exist_ok=True)
    save_model(target, net, facts)
    print(f"{target.name}: {target.stat().st_size} bytes, accuracy {facts['accuracy']}")


if __name__ == "__main__":
    main()
