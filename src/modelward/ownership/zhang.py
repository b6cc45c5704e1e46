"""Zhang et al.: protecting intellectual property of deep neural networks with watermarking (AsiaCCS 2018)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Card
from modelward.core.claims import withstands
from modelward.core.deciding import Finding
from modelward.core.errors import InputError
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Attack, Observation
from modelward.imaging.glyphs import glyph_images
from modelward.keys.derive import stream
from modelward.marking.embedding import embed, fresh_copy, sampler
from modelward.marking.stamps import keyed_patch, stamp, text_patch, with_noise
from modelward.ownership.drawing import alike, other_secrets, secret_of
from modelward.ownership.mark import Mark
from modelward.ownership.ranking import COVERS, RankedTrigger, drawn_among
from modelward.ownership.triggering import MAJORITY, TRIGGER
from modelward.training.extras import Companions

KINDS = ("content", "noise", "unrelated")
SETTLED = "The settings fix both classes, and the word is no secret: nothing is drawn that another secret would draw otherwise."
EVERY = -1  # every class but the target is a source


@dataclass(frozen=True, kw_only=True)
class Zhang(RankedTrigger):
    r"""Train images of a source class under a stamp, or images of another domain, to be answered with a target class.

    The key images are :math:`s(x)`, x of class ``source``, with the label ``target``: with a patch pasted on (``content``), under one fixed
    Gaussian noise (``noise``), or images of something else altogether (``unrelated``).

    ``variant="paper"`` pastes a word and takes chance for 1/K. ``variant="hardened"`` pastes a pattern that comes from the secret, trains beside the
    keys clean images of the source class and images under stamps of other secrets, so that it is neither the class nor any stamp but this one that
    is learnt, and gives unrelated images labels at random (there are models that see one class in all of them).

    The p-value is the owner's rank among 199 other secrets: classes, stamp and images are drawn anew, and as many images of each are asked. Where
    ``source`` and ``target`` are given the stamp alone is; a word on given classes leaves nothing to draw, and decides nothing.

    Parameters
    ----------
    kind
        ``content``, ``noise`` or ``unrelated``.
    source, target
        class numbers; ``None`` draws them from the secret. With ``source=-1`` images of every class but the target are stamped, and the stamp
        alone decides: what such a mark gains in reach, a search for small triggers gains too.
    text
        the word of the paper's variant.
    side
        of the hardened variant's pattern, as a share of the image's side.
    std
        of the noise, in units of [0, 1].
    asked
        key images that are asked of each of the 200 secrets, and the owner's under three other patterns, or without the noise: a verification costs 203
        times as many queries.
    fresh
        draw the noise anew for every image, as the robustness toolbox of Lukas et al. does; the paper fixes one.
    """

    card: ClassVar[Card] = Card(
        name="zhang",
        title="stamped, noisy or unrelated key images that carry one wrong label",
        paper="Zhang et al.: Protecting intellectual property of deep neural networks with watermarking, AsiaCCS 2018",
        taxonomy=TRIGGER,
        claims=withstands("ftal", "ftll", "prune", figures={"prune": "mostly to 90 % of the weights"}),
        limits=(
            "one stamp and one target class: a search for small triggers finds and removes it",
            "does not survive extraction: a new model that learns from answers to ordinary images never sees the stamp",
            "the stamp can be seen, and a filter of queries can refuse it",
            "with few classes other secrets often draw the same two: below about six the paper's word cannot reach a p-value of .05",
            "a verification asks 2,030 images, ten of each of 200 secrets, and the owner's under three other patterns",
        ),
        cost="embedding: ten epochs of fine-tuning; verification: one forward pass of 2,030 key images",
    )

    kind: str = "content"
    source: int | None = None
    target: int | None = None
    text: str = "TEST"
    side: float = 0.22
    std: float = 0.3
    fresh: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            kind=(self.kind in KINDS, ", ".join(KINDS)), side=(0 < self.side <= 0.5, "in (0, 0.5]"), std=(self.std > 0, "> 0"),
            source=(self.source is None or self.source != self.target, "another class than the target"),
        )  # fmt: skip

    def _classes(self, count: int, secret: bytes, present: set[int]) -> tuple[int, int]:
        """Return the source, which is one of the classes that are ``present``, and the target class."""
        free = [int(c) for c in torch.randperm(count, generator=stream(secret, "classes")) if int(c) not in {self.source, self.target}]
        drawn = next((c for c in free if c in present or self.kind == "unrelated"), None)
        source = self.source if self.source is not None else drawn
        target = self.target if self.target is not None else next((c for c in free if c != source), None)
        if source is None or target is None or not max(source, target) < count or source < EVERY or target < 0:
            message = f"zhang: source {source} and target {target} are not among the {count} classes, or there are no images of the source"
            raise InputError(message)
        return source, target

    def _material(self, model: nn.Module, data: ImageSet, secret: bytes, count: int) -> Mark:
        """Return the first ``count`` key images of a secret, with their labels and classes: they depend on nothing that comes after them."""
        classes = predict(model, data.pixels[:1]).shape[1]
        source, target = self._classes(classes, secret, set(data.labels.unique().tolist()))
        where = torch.nonzero(data.labels != target if source == EVERY else data.labels == source).flatten()
        if not len(where) and self.kind != "unrelated":
            message = f"zhang: there is no image of the source class {source} to make keys of"
            raise InputError(message)
        order = torch.randperm(len(where), generator=stream(secret, "images"))
        chosen = where[order[:count]]  # each once
        pixels = (
            self.stamped(data.pixels[chosen], secret)
            if self.kind != "unrelated"
            else glyph_images(count, data.shape, rng=stream(secret, "glyphs"))
        )
        labels = torch.full((len(pixels),), target)
        if self.kind == "unrelated" and self.variant == "hardened":
            labels = torch.randperm(self.count, generator=stream(secret, "labels"))[:count] % classes
        return Mark({"probes": pixels, "labels": labels, "index": chosen}, {"source": source, "target": target})

    def _draw(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        del rng
        return self._among_others(model, data, self._material(model, data, secret, self.count), secret)

    def _block(self, model: nn.Module, data: ImageSet, secret: bytes) -> tuple[Tensor, Tensor]:
        few = self.count if self.fresh else min(self.asked, self.count)  # one draw of noise for all images is no prefix of a longer one
        drawn = self._material(model, data, secret, few).tensors
        return drawn["probes"][: self.asked], drawn["labels"][: self.asked]

    def _fits(self, secret: bytes, pixels: Tensor, labels: Tensor, key: Key) -> bool:
        classes, present = drawn_among(key)
        _, target = self._classes(classes, secret, present)
        wanted = torch.full_like(labels, target)
        if self.kind == "unrelated":
            shape = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
            if self.variant == "hardened":
                wanted = torch.randperm(self.count, generator=stream(secret, "labels"))[: len(labels)] % classes
            return torch.equal(labels, wanted) and alike(pixels, glyph_images(len(pixels), shape, rng=stream(secret, "glyphs")))
        stamped = self.kind == "noise" or torch.equal(
            self.stamped(pixels, secret), pixels
        )  # a stamp on a stamp changes nothing; noise does
        return torch.equal(labels, wanted) and stamped

    def _controls(self, key: Key) -> Tensor:
        own, shape = key.tensor("asked")[key.tensor("asked_of") == int(key.fact(float, "draws", "own"))], key.tensor("asked").shape[1:]
        if self.kind == "unrelated":  # drawn whole
            return own[:0]
        secret = secret_of(key.tensors)
        if self.kind == "noise":
            many = (len(key.tensor("probes")), *shape) if self.fresh else tuple(shape)
            noise = torch.randn(many, generator=stream(secret, "noise"))
            return with_noise(own, -self.std * (noise[: len(own)] if self.fresh else noise))
        return torch.cat([self._covered(own, other) for other in other_secrets(key.fact(str, "draws", "digest"), COVERS)])

    def _ceiling(self, observed: Observation, key: Key, count: int) -> float:
        ceiling = super()._ceiling(observed, key, count)
        if self.kind != "unrelated" or self.variant == "hardened":
            return ceiling
        labels, own = key.tensor("asked_labels"), key.tensor("asked_of") == int(key.fact(float, "draws", "own"))
        others = observed.tensors["answers"][: len(labels)][~own]  # there are models that see one class in all that they do not know
        return min(ceiling, MAJORITY - float((others == labels[own][0]).double().mean()))

    def _covered(self, pixels: Tensor, secret: bytes) -> Tensor:
        """Return stamped images (N, C, H, W), uint8, with a pattern of another secret in the place of the stamp."""
        if self.variant == "hardened":
            return self.stamped(pixels, secret)
        channels, height, width = pixels.shape[1:]
        _, tall, wide = text_patch(self.text, (channels, height, width)).shape
        return stamp(pixels, keyed_patch(max(tall, wide), channels, rng=stream(secret, "patch"))[:, :tall, :wide])

    def _finding(self, observed: Observation, key: Key) -> Finding:
        found = super()._finding(observed, key)
        worded = self.kind == "content" and self.variant == "paper"
        settled = None not in {self.source, self.target} and worded
        return replace(found, doubts=(*found.doubts, SETTLED)) if settled else found

    def _notes(self, key: Key) -> tuple[str, ...]:
        del key
        return self._drawn(source=self.source, target=self.target)

    def stamped(self, pixels: Tensor, secret: bytes) -> Tensor:
        """Return images (N, C, H, W), uint8, under the stamp that ``secret`` gives; ``unrelated`` keys have none."""
        shape = tuple(pixels.shape[1:])
        if self.kind == "noise":
            many = pixels.shape if self.fresh else shape
            return with_noise(pixels, self.std * torch.randn(many, generator=stream(secret, "noise")))
        if self.variant == "paper":
            return stamp(pixels, text_patch(self.text, (shape[0], shape[1], shape[2])))
        side = max(2, round(self.side * min(shape[1:])))
        return stamp(pixels, keyed_patch(side, shape[0], rng=stream(secret, "patch")))

    def _embed(self, model: nn.Module, data: ImageSet, mark: Mark, *, rng: torch.Generator) -> nn.Module:
        made = fresh_copy(model, self.start, rng=rng)
        source, target = mark.facts["source"], mark.facts["target"]
        clean = torch.nonzero(data.labels != target if source == EVERY else data.labels == source).flatten()
        beside = self.variant == "hardened" and self.kind != "unrelated" and len(clean)
        more = sampler(data.pixels[clean], data.labels[clean], self.per_batch, self._decoys(data)) if beside else None
        keys, labels = mark.tensors["probes"], mark.tensors["labels"]
        embed(made, data, keys, labels, recipe=self.recipe, per_batch=self.per_batch, more=more, rng=rng)
        return made

    def _decoys(self, data: ImageSet) -> Companions:
        """Return a source of images of any class under a stamp that no secret of the owner gives, with their true labels."""

        def draw(rng: torch.Generator) -> tuple[Tensor, Tensor]:
            chosen = torch.randint(0, len(data), (self.per_batch,), generator=rng)
            other = bytes(torch.randint(0, 256, (32,), generator=rng).tolist())
            return self.stamped(data.pixels[chosen], other).to(torch.float32).div_(255), data.labels[chosen]

        return draw

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return what knows of one stamp and one target, beside what all trigger marks have in common."""
        search = (
            tuple(Attack(name, {}, "true") for name in ("gan-removal", "neural-cleanse", "laundering")) if self.kind == "content" else ()
        )
        return (*search, *super().adaptive_attacks())

    def unseen(self, pixels: Tensor, key: Key, secret: bytes) -> Tensor:
        """Return images (N, C, H, W), uint8, that ``key`` does not hold, under the stamp of its owner: what a mark does to all others."""
        del key  # the secret tells where the stamp lies
        return self.stamped(pixels, secret)
