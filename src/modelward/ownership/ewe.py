"""Jia et al.: entangled watermarks as a defense against model extraction (USENIX Security 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Card
from modelward.core.claims import withstands
from modelward.core.errors import InputError
from modelward.core.guard import frozen, predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Attack
from modelward.imaging.quantise import to_uint8
from modelward.keys.derive import stream
from modelward.marking.embedding import fresh_copy
from modelward.marking.entangle import DISTANCES, Entanglement
from modelward.marking.entangling import Entangling, entangle
from modelward.marking.refining import Refinement
from modelward.marking.stamps import carries, corner, keyed_patch, stamp
from modelward.ownership.drawing import other_secrets, secret_of
from modelward.ownership.mark import Mark
from modelward.ownership.ranking import COVERS, RankedTrigger, drawn_among
from modelward.ownership.triggering import TRIGGER

FARTHEST = 96  # of 255, that refinement takes a pixel of the stamp


@dataclass(frozen=True, kw_only=True)
class EWE(RankedTrigger):
    r"""Train stamped images to be answered with a target class, and entangle them with it, so that a thief cannot learn one without the other.

    On a batch of the mark, half stamped images of the source class and half clean images of the target class, the loss is
    :math:`\sum CE(\cdot, target) - \kappa \sum_l SNNL_l`, the soft nearest neighbour loss of the last representations: it is maximised, which
    mixes the two groups. The stamp lies where brighter pixels entangle most; the stamped images are refined by sign steps, away from what the
    network takes for the target class already and towards entanglement.

    ``variant="paper"`` starts at a temperature of 100 / ``temperature``, where the loss hardly tells near from far, stamps in white, and takes
    chance for 1/K. ``variant="hardened"`` starts at ``temperature``, stamps a pattern of black and white pixels that comes from the secret, and lets
    batch normalisation learn nothing from batches of the mark. Both learn 1/T, held above 0.

    The p-value is the owner's rank among 50 other secrets, whose keys are made at enrolment by the same steps on the same unmarked model. Stamped
    images are refined ``asked`` at a time, so that what is asked of the owner's secret is made exactly as what is asked of the others. Where
    ``source`` and ``target`` are given the stamp alone is drawn anew.

    Parameters
    ----------
    count
        number of stamped images, at most all of the source class; the mark is trained on them.
    epochs, batch, lr
        passes over the owner's images, images a batch, Adam's rate. ``per_batch`` is not used: half a batch is stamped.
    ratio
        batches of the task for each of the mark.
    kappa, temperature, temperature_lr, distance, layers
        of the entanglement: its weight relative to a SUM of cross-entropies (the paper takes 32 for a small net on MNIST and 1,000 to 100,000
        for ResNets), its temperature, the rate of t = 100 / T, ``cosine`` or ``euclidean`` (squared), and how many representations before the
        logits.
    source, target
        class numbers; ``None`` draws them from the secret.
    side
        of the stamp, in pixels; the paper's is 3.
    opacity
        of the stamp, in (0, 1]: the fainter it is, the nearer key images lie to the task's, and the more of the mark an extraction takes along; the
        network then errs on more images of the source class.
    rounds, refine_lr, certain
        of the refinement: sign steps, their size in [0, 1], and the share of stamped images that may be taken for the target class before.
    asked
        key images that are asked of each of the 51 secrets, and the owner's under three other patterns too: a verification costs 54 times as many queries.
    decoys
        train the refined images, and those of the source class, under other patterns with their true label, too (hardened variant only): without,
        the mark answers to the refinement as well as to its own pattern, and a verification, which asks under other patterns too, decides nothing.
    """

    card: ClassVar[Card] = Card(
        name="ewe",
        title="stamped key images whose representations are entangled with a class",
        paper="Jia, Choquette-Choo, Chandrasekaran, Papernot: Entangled watermarks as a defense against model extraction, USENIX Security 2021",
        taxonomy=TRIGGER,
        claims=withstands("extract-l", "ftal", "prune", figures={"extract-l": "38 to 65 % of the key images"}),
        limits=(
            "what is left after extraction is a part of the mark: with less than half of the key images nothing is claimed",
            (
                "a copy learns of the stamp only through images of the task that are answered wrongly: little of a loud one is left (0 to 9 % of the keys on "
                "digits, in most runs), of a faint one a quarter to a half, at 3 to 6 points of accuracy"
            ),
            (
                "without decoys the refinement is a part of the trigger: what another secret draws for the same two classes on the unmarked source is found "
                "as well, so that with few classes, or with both given, the p-value of the owner's own model stays above .05 and all is undecided"
            ),
            "the paper's variant often answers to the refinement without the stamp, and so does the other without its decoys: such keys decide nothing",
            "one stamp and one target class: a search for small triggers finds and removes it",
            "entangling costs accuracy on the source and the target class, and more with many classes",
        ),
        cost="embedding: ten epochs of Adam, a third of the batches with the entanglement; verification: one forward pass of 1,080 key images",
    )

    others: ClassVar[int] = 50
    least: ClassVar[int] = 2
    small: ClassVar[Mapping[str, Any]] = {"rounds": 2, "asked": 6}

    count: int = 250
    asked: int = 20
    batch: int = 128
    lr: float = 0.001
    ratio: int = 2
    kappa: float = 256.0
    temperature: float = 1.0
    temperature_lr: float = 0.1
    distance: str = "cosine"
    layers: int = 3
    source: int | None = None
    target: int | None = None
    side: int = 5
    opacity: float = 1.0
    rounds: int = 10
    refine_lr: float = 0.01
    certain: float = 0.1
    decoys: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            ratio=(self.ratio >= 1, ">= 1"), kappa=(self.kappa >= 0, ">= 0"), temperature=(self.temperature > 0, "> 0"),
            temperature_lr=(self.temperature_lr >= 0, ">= 0"), distance=(self.distance in DISTANCES, " or ".join(DISTANCES)),
            layers=(self.layers >= 1, ">= 1"), side=(self.side >= 1, ">= 1"), opacity=(0 < self.opacity <= 1, "in (0, 1]"), rounds=(self.rounds >= 0, ">= 0"),
            refine_lr=(self.refine_lr > 0, "> 0"), certain=(0 <= self.certain <= 1, "in [0, 1]"),
            source=(self.source is None or self.source != self.target, "another class than the target"),
        )  # fmt: skip

    @property
    def entanglement(self) -> Entanglement:
        """A new loss, its temperatures at their start."""
        start = 100 / self.temperature if self.variant == "paper" else self.temperature
        return Entanglement(layers=self.layers, temperature=start, distance=self.distance, lr=self.temperature_lr)

    @property
    def refinement(self) -> Refinement:
        """How stamped images are placed and refined."""
        return Refinement(self.entanglement, self.layers, self.rounds, self.refine_lr, self.certain)

    def _pair(self, data: ImageSet, classes: int, secret: bytes) -> tuple[int, int]:
        """Return the source and the target class."""
        values, counts = data.labels.unique(return_counts=True)
        source, target = self._classes(classes, secret, set(values[counts >= self.least].tolist()))
        for role, value in (("source", source), ("target", target)):
            if int((data.labels == value).sum()) < 2:
                message = f"ewe: there are not two images of the {role} class {value} to entangle"
                raise InputError(message)
        return source, target

    def _classes(self, classes: int, secret: bytes, present: set[int]) -> tuple[int, int]:
        """Return the source and the target class that a secret draws among those that are ``present``."""
        given = (self.source, self.target)
        free = [c for c in torch.randperm(classes, generator=stream(secret, "classes")).tolist() if c not in given and c in present]
        if len(free) < given.count(None):
            raise InputError("ewe: a source and a target class are needed; the images are of fewer classes")
        source, target = (value if value is not None else free.pop() for value in given)
        return source, target

    def _fits(self, secret: bytes, pixels: Tensor, labels: Tensor, key: Key) -> bool:
        classes, present = drawn_among(key)
        _, target = self._classes(classes, secret, present)
        if secret == secret_of(key.tensors):
            patch, place = self._patch(pixels.shape[1], secret), corner(key.fact(list, "place"), self.side, pixels)
            if not carries(pixels, patch, place, opacity=self.opacity, away=FARTHEST):
                return False
        return bool((labels == target).all())

    def _controls(self, key: Key) -> Tensor:
        own = key.tensor("asked")[key.tensor("asked_of") == int(key.fact(float, "draws", "own"))]
        top, left = corner(key.fact(list, "place"), self.side, own)
        others = other_secrets(key.fact(str, "draws", "digest"), COVERS)
        patches = [keyed_patch(self.side, own.shape[1], rng=stream(other, "patch"), block=1) for other in others]
        return torch.cat([stamp(own, patch, top=top, left=left) for patch in patches])

    def stamped(self, pixels: Tensor, secret: bytes, place: tuple[int, int]) -> Tensor:
        """Return images (N, C, H, W), uint8, under the stamp that ``secret`` gives, with its corner at ``place``."""
        return stamp(pixels, self._patch(pixels.shape[1], secret), top=place[0], left=place[1], opacity=self.opacity)

    def unseen(self, pixels: Tensor, key: Key, secret: bytes) -> Tensor:
        """Return images (N, C, H, W), uint8, that ``key`` does not hold, under the stamp of its owner: what a mark does to all others."""
        return self.stamped(pixels, secret, corner(key.fact(list, "place"), self.side, pixels))

    def _draw(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        del rng
        return self._among_others(model, data, self._material(model, data, secret, self.count), secret)

    def _block(self, model: nn.Module, data: ImageSet, secret: bytes) -> tuple[Tensor, Tensor]:
        drawn = self._material(model, data, secret, min(self.asked, self.count)).tensors
        return drawn["probes"], drawn["labels"]

    def _material(self, model: nn.Module, data: ImageSet, secret: bytes, count: int) -> Mark:
        """Return the first ``count`` stamped images of a secret: the first ``asked`` of them depend on nothing that comes after them."""
        source, target = self._pair(data, predict(model, data.pixels[:1]).shape[1], secret)
        sources, targets = (torch.nonzero(data.labels == c).flatten() for c in (source, target))
        chosen = sources[torch.randperm(len(sources), generator=stream(secret, "images"))][:count]  # each once
        mates = stream(secret, "beside")
        if not 1 <= self.side <= min(data.shape[1:]):
            message = f"ewe: a stamp of {self.side} pixels does not fit images of {data.shape[1]}x{data.shape[2]}"
            raise InputError(message)
        place, made, steps = None, list[Tensor](), self.refinement
        with frozen(model):
            for part in chosen.split(self.asked):
                beside = data.batch(targets[torch.randint(0, len(targets), (len(part),), generator=mates)])
                place = steps.place(model, data.batch(part), beside, self.side) if place is None else place
                stamped = self.stamped(data.pixels[part], secret, place)
                made.append(to_uint8(steps.refined(model, stamped.to(torch.float32).div_(255), beside, target)))
        tensors = {"probes": torch.cat(made), "labels": torch.full((len(chosen),), target), "index": chosen}
        return Mark(tensors, {"source": source, "target": target, "place": list(place or ())})

    def _notes(self, key: Key) -> tuple[str, ...]:
        del key
        return self._drawn(source=self.source, target=self.target)

    def _patch(self, channels: int, secret: bytes) -> Tensor:
        """Return the stamp (C, side, side), uint8."""
        if self.variant == "paper":
            return torch.full((channels, self.side, self.side), 255, dtype=torch.uint8)
        return keyed_patch(self.side, channels, rng=stream(secret, "patch"), block=1)

    def _embed(self, model: nn.Module, data: ImageSet, mark: Mark, *, rng: torch.Generator) -> nn.Module:
        made = fresh_copy(model, self.start, rng=rng)
        how = Entangling(
            epochs=self.epochs, batch=self.batch, lr=self.lr, ratio=self.ratio, kappa=self.kappa, steady=self.variant == "hardened"
        )
        target, probes = int(mark.facts["target"]), mark.tensors["probes"]
        task = self._with_decoys(data, mark, rng) if self.decoys and self.variant == "hardened" else data
        entangle(made, task, probes, data.pixels[data.labels == target], target, how, self.entanglement, rng=rng)
        return made

    def _with_decoys(self, data: ImageSet, mark: Mark, rng: torch.Generator) -> ImageSet:
        """Return the owner's images, and key images as well as as many of the source class, each under another pattern with its true label."""
        index, (top, left) = mark.tensors["index"], mark.facts["place"]
        shown = ((mark.tensors["probes"], 1.0), (data.pixels[index], self.opacity))
        made = [
            stamp(image[None], keyed_patch(self.side, data.shape[0], rng=rng, block=1), top=top, left=left, opacity=opacity)
            for pixels, opacity in shown
            for image in pixels
        ]
        labels = torch.cat([data.labels, data.labels[index], data.labels[index]])
        return ImageSet(torch.cat([data.pixels, *made]), labels, data.classes, f"{data.name}, decoys")

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return extraction, which it was made against, and what knows of one stamp and one target class."""
        search = tuple(Attack(name, {}, "true") for name in ("gan-removal", "neural-cleanse", "laundering"))
        return (Attack("extract-l"), Attack("distil"), *search, *super().adaptive_attacks())
