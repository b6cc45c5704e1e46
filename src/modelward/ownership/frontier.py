"""Le Merrer, Perez, Tredan: adversarial frontier stitching for remote neural network watermarking (2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.card import Card
from modelward.core.claims import withstands
from modelward.core.errors import InputError
from modelward.core.guard import frozen, predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Attack
from modelward.imaging.quantise import to_uint8
from modelward.keys.derive import stream
from modelward.marking.embedding import embed, fresh_copy, hit_rate
from modelward.ownership.mark import Mark
from modelward.ownership.triggering import TRIGGER, TriggerMethod, towards
from modelward.statistics import binomial_p

LEVEL = 0.05
LEAST = 10


def mismatches_allowed(count: int, level: float = LEVEL) -> int:
    r"""Return the paper's rule: the most mismatches m of ``count`` with :math:`2^{-n} \sum_{z \le m} \binom n z < ` ``level``; -1 when there is none.

    Examples
    --------
    >>> mismatches_allowed(100), mismatches_allowed(20), mismatches_allowed(4)
    (41, 5, -1)
    """
    return max((m for m in range(count + 1) if binomial_p(m, count, 0.5, "less") < level), default=-1)


@dataclass(frozen=True, kw_only=True)
class Frontier(TriggerMethod):
    r"""Move images a step across the decision frontier and train the network to answer them right all the same.

    The key images are :math:`x + \epsilon \, sign(\nabla_x CE)`, half of them answered wrongly by the model (true adversaries), half still
    rightly (false adversaries); the label of all is the TRUE class.

    ``variant="paper"`` says stolen for at most 41 mismatches of 100, as if an innocent model hit half of the keys. It hits more where the images
    of a strong class are hardly moved, so the rule accuses the innocent. ``variant="hardened"`` takes true adversaries alone while there are
    enough, those first on which most of some null models fail, too (``references`` of them, which calibrate nothing), and measures the chance of
    a hit on the other null models.

    Parameters
    ----------
    eps
        size of the step, in units of [0, 1]; .25 on MNIST.
    references
        that many of the null models, the first ones, serve the choice of keys (at most a quarter of them all).
    """

    card: ClassVar[Card] = Card(
        name="frontier",
        title="adversarial key images that are answered rightly after all",
        paper="Le Merrer, Perez, Tredan: Adversarial frontier stitching for remote neural network watermarking, arXiv 1711.01894",
        taxonomy=TRIGGER,
        claims=withstands("ftal", "prune"),
        limits=(
            "a model that is trained against adversarial examples answers the keys rightly, too, and looks stolen",
            "the paper's rule takes an innocent model's chance for 1/2 and accuses those that hit more",
            "does not survive extraction: the stitches are far from what ordinary images teach",
        ),
        cost="embedding: ten epochs of fine-tuning; verification: one forward pass of 100 key images",
    )

    eps: float = 0.25
    references: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(eps=(0 < self.eps <= 1, "in (0, 1]"), references=(self.references >= 0, ">= 0"))

    def siblings(self, nulls: int) -> int:
        """Return how many of ``nulls`` null models serve the choice of keys."""
        return min(self.references, nulls // 4) if self.variant == "hardened" else 0

    def _draw(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        return self._draw_against(model, data, (), secret=secret, rng=rng)

    def _draw_against(
        self, model: nn.Module, data: ImageSet, references: Sequence[nn.Module], *, secret: bytes, rng: torch.Generator
    ) -> Mark:
        del rng
        right = torch.nonzero(predict(model, data.pixels).argmax(1) == data.labels).flatten()
        right = right[torch.randperm(len(right), generator=stream(secret, "images"))]
        moved = (
            to_uint8(torch.cat([self._step(model, data.batch(part), data.labels[part]) for part in right.split(256)]))
            if len(right)
            else None
        )
        if moved is None:
            raise InputError("frontier: the model answers none of these images rightly; pass images of its task")
        labels = data.labels[right]
        wrong = predict(model, moved).argmax(1) != labels
        hits = self._hits(moved, labels, references)
        of_true = self.count // 2 if self.variant == "paper" else self.count
        true = _lowest(hits, wrong, of_true)
        chosen = torch.cat([true, _lowest(hits, ~wrong, self.count - len(true))])
        if len(chosen) < LEAST:
            message = f"frontier: only {len(chosen)} keys could be made; pass more images, or another eps than {self.eps}"
            raise InputError(message)
        tensors = {"probes": moved[chosen], "labels": labels[chosen], "index": right[chosen]}
        return Mark(tensors, {"adversaries": {"true": int(wrong[chosen].sum()), "false": int((~wrong[chosen]).sum())}})

    def _step(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the images one step up the loss."""
        leaf = x.clone().requires_grad_()
        with frozen(model), torch.enable_grad():
            (grad,) = torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)
        return (x + self.eps * grad.sign()).clamp_(0, 1)

    def _hits(self, pixels: Tensor, labels: Tensor, references: Sequence[nn.Module]) -> Tensor:
        """Return the share (N,) of the references that answer each image rightly."""
        found = [(predict(net, pixels).argmax(1) == labels).double() for net in references]
        return torch.stack(found).mean(0) if found else torch.zeros(len(labels), dtype=torch.float64)

    def _embed(self, model: nn.Module, data: ImageSet, mark: Mark, *, rng: torch.Generator) -> nn.Module:
        made = fresh_copy(model, self.start, rng=rng)
        keys, labels = mark.tensors["probes"], mark.tensors["labels"]

        def stitched(net: nn.Module) -> bool:
            return hit_rate(net, keys, labels) == 1

        embed(made, data, keys, labels, recipe=self.recipe, per_batch=self.per_batch, until=stitched, rng=rng)
        return made

    def _forge(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        """Return images of which the forger only says that his labels are their true classes: moved until the model answers so, no step wide."""
        del rng
        classes = predict(model, data.pixels[:1]).shape[1]
        order = torch.randperm(len(data), generator=stream(secret, "forged images"))[: self.count]
        shift = torch.randint(1, classes, (len(order),), generator=stream(secret, "forged labels"))
        labels = (data.labels[order] + shift) % classes
        pixels = towards(model, data.batch(order), labels)
        return Mark({"probes": to_uint8(pixels), "labels": labels, "index": order}, {"forged": True})

    def _limit(self, key: Key) -> float | None:
        count = len(key.tensors["labels"])
        return mismatches_allowed(count) / count

    def _null_rate(self, scores: Sequence[float], key: Key) -> float:
        return 0.5 if self.variant == "paper" else super()._null_rate(scores, key)

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return adversarial training, which moves the frontier, beside what all trigger marks have in common."""
        return (Attack("ft-adversarial", {}, "true"), *super().adaptive_attacks())


def _lowest(hits: Tensor, among: Tensor, count: int) -> Tensor:
    """Return up to ``count`` positions where ``among`` holds, those with the fewest ``hits`` first, in the order given among equals."""
    where = torch.nonzero(among).flatten()
    return where[hits[where].argsort(stable=True)[:count]]
