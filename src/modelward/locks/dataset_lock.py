"""Dataset lock: images that look the same, carry true labels, and teach the wrong thing (Xue et al., arXiv 2109.07921)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Active, Capacity, Card, Function, Mechanism, Protection, Scenario, Target, Taxonomy
from modelward.core.errors import InputError
from modelward.core.guard import float_types, private_copy, state_digest
from modelward.core.image_locks import DataLock, LockedImages
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.keys.derive import LEAST, derive
from modelward.locks import customers, ledger, sidecars
from modelward.locks.collision import Shifts, penultimate, require_takes
from modelward.locks.guides import POLICIES, choose_guides
from modelward.locks.hiding import Hidden, hide, reveal

BACKENDS, FORMS, SHARED = ("rdh", "sidecar"), ("block", "pixel"), ("features", "pattern")
SQUARE = 2  # blocks, of the side of a pattern's squares


@dataclass(frozen=True, kw_only=True)
class DatasetLock(DataLock):
    r"""Shift blocks of every image until a network takes it for one of another class, and hide in the image what undoes that.

    For an image x with guide g: :math:`\min_d \|\phi(x + U(d)) - \phi(g)\|^2`, d one whole number of ``unit`` grey levels for each block of each
    channel, :math:`|d| \le eps`, no pixel past 0 or 255; :math:`\phi` is what enters the last layer of a surrogate. The class of the guide
    follows from the image's own by a secret derangement, so that a network trained on the set learns features under wrong names.

    ``variant="paper"``: one derangement, any image of the class as guide. A thief with forty clean images finds the derangement and renames the
    outputs, and nets of another kind than the surrogate learn what the images show. ``variant="hardened"``: all images of a class share one shift, as far
    as the range of each allows, from which each may go on by itself. It is what brings the class nearest to the features of a guide: one a class, the
    image nearest to its mean, by ``mixed`` derangements, of which each image's falls to it by the key; or, with ``shared="pattern"``, a secret pattern
    of coarse squares, which needs no surrogate and misleads about as much. What is published of the paper does not say how it chose guides.

    Parameters
    ----------
    eps
        largest shift, in grey levels.
    unit
        what shifts are multiples of, in grey levels.
    block
        side of a block. An image that has no room for its shifts takes blocks of twice, then four times the side, else a sidecar.
    form
        ``"block"``, or ``"pixel"``: a shift for each pixel, which needs ``backend="sidecar"``.
    backend
        ``"rdh"``: shifts lie in the image by reversible data hiding, and its pixels come back. ``"sidecar"``: the original lies beside the
        image, compressed and sealed.
    steps
        of the search for each image.
    batch
        images that are searched for together.
    shared
        of the hardened variant, what the images of a class have in common: "features" or "pattern".
    mixed
        number of derangements, with ``shared="features"``.
    finish
        steps that each image takes by itself from the shared shift, in the hardened variant.
    guide
        ``"derangement"``, or ``"random"``, the control: any image of any other class.

    Examples
    --------
    >>> from modelward import embedded_model, generator, load_data
    >>> images = load_data("fashion-mini").train.take(slice(0, 40))
    >>> locked, key = DatasetLock(steps=5).lock(images, embedded_model().model, rng=generator(0))
    >>> bool((locked.images.pixels == images.pixels).all()), bool((locked.images.labels == images.labels).all())
    (False, True)
    >>> bool((DatasetLock().unlock(locked, key).pixels == images.pixels).all())
    True
    """

    card: ClassVar[Card] = Card(
        name="dataset-lock",
        title="images that teach the wrong thing until they are unlocked",
        paper="Xue et al.: Dataset authorization control: protect the intellectual property of dataset via reversible feature space adversarial "
        "examples, Applied Intelligence 2023, arXiv 2109.07921",
        taxonomy=Taxonomy(
            Scenario.WHITE_BOX, Mechanism.DATASET_TRANSFORM, capacity=Capacity.NONE, protection=Protection.ACTIVE,
            functions=(Function.DATASET, Function.AUTHORIZATION), target=Target.DATASET,
        ),
        limits=(
            "it protects against training, not against looking: the images show what they showed",
            "adversarial training, an autoencoder, or one clean image to twenty locked ones give most of the accuracy back",
            "photographs turned to grey teach most of it again: .45 of .59 on CIFAR-10",
            "of six nets that the lock has not seen two lose 20 points in each of eight ways to train; the other four lose 4 to 32",
            "any re-encoding or resizing of a published image makes it unrecoverable; it is detected and named",
            "whoever holds the key holds the originals: the owner unlocks for a customer, and hands over the marked copy",
            "a customer's mark and a byte-identical copy exclude each other: the mark is in the lowest bits, one grey level at most",
            "`traced` reads that mark with the owner's key from images as they were handed out; JPEG, resizing and noise destroy it",
        ),
        cost="30 forward and backward passes of the surrogate for every image; hiding takes 2 ms an image of 32 x 32",
        active=Active(
            carrier="one secret a set, from which the key of every image is derived",
            granularity="all or nothing",
            identity="a mark in the lowest bits of a customer's copy",
            revocable="no: who has unlocked the images keeps them",
            overhead="unlocking once, before training",
            black_box="not applicable: there is no model to ask",
        ),
    )  # fmt: skip
    small: ClassVar[Mapping[str, Any]] = {"steps": 5}

    eps: int = 16
    unit: int = 8
    block: int = 4
    form: str = "block"
    backend: str = "rdh"
    steps: int = 30
    batch: int = 256
    shared: str = "features"
    mixed: int = 2
    finish: int = 0
    guide: str = "derangement"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            eps=(1 <= self.eps <= 128, "1 to 128 grey levels"), unit=(1 <= self.unit <= self.eps, "1 to eps"),
            block=(2 <= self.block <= 64, "2 to 64 pixels"), form=(self.form in FORMS, " or ".join(FORMS)),
            backend=(self.backend in BACKENDS and (self.form == "block" or self.backend == "sidecar"), "rdh or sidecar, and sidecar for pixel shifts"),
            steps=(self.steps >= 1, ">= 1"), batch=(self.batch >= 1, ">= 1"), mixed=(self.mixed >= 1, ">= 1"), finish=(self.finish >= 0, ">= 0"),
            guide=(self.guide in POLICIES, " or ".join(POLICIES)), shared=(self.shared in SHARED, " or ".join(SHARED)),
        )  # fmt: skip

    def plans(self) -> list[Shifts]:
        """Return the forms of shifts that are tried in turn until an image has room for what undoes them."""
        sides = [1] if self.form == "pixel" else [self.block, 2 * self.block, 4 * self.block]
        return [Shifts(eps=self.eps, unit=self.unit, block=side, steps=self.steps, batch=self.batch) for side in sides]

    def _lock(self, images: ImageSet, surrogate: nn.Module, *, secret: bytes | None, rng: torch.Generator) -> tuple[LockedImages, Key]:
        own = state_digest(surrogate)
        if set(float_types(surrogate)) - {torch.float32}:
            surrogate = private_copy(surrogate).float()  # nothing of it is handed out: only what its features say of the images counts
        require_takes(surrogate, images.pixels)
        if secret is None:
            secret = bytes(torch.randint(0, 256, (32,), generator=rng).tolist())
        name = derive(secret, "dataset-lock", images.digest, ledger.manifest_digest(self.settings()), own, length=16).hex()
        root, names = derive(secret, "dataset-lock", name), ledger.names(len(images))
        guides, groups = self._guides(surrogate, images, root)
        pixels, how, rooms = (
            images.pixels.clone(),
            torch.full((len(images),), ledger.SIDECAR),
            torch.zeros(len(images), 3, dtype=torch.int64),
        )
        left = torch.arange(len(images))
        for number, plan in enumerate(self.plans()):
            shifts = self._shifts(plan, surrogate, images.take(left), images.pixels[guides[left]], groups[left], root)
            if self.backend == "sidecar":
                pixels[left] = (images.pixels[left].to(torch.int16) + plan.spread(shifts, images.pixels.shape)).to(torch.uint8)
                break
            hidden = hide(images.pixels[left], shifts, plan, secret=root, names=[names[i] for i in left.tolist()])
            fits = hidden.rooms[:, 0] > 0
            pixels[left], rooms[left] = hidden.pixels, hidden.rooms
            how[left[fits]] = number
            left = left[~fits]
            if not len(left):
                break
        locked = ImageSet(pixels, images.labels, images.classes, f"{images.name}, locked")
        beside = {i: sidecars.of_pixels(images.pixels[i], i, root) for i in left.tolist()}
        manifest = self._manifest(name, images, locked, how.tolist(), rooms, root, names)
        return LockedImages(locked, beside, manifest), self._key(secret, manifest)

    def _shifts(self, plan: Shifts, surrogate: nn.Module, images: ImageSet, guides: Tensor, groups: Tensor, root: bytes) -> Tensor:
        """Return what each image is shifted by."""
        if self.variant == "paper" or self.guide == "random":
            return plan.search(surrogate, images.pixels, guides)
        if self.shared == "pattern":
            start = plan.dealt(images.pixels, images.labels, square=SQUARE * self.plans()[0].block, secret=derive(root, "patterns"))
        else:
            start = plan.together(surrogate, images.pixels, guides, groups)
        return replace(plan, steps=self.finish).search(surrogate, images.pixels, guides, start=start) if self.finish else start

    def _guides(self, surrogate: nn.Module, images: ImageSet, root: bytes) -> tuple[Tensor, Tensor]:
        """Return the position of each image's guide, and a number for its class and that of its guide together."""
        hard = self.variant == "hardened"
        with penultimate(surrogate) as phi, torch.no_grad():
            parts = images.pixels.split(self.batch) if hard else ()
            features = torch.cat([phi(part.float() / 255) for part in parts]) if hard else None
        mixed = self.mixed if hard else 1
        found, turned = choose_guides(images.labels, policy=self.guide, mixed=mixed, secret=derive(root, "guides"), features=features)
        return found, images.labels * len(images.classes) + turned

    def _manifest(
        self, name: str, images: ImageSet, locked: ImageSet, how: list[int], rooms: Tensor, root: bytes, names: list[str]
    ) -> dict[str, Any]:
        """Return what is published beside the images."""
        words = [f"blocks of {plan.block}" for plan in self.plans()]
        said = {
            "schema": ledger.SCHEMA, "version": ledger.VERSION, "method": self.card.name, "variant": self.variant, "settings": self.settings(),
            "set": name, "shape": list(images.shape), "images": len(images), "counts": ledger.counts(how, words), "how": how,
            "room": rooms.tolist(), "locked": ledger.digests(locked.pixels), "original": ledger.originals(images.pixels, root, names),
            "warning": "resizing or encoding these images anew makes them impossible to unlock; copy the files as they are",
        }  # fmt: skip
        return ledger.signed(said, root)

    def _key(self, secret: bytes, manifest: dict[str, Any]) -> Key:
        """Return the owner's key."""
        facts = {"settings": self.settings(), "set": manifest["set"], "images": manifest["images"], "counts": manifest["counts"]}
        tensors = {"secret": torch.tensor(list(secret), dtype=torch.uint8)}
        return Key(self.card.name, self.variant, ledger.manifest_digest(manifest), facts, tensors)

    def _unlock(self, locked: LockedImages, key: Key, *, user: str) -> ImageSet:
        root = self.opened_by(locked, key)
        ledger.require_unchanged(locked.images.pixels, locked.manifest)
        pixels = self._reveal(locked, root)
        names = ledger.names(len(pixels))
        if ledger.originals(pixels, root, names) != locked.manifest["original"]:
            raise InputError("what was unlocked is not what was locked; nothing is given out")
        if user:
            pixels = customers.mark(pixels, user, root)
        images = locked.images
        return ImageSet(pixels, images.labels, images.classes, images.name.removesuffix(", locked"))

    def traced(self, images: ImageSet, locked: LockedImages, key: Key, users: Sequence[str]) -> dict[str, int]:
        """Return how many images of a copy that turned up name which of ``users``; the owner's key reads them."""
        return customers.trace(images.pixels, users, self.opened_by(locked, key))

    def opened_by(self, locked: LockedImages, key: Key) -> bytes:
        """Return the secret of a locked set, once key and manifest were checked against each other.

        Raises
        ------
        InputError
            for a key of another set, a wrong one, and a manifest that was altered.
        FormatError
            for what is no manifest.
        """
        self._require_own(key)
        ledger.require_manifest(locked.manifest, len(locked.images))
        secret, name = bytes(key.tensor("secret").to(torch.uint8).flatten().tolist()), key.fact(str, "set")
        if locked.manifest.get("set") != name or len(secret) < LEAST:
            message = (
                f"the key opens the set {name[:12]}, this is {str(locked.manifest.get('set'))[:12]}: bring the key that was written for it"
            )
            raise InputError(message)
        root = derive(secret, "dataset-lock", name)
        ledger.require_signed(locked.manifest, root)
        return root

    def _reveal(self, locked: LockedImages, root: bytes) -> Tensor:
        """Return the originals of a set whose key, manifest and pixels were checked."""
        pixels, names = locked.images.pixels.clone(), ledger.names(len(locked.images))
        how, rooms = torch.tensor(locked.manifest["how"]), torch.tensor(locked.manifest["room"]).reshape(-1, 3)
        plans = type(self).configured(dict(locked.manifest["settings"])).plans()
        for number, plan in enumerate(plans):
            own = torch.nonzero(how == number).flatten()
            if len(own):
                named = [names[i] for i in own.tolist()]
                pixels[own] = reveal(Hidden(pixels[own], rooms[own]), plan, secret=root, names=named)
        for i in torch.nonzero(how == ledger.SIDECAR).flatten().tolist():
            pixels[i] = sidecars.pixels_of(locked, i, root)
        return pixels
