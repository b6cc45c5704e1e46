"""Le Merrer, Perez, Tredan: adversarial frontier stitching for remote neural network watermarking (2017)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modelward.core.card import Card
from modelward.core.claims import withstands
from modelward.core.deciding import Finding
from modelward.core.errors import FormatError, InputError
from modelward.core.guard import frozen, predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import REMEDY, Key
from modelward.core.ownership import Attack, Observation
from modelward.core.rng import derive_seed, generator
from modelward.imaging.quantise import to_uint8
from modelward.keys.derive import derive, stream
from modelward.marking.chances import SECOND
from modelward.marking.embedding import embed, fresh_copy, hit_rate
from modelward.ownership.drawing import UNDRAWN, committed_digest, other_secrets, secret_of, seed_tensor
from modelward.ownership.mark import Mark
from modelward.ownership.triggering import MAJORITY, TRIGGER, TriggerMethod, answers_of, towards
from modelward.statistics import binomial_p

LEVEL = 0.05
LEAST, SPARE, OTHERS = 10, 10, 999  # keys at least, images in the pool for each, and other subsets


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
    of a strong class are hardly moved. ``variant="hardened"`` prefers true adversaries.

    A pool of ten times as many such images is made without the secret, which draws ``count`` of them; the p-value is the rank of their hits among
    those of 999 other subsets. So a model that is robust, and hits all of the pool, is not accused.

    Parameters
    ----------
    count
        key images; fewer where less than ten times as many can be made. A verification asks the whole pool: ten times as many queries.
    eps
        size of the step, in units of [0, 1]; .25 on MNIST.
    """

    card: ClassVar[Card] = Card(
        name="frontier",
        title="adversarial key images that are answered rightly after all",
        paper="Le Merrer, Perez, Tredan: Adversarial frontier stitching for remote neural network watermarking, arXiv 1711.01894",
        taxonomy=TRIGGER,
        claims=withstands("ftal", "prune"),
        limits=(
            "a copy that is trained against adversarial examples answers the whole pool rightly, and the keys are lost among it",
            "the paper's rule takes an innocent model's chance for 1/2 and would accuse those that hit more",
            "needs ten times as many images as keys; a verification asks all of the pool, 1,000 images for 100 keys",
            "does not survive extraction: the stitches are far from what ordinary images teach",
        ),
        cost="embedding: ten epochs of fine-tuning; verification: one forward pass of a pool of 1,000 images",
    )

    eps: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(eps=(0 < self.eps <= 1, "in (0, 1]"))

    def _draw(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        del rng
        pixels, labels, index, true = self._pool(model, data)
        chosen = self._subset(len(pixels), true, bound(secret, _digest({"pool": pixels, "pool_labels": labels}), true))
        tensors = {
            "seed": seed_tensor(secret),
            "probes": pixels[chosen],
            "labels": labels[chosen],
            "index": index[chosen],
            "pool": pixels,
            "pool_labels": labels,
            "chosen": chosen,
        }
        source, of_true = state_digest(model), int((chosen < true).sum())
        facts = {
            "adversaries": {"true": of_true, "false": len(chosen) - of_true},
            "pool": {"digest": _digest(tensors), "size": len(pixels), "true": true},
        }
        return Mark(tensors, {**facts, "draws": {"of": "subsets of the pool", "source": source}})

    def _pool(self, model: nn.Module, data: ImageSet) -> tuple[Tensor, Tensor, Tensor, int]:
        """Return images that no secret chose, their labels, where they come from, and how many of them, the first ones, are true adversaries."""
        right = torch.nonzero(predict(model, data.pixels).argmax(1) == data.labels).flatten()
        if not len(right):
            raise InputError("frontier: the model answers none of these images rightly; pass images of its task")
        right = right[torch.randperm(len(right), generator=generator(derive_seed("frontier", state_digest(model), data.digest)))]
        moved = to_uint8(torch.cat([self._step(model, data.batch(part), data.labels[part]) for part in right.split(256)]))
        wrong = predict(model, moved).argmax(1) != data.labels[right]
        true, false = torch.nonzero(wrong).flatten(), torch.nonzero(~wrong).flatten()
        most = SPARE * self.count
        true = true[: most if self.variant == "hardened" else max(most // 2, most - len(false))]  # the paper takes half of either kind
        kept = torch.cat([true, false[: most - len(true)]])
        if len(kept) < SPARE * LEAST:
            message = (
                f"frontier: only {len(kept) // SPARE} keys could be made, ten times as many images are needed as keys, and {LEAST} keys at least; "
                f"pass more images, or another eps than {self.eps}"
            )
            raise InputError(message)
        return moved[kept], data.labels[right[kept]], right[kept], len(true)

    def _subset(self, size: int, true: int, secret: bytes) -> Tensor:
        """Return the places (n,) of one secret's keys in a pool of ``size`` images, ``true`` of them adversaries."""
        count, rng = min(self.count, size // SPARE), stream(secret, "images")
        if self.variant == "hardened":
            return torch.randperm(size, generator=rng)[:count].sort().values
        of_true = round(count * true / size)
        parts = torch.randperm(true, generator=rng)[:of_true], true + torch.randperm(size - true, generator=rng)[: count - of_true]
        return torch.cat(parts).sort().values

    def _undrawn(self, key: Key) -> tuple[str, ...]:
        if "seed" not in key.tensors:
            return (UNDRAWN.format(what="keys"),)
        size, true, digest = len(key.tensor("pool_labels")), int(key.fact(float, "pool", "true")), key.fact(str, "pool", "digest")
        drawn = self._subset(size, true, bound(secret_of(key.tensors), digest, true))
        return () if torch.equal(drawn, key.tensor("chosen")) else (UNDRAWN.format(what="keys"),)

    def probes(self, key: Key) -> Tensor:
        """Return the whole pool (N, C, H, W), uint8."""
        return key.tensor("pool" if "draws" in key.facts else "probes")  # keys of earlier versions hold no pool

    def _finding(self, observed: Observation, key: Key) -> Finding:
        labels, chosen = key.tensor("pool_labels"), key.tensor("chosen")
        size, true, digest = len(labels), int(key.fact(float, "pool", "true")), key.fact(str, "pool", "digest")
        good = chosen.dtype == torch.int64 and 0 < len(chosen) == min(self.count, size // SPARE) and 0 <= true <= size
        if not good or not 0 <= int(chosen.min()) <= int(chosen.max()) < size or digest != _digest(key.tensors):
            message = f"the pool of this {key.method} key is not the one whose digest it names, or its keys lie outside: {REMEDY}"
            raise FormatError(message)
        wrong = (answers_of(observed, size) != labels).double()
        own = {name: key.tensor(name) for name in ("pool", "pool_labels", "chosen")}
        fixed = committed_digest(self.card.name, self.variant, key.fact(str, "draws", "source"), self.settings(), own)
        others = tuple(float(wrong[self._subset(size, true, secret)].mean()) for secret in other_secrets(fixed, OTHERS))
        name = f"key images answered wrongly (of {len(chosen)})"
        most = _rare(len(chosen), size, int(wrong.sum()), min(self.significance, SECOND))
        return Finding(float(wrong[chosen].mean()), name, others, "other subsets of the pool", ceiling=min(MAJORITY, most))

    def _step(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the images one step up the loss."""
        leaf = x.clone().requires_grad_()
        with frozen(model), torch.enable_grad():
            (grad,) = torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)
        return (x + self.eps * grad.sign()).clamp_(0, 1)

    def _embed(self, model: nn.Module, data: ImageSet, mark: Mark, *, rng: torch.Generator) -> nn.Module:
        made = fresh_copy(model, self.start, rng=rng)
        keys, labels = mark.tensors["probes"], mark.tensors["labels"]

        def stitched(net: nn.Module) -> bool:
            return hit_rate(net, keys, labels) == 1

        embed(made, data, keys, labels, recipe=self.recipe, per_batch=self.per_batch, until=stitched, rng=rng)
        return made

    def _forge(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        """Return images of which the forger only says that his labels are their true classes: moved until the model answers so, no step wide."""
        classes = predict(model, data.pixels[:1]).shape[1]
        order = torch.randperm(len(data), generator=stream(secret, "forged images"))[: self.count]
        shift = torch.randint(1, classes, (len(order),), generator=stream(secret, "forged labels"))
        labels = (data.labels[order] + shift) % classes
        pixels = towards(model, data.batch(order), labels)
        drawn = self._draw(model, data, secret=secret, rng=rng)
        places = drawn.tensors["chosen"]
        order, labels, forged = order[: len(places)], labels[: len(places)], to_uint8(pixels)[: len(places)]
        pool, named = drawn.tensors["pool"].clone(), drawn.tensors["pool_labels"].clone()
        pool[places], named[places] = forged, labels
        tensors = {**drawn.tensors, "probes": forged, "labels": labels, "index": order, "pool": pool, "pool_labels": named}
        return Mark(tensors, {**drawn.facts, "forged": True, "pool": {**drawn.facts["pool"], "digest": _digest(tensors)}})

    def _limit(self, key: Key) -> float | None:
        count = len(key.tensors["labels"])
        return mismatches_allowed(count) / count

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return adversarial training, which moves the frontier, beside what all trigger marks have in common."""
        return (Attack("ft-adversarial", {}, "true"), *super().adaptive_attacks())


def _rare(count: int, size: int, wrong: int, level: float) -> float:
    """Return the largest share of wrong answers among ``count`` keys that is rare by chance, -1 for none.

    ``wrong`` of the ``size`` images of the pool are answered wrongly; nobody who tries a thousand secrets finds one whose keys do that much better.
    """
    from scipy.stats import hypergeom

    most = max((m for m in range(count + 1) if hypergeom.cdf(m, size, wrong, count) <= level), default=-1)
    return most / count


def bound(secret: bytes, digest: str, true: int) -> bytes:
    """Return what draws from a pool, so that nobody makes a pool to suit what was drawn."""
    return derive(secret, "pool", digest, str(true))


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the digest of a pool with its labels."""
    return state_digest({name: tensors[name] for name in ("pool", "pool_labels")})
