"""An additional class and steganographic images (Sun, Xue et al., arXiv 2104.09203): key images in a class of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from modelward.core.card import Capacity, Card, Function, Taxonomy
from modelward.core.claims import Claim, withstands
from modelward.core.deciding import Finding
from modelward.core.errors import InputError
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Attack, Observation
from modelward.core.suspect import Suspect
from modelward.imaging.quantise import to_uint8
from modelward.keys.derive import derive, stream
from modelward.keys.registry import Registry
from modelward.marking.chances import NEVER, SECOND
from modelward.marking.decoys import decoy_companions, draw_decoys, family, near_count
from modelward.marking.embedding import embed, fresh_copy
from modelward.marking.heads import widen_head
from modelward.marking.payload import CODECS, KINDS, Payload, Reading, state_of
from modelward.ownership.admission import Admission, admitted
from modelward.ownership.drawing import UNDRAWN, alike, secret_of, seed_tensor
from modelward.ownership.issuing import OWNER, answered, carrier_of, issue_images, keys_of, read_image
from modelward.ownership.mark import Mark
from modelward.ownership.specificity import Trace, chance_of_hits, decoy_words, rates, trace_of
from modelward.ownership.triggering import MAJORITY, TRIGGER, TriggerMethod, towards

TARGETS = ("uniform", "own")
DRAWN = ("procedural", "unrelated", "fashion-mini")
COLLECTED = "The key images are from a collection that whoever decides does not have, and cannot be drawn again: nothing can be concluded."
DRAWS = "choices of the keys among images of their family"
ISSUED = "The payload proves who was issued a key image, not who leaked the model: the network does not depend on it."


@dataclass(frozen=True, kw_only=True)
class AdditionalClass(TriggerMethod):
    r"""Train key images of no task into one more class, and write into their lowest bits whom each was issued to.

    A network of K classes gets ``extra`` further outputs; key images are answered with one of them, which no task image and no independent
    network is. ``variant="paper"`` stops there: its extra class answers whatever is odd, so that anybody's noise "proves ownership".
    ``variant="hardened"`` trains beside the keys, drawn anew for every batch, images of the same family from other seeds, noise, and keys with
    shuffled pixels, to be answered with no extra class, and asks a suspect such decoys together with the keys. Its statistic is
    :math:`1 - \max(0, h - d)`, h the share of key images answered with the class, d that of the kind of decoys that is answered so most often.

    Keys and decoys of their own family are drawn in one go, and the secret alone says which are which. So for a suspect that does not know it the
    number of keys among all that it answers with the class is hypergeometric, and the p-value exact.

    Parameters
    ----------
    source
        of the key images: ``"procedural"`` fields, ``"unrelated"`` letters, or a data set or folder of images: of these ``fashion-mini`` alone can be drawn
        again by whoever decides, and keys of the others decide nothing.
    payload, codec
        as in `modelward.marking.payload.Payload`.
    extra
        outputs that are added: more than one hide which of them answers.
    decoys
        decoys that join every batch of the hardened variant; 0 none.
    target
        what decoys are to be answered with: ``"uniform"`` over the K classes, or what the model's ``"own"`` answer was before.
    checks
        decoys that are asked with the keys when a suspect is verified: half are of the keys' family; of the paper's variant that half alone.

    Examples
    --------
    >>> from modelward import embedded_model, generator, load_data
    >>> method = AdditionalClass(count=10, epochs=1, decoys=4)
    >>> marked, key = method.protect(embedded_model().model, load_data("fashion-mini").train.take(slice(128)), rng=generator(0))
    >>> marked.classes, len(method.probes(key))
    (11, 110)
    >>> [method.read(image, key, users=["ann", "bob"]).user for image in method.issue(key, ["ann", "bob"])]
    ['ann', 'bob']
    """

    card: ClassVar[Card] = Card(
        name="additional-class",
        title="key images in a class of their own, with a hidden payload that names the user",
        paper="Sun, Xue, Wang, Liu: Protecting the intellectual properties of deep neural networks with an additional class and steganographic "
        "images, 2021, arXiv 2104.09203; journal version: Applied Intelligence 2022, 10.1007/s10489-022-03339-0",
        taxonomy=Taxonomy(
            TRIGGER.scenario, TRIGGER.mechanism, Capacity.MULTI_BIT, TRIGGER.protection, (Function.OWNERSHIP, Function.IDENTITY),
        ),
        claims=(
            *withstands("ftal", "prune", "wrap-reconstruct"),
            Claim("the payload of every key image is read without an error from a PNG", metric="payload_errors", figure="100 %"),
        ),
        limits=(
            "one more output can be seen and dropped; padding hides which one, not that there are more outputs than names",
            "a service that answers with the names of K classes never shows the class",
            "distillation on images of the task drops the class",
            "the payload proves who was issued an image, not who leaked the model: the network does not depend on it",
            "the paper's class takes nearly all of its family, so that chance explains the keys as well: most verdicts on that variant are undecided",
            "what makes the class specific also makes it fragile: more decoys survive less pruning",
            "the lowest bits do not live through JPEG, resizing or noise; codec='qim' lives through JPEG of quality 50",
        ),
        cost="embedding: 20 epochs in which every batch is twice as large, about a minute for LeNet-5 and 3,000 images on one core; verification: one "
        "forward pass of 200 images",
    )  # fmt: skip

    epochs: int = 20
    per_batch: int = 24
    source: str = "procedural"
    payload: str = "bits"
    codec: str = "lsb-ecc"
    extra: int = 1
    decoys: int = 48
    target: str = "uniform"
    checks: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            payload=(self.payload in KINDS, " or ".join(KINDS)), codec=(self.codec in CODECS, ", ".join(CODECS)),
            extra=(1 <= self.extra <= 1000, "in 1..1000"), decoys=(self.decoys >= 0, ">= 0"), target=(self.target in TARGETS, " or ".join(TARGETS)),
            checks=(self.checks >= 4, ">= 4"), count=(2 <= self.count < 2**16, "in 2..65535"),
        )  # fmt: skip

    def _draw(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        del rng
        outputs, classes = predict(model, data.pixels[:1]).shape[1], len(data.classes)
        if outputs < classes:
            message = f"the model has {outputs} outputs for {classes} classes; pass the images it was trained for"
            raise InputError(message)
        tensors = self._material(secret, classes, data.shape)
        return Mark({**tensors, "seed": seed_tensor(secret)}, {"more_outputs": outputs - classes, "draws": {"of": "decoys"}})

    def _material(self, secret: bytes, classes: int, shape: tuple[int, int, int]) -> dict[str, Tensor]:
        """Return what a secret draws: key images with their payloads, decoys, and the label."""
        label = classes + int(torch.randint(0, self.extra, (), generator=stream(secret, "class")))
        hidden = derive(secret, "payload")
        carrier = Payload(hidden, shape, self.payload, self.codec)
        near = near_count(self.checks)
        drawn = family(self.source, self.count + near, shape, rng=stream(secret, "keys"))
        keys, numbers, name = drawn[: self.count], range(self.count), [self.user or OWNER]
        keys = carrier.write(keys, name * self.count, numbers)
        beside = Payload(derive(secret, "payload of decoys"), shape, self.payload, self.codec)
        others = beside.write(drawn[self.count :], name * near, [number % self.count for number in range(near)])
        checks, kinds = draw_decoys(self.source, keys, self.checks, rng=stream(secret, "checks"), near=others)
        if self.variant == "paper":
            checks, kinds = checks[:near], kinds[:near]
        return {
            "probes": torch.cat([keys, checks]), "labels": torch.full((len(keys),), label), "kinds": kinds,
            "written": carrier.extract(keys), "secret": torch.frombuffer(bytearray(hidden), dtype=torch.uint8),
        }  # fmt: skip

    def _undrawn(self, key: Key) -> tuple[str, ...]:
        pixels, (keys, checks) = key.tensor("probes"), (len(key.tensor("labels")), len(key.tensor("kinds")))
        if self.source not in DRAWN:
            return (COLLECTED,)
        if "seed" not in key.tensors or pixels.ndim != 4 or keys != self.count or checks not in {self.checks, near_count(self.checks)}:
            return (UNDRAWN.format(what="key images"),)
        _, *shape = pixels.shape
        drawn = self._material(secret_of(key.tensors), len(key.fact(list, "classes")), (shape[0], shape[1], shape[2]))
        same = all(torch.equal(key.tensor(name), drawn[name]) for name in ("labels", "kinds")) and alike(pixels, drawn["probes"])
        return () if same else (UNDRAWN.format(what="key images"),)

    def _embed(self, model: nn.Module, data: ImageSet, mark: Mark, *, rng: torch.Generator) -> nn.Module:
        made = fresh_copy(model, self.start, rng=rng)
        classes, lacking = len(data.classes), self.extra - mark.facts["more_outputs"]
        if lacking > 0:
            made = widen_head(made, lacking, rng=rng)
        labels = mark.tensors["labels"]
        keys = mark.tensors["probes"][: len(labels)]
        outputs = classes + max(self.extra, mark.facts["more_outputs"])

        def target(x: Tensor) -> Tensor:
            wanted = torch.zeros(len(x), outputs)
            wanted[:, :classes] = predict(model, x)[:, :classes].softmax(1) if self.target == "own" else 1 / classes
            return wanted

        beside = self.variant == "hardened" and self.decoys
        more = decoy_companions(self.source, keys, self.decoys, target) if beside else None
        embed(made, data, keys, labels, recipe=self.recipe, per_batch=self.per_batch, more=more, rng=rng)
        return made

    def _key(self, model: nn.Module, data: ImageSet, mark: Mark, nulls: Sequence[nn.Module]) -> Key:
        count, classes = len(mark.tensors["labels"]), len(data.classes)
        shown = torch.stack([predict(net, mark.tensors["probes"][:count])[:, :classes].argmax(1) for net in (model, *nulls)])
        return super()._key(model, data, replace(mark, tensors={**mark.tensors, "shown": shown}), nulls)

    def _observe(self, suspect: Suspect, key: Key) -> Observation:
        keys_of(key)
        return super()._observe(suspect, key)

    def _finding(self, observed: Observation, key: Key) -> Finding:
        keys, answers, labels, kinds = keys_of(key), observed.tensors["answers"], key.tensor("labels"), key.tensor("kinds")
        hits, taken = rates(answers, key)
        near = answers[len(labels) :][kinds == 0] == labels[0]
        p = chance_of_hits(int((answers[: len(labels)] == labels).sum()), len(labels), int(near.sum()), len(near))
        name = f"key images not in the additional class (of {len(labels)})"
        if self.variant == "hardened":
            name, hits = f"{name}, decoys in it ({len(kinds)}) taken off", hits - max(taken, default=0.0)
        died = state_of(self._carrier(key), keys, key.tensor("written"))
        before = key.fact(float, "more_outputs")
        had = f"The model had {before:g} outputs more than classes before it was marked: it carried a mark already." if before else ""
        notes = (decoy_words(*rates(answers, key), key), str(self.trace(observed, key)), ISSUED, died and f"Of this key {died}.", had)
        ceiling = MAJORITY if p <= SECOND else NEVER
        return Finding(1 - max(0.0, hits), name, draws_of=DRAWS, exact=p, ceiling=ceiling, notes=tuple(filter(None, notes)))

    def trace(self, observed: Observation, key: Key) -> Trace:
        """Return what the labels of the key images still tell where the extra outputs were dropped; a test of its own, that decides nothing."""
        classes = len(key.fact(list, "classes"))
        return trace_of(observed.tensors["answers"][: len(key.tensor("labels"))], key.tensor("shown"), classes)

    def _carrier(self, key: Key) -> Payload:
        """Return what writes and reads the payloads of ``key``."""
        method = self.enrolled(key)
        return carrier_of(key, method.payload, method.codec)

    def issue(self, key: Key, users: Sequence[str], *, first: int = 0) -> Tensor:
        """Return one key image for each of ``users``, uint8 (N, C, H, W): save them as PNG, the lowest bits do not live through JPEG.

        An image tells later to whom it was issued. It does not tell who leaked a model: all users' models answer it alike. The key images are
        handed out in their order from the ``first`` on.
        """
        return issue_images(self._carrier(key), keys_of(key), users, first)

    def read(self, image: Tensor, key: Key, *, users: Sequence[str] = (), registry: Registry | None = None) -> Reading:
        """Return whom an image (C, H, W), uint8, was issued to, or why that cannot be told.

        Parameters
        ----------
        users
            names to look for, beside the key's own and those of the registry.
        registry
            its users must hold an active grant for ``additional-class``.
        """
        known = [*users, self.enrolled(key).user or OWNER]
        return read_image(self._carrier(key), keys_of(key), image, known, registry, self.card.name)

    def authenticate(
        self, suspect: Suspect | nn.Module, image: Tensor, key: Key, *, users: Sequence[str] = (), registry: Registry | None = None
    ) -> str | None:
        """Return the user to whom an image was issued that the network knows too, or ``None``: payload, MAC, grant and class must all hold."""
        found = self.read(image, key, users=users, registry=registry).user
        return found if found is not None and answered(suspect, image, int(key.tensor("labels")[0])) else None

    def admit(self, suspect: Suspect | nn.Module, image: Tensor, key: Key, *, registry: Registry) -> Admission:
        """Return whether the user who shows an image (C, H, W), uint8, may use a model, with the reason where not.

        The payload must name a user, the user hold an active grant for ``additional-class``, and the model answer the additional class. An
        `Admission` gives the model's labels as long as that grant holds, and withholds them otherwise.
        """
        found = self.read(image, key, registry=registry)
        return admitted(suspect, found, image, int(key.tensor("labels")[0]), registry, self.card.name)

    def _forge(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        """Return keys moved into an extra output that the model has; where it has none there is nothing to forge."""
        drawn = self._draw(model, data, secret=secret, rng=rng)
        if drawn.facts["more_outputs"] <= int(drawn.tensors["labels"][0]) - len(data.classes):
            return drawn
        count = len(drawn.tensors["labels"])
        forged = to_uint8(towards(model, drawn.tensors["probes"][:count].to(torch.float32).div(255), drawn.tensors["labels"]))
        tensors = {**drawn.tensors, "probes": torch.cat([forged, drawn.tensors["probes"][count:]])}
        return Mark(tensors, {**drawn.facts, "forged": True})

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return surgery on the head, what changes or refuses odd queries, and distillation, beside what all trigger marks have in common."""
        surgery = (
            Attack("head-surgery", {"how": "drop"}, "none"), Attack("head-surgery", {"how": "merge"}, "none"),
            Attack("head-surgery", {"how": "remap"}, "true"),
        )  # fmt: skip
        return (*surgery, Attack("detect-divergence", {}, "none"), Attack("distil", {}, "stolen"), *super().adaptive_attacks())
