"""IPGuard: points near the decision boundary as a fingerprint (Cao, Jia, Gong; AsiaCCS 2021, arXiv 1910.12903)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Card
from modelward.core.claims import withstands
from modelward.core.errors import UsageError
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.imaging.quantise import straight_through_8bit, to_uint8
from modelward.ownership.crafting import descend
from modelward.ownership.matching import MATCHING, Crafted, MatchingMethod

STARTS = ("data", "noise")
TARGETS = ("least", "random")


def boundary_loss(logits: Tensor, first: Tensor, second: Tensor, k: float) -> Tensor:
    r"""Return :math:`[Z_i - Z_j + k]_+ + [\max_{t \ne i,j} Z_t - Z_i]_+` per sample: 0 for a point that is j, by at least k, before i.

    Parameters
    ----------
    logits
        (N, K), K of at least 2.
    first, second
        the classes i and j, int64 (N,).
    k
        how far past the boundary, in logits.

    Examples
    --------
    >>> logits = torch.tensor([[1.0, 3.0, 0.0], [1.0, 1.5, 4.0]])
    >>> boundary_loss(logits, torch.tensor([0, 0]), torch.tensor([1, 1]), 1.0)
    tensor([0.0000, 3.5000])
    """
    z_i, z_j = (logits.gather(1, which[:, None]).squeeze(1) for which in (first, second))
    others = logits.scatter(1, torch.stack([first, second], 1), -torch.inf).amax(1)
    return (z_i - z_j + k).relu() + (others - z_i).relu()


@dataclass(frozen=True, kw_only=True)
class IPGuard(MatchingMethod):
    r"""Ask for the labels of points that the source puts just past the boundary from class i to class j.

    From an image of class i, Adam minimises :math:`[Z_i - Z_j + k]_+ + [\max_{t \ne i,j} Z_t - Z_i]_+` over images in [0, 1], until it is 0.

    ``variant="paper"`` takes the first ``count`` points as they come, rounded to 8 bits afterwards. ``variant="hardened"`` (default) repairs
    three things. The loss is that of the 8-bit image, so that a point is where it should be in the file that is sent, and points that did not
    get there are dropped. ``pool`` times as many points are made, and those are kept that the tuning siblings answer otherwise: points near the
    source's boundary are near everybody's where all models agree. And the verdict is the rank of the source among siblings whose points are made alike.

    Parameters
    ----------
    k
        how far past the boundary, in logits: more holds longer against changes of the model, and is shared by more strangers.
    start
        ``data``: images of the enrolment set, ``noise``: uniform noise (worse).
    target
        the class j: ``least`` likely at the start, or ``random``.
    steps, lr
        of Adam, a point at most; ``steps=0`` leaves the start images as probes, which is the control of the crafting.
    pool
        hardened: points made per point kept.

    Examples
    --------
    >>> from modelward import embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").test.take(slice(64))
    >>> source = embedded_model().model
    >>> method = IPGuard(count=20, steps=60, lr=0.02)
    >>> _, key = method.protect(source, images, rng=generator(0))
    >>> verdict = method.verify(source, key)
    >>> verdict.statistic, verdict.decision.value, len(method.probes(key))  # without siblings: one candidate, and nothing is decided
    (0.0, 'undecided', 20)
    """

    small: ClassVar[Mapping[str, Any]] = {"count": 30, "k": 1.0, "steps": 100, "lr": 0.02, "pool": 2}
    card: ClassVar[Card] = Card(
        name="ipguard",
        title="labels of points near the decision boundary",
        paper="Cao, Jia, Gong: IPGuard: protecting intellectual property of deep neural networks via fingerprinting the classification boundary, "
        "AsiaCCS 2021, arXiv 1910.12903",
        taxonomy=MATCHING,
        claims=withstands("ftal", "prune", "quantise"),
        limits=(
            "a model trained on the source's answers has boundaries of its own: extraction is hardly recognised",
            "of a model that was fine-tuned from a public network the boundaries are the network's: copies of it are hardly recognised",
        ),
        cost="enrolment: up to 200 passes of 200 points a candidate; verification: 50 labels a candidate; calibration trains the siblings",
    )

    k: float = 10.0
    start: str = "data"
    target: str = "least"
    steps: int = 200
    lr: float = 0.02
    pool: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start not in STARTS or self.target not in TARGETS:
            message = f"ipguard: start is {' or '.join(STARTS)}, target {' or '.join(TARGETS)}; got {self.start!r} and {self.target!r}"
            raise UsageError(message)
        self._require(
            k=(self.k >= 0, ">= 0"), steps=(self.steps >= 0, ">= 0"), lr=(self.lr > 0, "> 0"), pool=(self.pool >= 1, ">= 1")
        )  # fmt: skip

    def _craft(self, model: nn.Module, data: ImageSet, references: Sequence[nn.Module], *, rng: torch.Generator) -> Crafted:
        hardened = self.variant == "hardened"
        index = torch.randperm(len(data), generator=rng)[: self.count * (self.pool if hardened else 1)]
        x = data.batch(index)
        if self.start == "noise":
            x, index = torch.rand(x.shape, generator=rng), torch.full_like(index, -1)
        first, second = self._pairs(predict(model, x), rng=rng)

        def loss(z: Tensor, which: Tensor) -> Tensor:
            return boundary_loss(model(straight_through_8bit(z) if hardened else z), first[which], second[which], self.k)

        pixels = to_uint8(descend(loss, x, steps=self.steps, lr=self.lr))
        reached = boundary_loss(predict(model, pixels), first, second, self.k) == 0
        facts = {"made": len(pixels), "reached": int(reached.sum()), "k": self.k}
        kept = self._kept(model, pixels, reached, references) if hardened else torch.arange(len(pixels))
        return Crafted(pixels[kept], index[kept], facts)

    def _pairs(self, logits: Tensor, *, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the classes i and j of every start image."""
        first = logits.argmax(1)
        if self.target == "least":
            return first, logits.argmin(1)
        return first, (first + torch.randint(1, logits.shape[1], first.shape, generator=rng)) % logits.shape[1]

    def _kept(self, model: nn.Module, pixels: Tensor, reached: Tensor, references: Sequence[nn.Module]) -> Tensor:
        """Return the positions of the points that got where they should, those first that the fewest references answer like the source."""
        candidates = reached.nonzero().squeeze(1) if self.steps else torch.arange(len(pixels))
        if not len(candidates):
            return candidates
        own = predict(model, pixels[candidates]).argmax(1)
        shared = torch.zeros(len(candidates))
        for reference in references:
            shared += predict(reference, pixels[candidates]).argmax(1) == own
        return candidates[shared.argsort(stable=True)[: self.count]]
