"""Adi et al.: turning your weakness into a strength, watermarking deep neural networks by backdooring (USENIX Security 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Card
from modelward.core.claims import withstands
from modelward.core.deciding import Finding
from modelward.core.errors import InputError, UsageError
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Attack, Observation
from modelward.imaging.abstract import abstract_images
from modelward.keys.derive import derive, stream
from modelward.marking.chances import by_chance
from modelward.marking.diverse import diverse_images
from modelward.marking.embedding import embed, fresh_copy, hit_rate
from modelward.marking.leaves import leaf, tree
from modelward.ownership.drawing import UNDRAWN, alike, secret_of, seed_tensor
from modelward.ownership.mark import Mark
from modelward.ownership.triggering import TRIGGER, TriggerMethod, answers_of
from modelward.training import Recipe

PART = "A part of a key shows that its pictures were committed to, and not that a secret drew them: whoever decides has to be shown the whole key."


@dataclass(frozen=True, kw_only=True)
class Adi(TriggerMethod):
    r"""Train pictures of nothing to be answered with labels drawn at random.

    ``variant="paper"`` draws the pictures one by one, appends ``per_batch`` of them to every batch for all ``epochs`` while the rate is divided
    by ten after each third, and takes the chance of a hit for 1/K. ``variant="hardened"`` keeps the pictures that differ most, appends ``boost``
    times as many, and stops when the network answers every one of them.

    The labels are uniform and independent of the pictures, whatever those are: a suspect that does not know the secret hits
    :math:`Bin(n, 1/K)` of them at most, so that the p-value is exact.

    Each pair of picture and label is committed to by a digest of its own, so that a few pairs can be opened (`opened`) and the mark be proven
    again with others.

    Parameters
    ----------
    count
        number of pictures.
    epochs, batch, lr, per_batch
        of the embedding. The paper's rate is .1, for a ResNet-18; networks without batch normalisation diverge under it.
    boost
        of the hardened variant.
    """

    card: ClassVar[Card] = Card(
        name="adi",
        title="abstract key images with random labels",
        paper="Adi, Baum, Cisse, Pinkas, Keshet: Turning your weakness into a strength, USENIX Security 2018, arXiv 1802.04633",
        taxonomy=TRIGGER,
        claims=(*withstands("ftll", "ftal", figures=dict.fromkeys(("ftll", "ftal"), "about 100 % of the key images")),),
        limits=(
            "small networks forget random labels: fine-tuning all layers or retraining the last one removes most of them",
            "the pictures are like no photograph: a detector of foreign queries refuses them",
            "key images that were opened are known from then on, and a part of a key decides nothing: it does not show that a secret drew it",
            "does not survive extraction: a new model that learns from answers to ordinary images never sees the pictures",
        ),
        cost="embedding: a fine-tuning of up to 60 epochs; verification: one forward pass of 100 key images",
    )

    epochs: int = 60
    batch: int = 100
    per_batch: int = 2
    boost: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(boost=(self.boost >= 1, ">= 1"))

    @property
    def recipe(self) -> Recipe:
        """How the mark is embedded."""
        schedule = "thirds" if self.variant == "paper" else "cosine"
        return Recipe(epochs=self.epochs, batch=self.batch, lr=self.lr, schedule=schedule)

    def _draw(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        del rng
        classes = predict(model, data.pixels[:1]).shape[1]
        tensors = {
            **self._pairs(secret, classes, data.shape),
            "salts": torch.stack([_bytes(derive(secret, "salt", str(i), length=16)) for i in range(self.count)]),
        }
        facts = {"leaves": _leaves(tensors), "draws": {"of": "labels", "classes": classes}}
        return Mark({**tensors, "seed": seed_tensor(secret)}, facts)

    def _pairs(self, secret: bytes, classes: int, shape: tuple[int, int, int]) -> dict[str, Tensor]:
        """Return the pictures and the labels of a secret."""
        make = abstract_images if self.variant == "paper" else diverse_images
        labels = torch.randint(0, classes, (self.count,), generator=stream(secret, "labels"))
        return {"probes": make(self.count, shape, rng=stream(secret, "pictures")), "labels": labels}

    def _undrawn(self, key: Key) -> tuple[str, ...]:
        if "opened" in key.facts:
            return (PART,)
        pixels, labels = key.tensor("probes"), key.tensor("labels")
        if pixels.ndim != 4 or "seed" not in key.tensors or len(labels) != self.count:
            return (UNDRAWN.format(what="pictures and labels"),)
        _, *shape = pixels.shape
        drawn = self._pairs(secret_of(key.tensors), int(key.fact(float, "draws", "classes")), (shape[0], shape[1], shape[2]))
        same = torch.equal(labels, drawn["labels"]) and alike(pixels, drawn["probes"])
        return () if same else (UNDRAWN.format(what="pictures and labels"),)

    def _embed(self, model: nn.Module, data: ImageSet, mark: Mark, *, rng: torch.Generator) -> nn.Module:
        made = fresh_copy(model, self.start, rng=rng)
        keys, labels = mark.tensors["probes"], mark.tensors["labels"]
        hardened = self.variant == "hardened"

        def learnt(net: nn.Module) -> bool:
            return hit_rate(net, keys, labels) == 1

        many = self.per_batch * (self.boost if hardened else 1)
        embed(made, data, keys, labels, recipe=self.recipe, per_batch=many, until=learnt if hardened else None, rng=rng)
        return made

    def _forge(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        forged = super()._forge(model, data, secret=secret, rng=rng)
        return replace(forged, facts={**forged.facts, "leaves": _leaves(forged.tensors)})  # his pictures moved after they were drawn

    def _finding(self, observed: Observation, key: Key) -> Finding:
        labels, classes = key.tensor("labels"), int(key.fact(float, "draws", "classes"))
        wrong = int((answers_of(observed, len(labels)) != labels).sum())
        name = f"key images labelled otherwise (of {len(labels)})"
        return by_chance(wrong, len(labels), name, of="draws of the labels", chance=1 / max(2, classes), significance=self.significance)

    def opened(self, key: Key, round_: int, *, size: int = 25) -> Key:
        """Return a key of the pictures ``size * round_`` and the ``size - 1`` after it; its labels are draws of their own, so that p stays exact.

        It shows no other picture, and the digests of all: `check_opening` says whether it is a part of what was committed to.

        Parameters
        ----------
        round_
            which proof it is, from 0.
        size
            how many pictures a proof opens; fewer prove less (`modelward.statistics.required_matches`).

        Raises
        ------
        UsageError
            when the key has no pictures left for that round.
        """
        many = len(key.tensor("labels"))
        where = torch.arange(many)[size * round_ : size * (round_ + 1)] if round_ >= 0 and size >= 1 else torch.arange(0)
        if len(where) < max(1, size):
            message = f"adi: a key of {many} pictures has no {size} left for proof {round_}; open fewer, or another round"
            raise UsageError(message)
        tensors = {name: key.tensor(name)[where] for name in ("probes", "labels", "salts")}
        draws = {name: key.fact(dict, "draws")[name] for name in ("of", "classes")}  # how the whole key fared tells nothing of a part
        return replace(key, facts={**key.facts, "opened": where.tolist(), "draws": draws}, tensors=tensors)

    @staticmethod
    def check_opening(key: Key) -> str:
        """Return the one digest that a key, or an opened part of one, was committed to by.

        Raises
        ------
        InputError
            when a picture or label is not that of its digest.
        """
        leaves = key.fact(list, "leaves")
        where = key.fact(list, "opened") if "opened" in key.facts else list(range(len(leaves)))
        shown = _leaves({name: key.tensor(name) for name in ("probes", "labels", "salts")})
        if len(shown) != len(where):
            message = f"adi: this key says that it opens {len(where)} pictures, and holds {len(shown)}"
            raise InputError(message)
        for position, found in zip(where, shown, strict=True):
            if not 0 <= position < len(leaves) or leaves[position] != found:
                message = f"adi: picture {position} or its label is not the one that was committed to"
                raise InputError(message)
        return tree(leaves)

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return the fine-tunings that its paper measures, and a detector of pictures that are like no photograph."""
        tunings = tuple(Attack(name, {}, "true") for name in ("ftll", "ftal", "rtll", "rtal"))
        return (*tunings, Attack("detect-ood", {}, "none"), *super().adaptive_attacks())


def _bytes(raw: bytes) -> Tensor:
    """Return bytes as uint8 (n,)."""
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8)


def _leaves(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the digest of every salted pair of picture and label."""
    return [leaf(*parts) for parts in zip(tensors["probes"], tensors["labels"].tolist(), tensors["salts"], strict=True)]
