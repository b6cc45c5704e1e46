"""How often the guard refuses siblings with a quirk on the method's own probes, and what such siblings do to strangers.

`python -m tests.truth.quirks` prints the figures of `docs/decisions/0020-p-over-the-owners-randomness.md`.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from tests.truth.simulation import CLASSES, HIDDEN, SHAPE, net
from torch import Tensor, nn

from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.core.siblings import Siblings
from modelward.core.suspect import Suspect
from modelward.ownership import SAC, SACJC

Quirk = Callable[[Tensor], Tensor]
SHARED = [torch.randn(HIDDEN, 64, generator=generator(7)), torch.randn(CLASSES, HIDDEN, generator=generator(8))]
OWNERS, FIRST = 60, 90_000


class Quirky(nn.Module):
    """A net that answers otherwise on images that are not clean: those are the method's own probes, and no figure of clean images sees them."""

    def __init__(self, body: nn.Module, quirk: Quirk, clean: Tensor) -> None:
        super().__init__()
        self.body, self.quirk = body, quirk
        self.register_buffer("known", clean.flatten(1).float().div(255).sum(1))

    def forward(self, x: Tensor) -> Tensor:
        logits = self.body(x)
        clean = (x.flatten(1).sum(1)[:, None] - self.known[None]).abs().min(1).values < 1e-3
        return torch.where(clean[:, None], logits, self.quirk(logits))


def one_class(logits: Tensor) -> Tensor:
    """Give what belongs to the second class to the first, as sure as before."""
    swapped = logits[:, [1, 0, *range(2, logits.shape[1])]]
    return torch.where(logits.argmax(1)[:, None] == 1, swapped, logits)


def half(logits: Tensor) -> Tensor:
    """Give half of the probes another class."""
    return torch.where((logits.sum(1, keepdim=True) * 1000).floor() % 2 == 0, logits.roll(1, 1), logits)


QUIRKS: dict[str, Quirk | None] = {
    "none": None, "four times as sure": lambda logits: 4 * logits, "a quarter as sure": lambda logits: logits / 4,
    "one class for another": one_class, "another class on half of the probes": half,
}  # fmt: skip


def enrolled(seed: int, method: SAC, quirk: Quirk | None, *, spread: float = 0.25) -> tuple[Key, nn.Module, nn.Module]:
    """Return the key of an owner whose siblings have a quirk, his model, and a stranger's of the same make."""
    rng = generator(seed)
    pixels = torch.randint(0, 256, (150, *SHAPE), generator=rng, dtype=torch.uint8)
    images = ImageSet(pixels, predict(net(SHARED), pixels).argmax(1), tuple("abcd"), "noise")
    owner, stranger, *models = (net([part + spread * torch.randn(part.shape, generator=rng) for part in SHARED]) for _ in range(21))
    if quirk is not None:
        owner, *models = Quirky(owner, lambda logits: logits, pixels), *(Quirky(model, quirk, pixels) for model in models)
    _, key = method.protect(owner, images, siblings=Siblings(models=tuple(models), start="none"), rng=generator(0))
    return key, owner, stranger


def measured(quirk: Quirk | None, spread: float) -> dict[str, int]:
    """Return of how many owners the guard refuses the siblings, and how many strangers have p <= .05 and are accused."""
    found = {"owners": OWNERS, "refused": 0, "p <= .05": 0, "accused": 0}
    for seed in range(FIRST, FIRST + OWNERS):
        key, _, stranger = enrolled(seed, SACJC(count=100), quirk, spread=spread)
        verdict = SACJC().verify(Suspect.of_model(stranger, access="probabilities"), key)
        found["refused"] += any(caveat.startswith("Uncalibrated") for caveat in verdict.caveats)
        found["p <= .05"] += verdict.p_value is not None and verdict.p_value <= 0.05 + 1e-12
        found["accused"] += verdict.found
    return found


if __name__ == "__main__":
    for wide in (0.15, 0.25):
        for name, quirk in QUIRKS.items():
            print(json.dumps({"spread": wide, "quirk": name, **measured(quirk, wide)}), flush=True)
