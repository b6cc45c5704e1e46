"""Key images of the owner's secret, ranked among those of other secrets: which is whose cannot be told from how they are asked."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.core.deciding import Finding
from modelward.core.errors import FormatError
from modelward.core.guard import frozen, predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import REMEDY, Key
from modelward.core.ownership import Observation
from modelward.marking.chances import NEVER
from modelward.ownership.drawing import UNDRAWN, committed_digest, other_secrets, secret_of, seed_tensor
from modelward.ownership.mark import Mark
from modelward.ownership.triggering import MAJORITY, TriggerMethod, answers_of
from modelward.statistics import binomial_p, required_matches, upper_bound

COVERS = 3  # patterns of other secrets under which the owner's images are asked, too
CHANCE, FEW, WIDEST = 0.1, 1e-3, 1 << 20
LOOK = "That the key images show what their secrets drew, apart from stamp and label, is the owner's word: look at them (modelward probes)."


@dataclass(frozen=True, kw_only=True)
class RankedTrigger(TriggerMethod):
    """A trigger mark whose p-value is the rank of the owner's secret among ``others`` further ones.

    A method writes `_block`: what one secret asks, as a function of the secret, the unmarked model and the images. It makes the owner's and all
    others alike; so with each secret in the owner's role in turn, the p-values of any suspect are 1/(m + 1), ..., 1.

    Parameters
    ----------
    asked
        key images that are asked of each secret.
    """

    others: ClassVar[int] = 199
    least: ClassVar[int] = 1
    """Images of a class that a secret needs to draw it."""

    asked: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(asked=(self.asked >= 2, ">= 2"))

    @abstractmethod
    def _block(self, model: nn.Module, data: ImageSet, secret: bytes) -> tuple[Tensor, Tensor]:
        """Return the first ``asked`` key images (n, C, H, W), uint8, of a secret and their labels (n,)."""

    def _controls(self, key: Key) -> Tensor:
        """Return images (n, C, H, W), uint8, like those of the owner's secret, but without what it put on them; none where there are no such.

        A model that gives them the labels of the key takes the images for what the labels say, mark or not: somebody may have chosen them so.
        """
        return key.tensor("asked")[:0]

    @abstractmethod
    def _fits(self, secret: bytes, pixels: Tensor, labels: Tensor, key: Key) -> bool:
        """Return whether images (n, C, H, W), uint8, and labels (n,) can be what ``secret`` draws, as far as a key tells without the owner's images."""

    def _among_others(self, model: nn.Module, data: ImageSet, mark: Mark, secret: bytes) -> Mark:
        """Return ``mark`` with what is asked: blocks of images, one a secret, in an order that does not tell which is the owner's."""
        source = state_digest(model)
        digest = committed_digest(self.card.name, self.variant, source, self.settings(), mark.tensors)
        blocks = [self._block(model, data, one) for one in (secret, *other_secrets(digest, self.others))]
        names = [state_digest({"probes": pixels, "labels": labels}) for pixels, labels in blocks]
        order = sorted(range(len(blocks)), key=lambda place: names[place])
        sizes = torch.tensor([len(blocks[place][0]) for place in order])
        asked = {
            "asked": torch.cat([blocks[place][0] for place in order]), "asked_labels": torch.cat([blocks[place][1] for place in order]),
            "asked_of": torch.arange(len(order)).repeat_interleave(sizes),
        }  # fmt: skip
        draws = {"of": "other secrets", "own": order.index(0), "source": source, "digest": digest}
        values, counts = data.labels.unique(return_counts=True)
        present, outputs = values[counts >= self.least].tolist(), predict(model, data.pixels[:1]).shape[1]
        more = {"seed": seed_tensor(secret), "asked_secret": torch.tensor(order)}
        return Mark(
            {**mark.tensors, **asked, **more},
            {**mark.facts, "material": sorted(mark.tensors), "present": present, "outputs": outputs, "draws": draws},
        )

    def glance(self, model: nn.Module, data: ImageSet, *, secret: bytes, source: nn.Module | None = None, rng: torch.Generator) -> float:
        """Return the share of this secret's images that ``model`` answers otherwise, without the other secrets beside it."""
        unmarked = model if source is None else source
        with frozen(unmarked):
            pixels, labels = self._block(unmarked, data, self._own(secret, rng))
        return float((predict(model, pixels).argmax(1) != labels).double().mean())

    def _forge(self, model: nn.Module, data: ImageSet, *, secret: bytes, rng: torch.Generator) -> Mark:
        """Return the forger's own keys, moved as `TriggerMethod` says, among those of other secrets as they are."""
        forged = super()._forge(model, data, secret=secret, rng=rng)
        asked, mine = forged.tensors["asked"].clone(), forged.tensors["asked_of"] == forged.facts["draws"]["own"]
        asked[mine] = forged.tensors["probes"][: int(mine.sum())]
        return Mark({**forged.tensors, "asked": asked}, forged.facts)

    def _undrawn(self, key: Key) -> tuple[str, ...]:
        doubt = (UNDRAWN.format(what="key images"),)
        if "seed" not in key.tensors or "asked_secret" not in key.tensors:
            return doubt
        own, of, order = int(key.fact(float, "draws", "own")), key.tensor("asked_of"), key.tensor("asked_secret")
        material = {str(name): key.tensor(str(name)) for name in key.fact(list, "material")}
        digest = committed_digest(self.card.name, self.variant, key.fact(str, "draws", "source"), self.settings(), material)
        owners = [secret_of(key.tensors), *other_secrets(digest, len(order) - 1)]
        if digest != key.fact(str, "draws", "digest") or sorted(order.tolist()) != list(range(len(owners))) or int(order[own]) != 0:
            return doubt
        pixels, labels = key.tensor("asked"), key.tensor("asked_labels")
        blocks = ((owners[number], of == place) for place, number in enumerate(order.tolist()))
        return () if all(self._fits(secret, pixels[mine], labels[mine], key) for secret, mine in blocks) else doubt

    def probes(self, key: Key) -> Tensor:
        """Return the images (N, C, H, W), uint8, of all secrets, and the owner's without what the secret put on them."""
        if "draws" not in key.facts:  # keys of earlier versions hold no others
            return key.tensor("probes")
        return torch.cat([key.tensor("asked"), self.enrolled(key)._controls(key)])  # noqa: SLF001

    def counted(self, key: Key) -> int:
        """Return how many images of the owner's secret are asked."""
        return int((key.tensor("asked_of") == int(key.fact(float, "draws", "own"))).sum())

    def _misses(self, observed: Observation, key: Key) -> tuple[Tensor, Tensor]:
        """Return of every secret how many of its images were answered otherwise, and how many there are, (m + 1,) each."""
        labels, of, own = key.tensor("asked_labels"), key.tensor("asked_of"), key.fact(float, "draws", "own")
        good = of.dtype == torch.int64 and of.shape == labels.shape and len(of) > 0 and 0 <= int(of.min()) <= int(of.max()) < len(of)
        sizes = torch.bincount(of) if good else torch.zeros(1)
        if not (0 <= own < len(sizes) and own == int(own) and bool((sizes > 0).all())):
            message = f"this {key.method} key does not tell which image is of which of its secrets: {REMEDY}"
            raise FormatError(message)
        wrong = answers_of(observed, len(self.probes(key)))[: len(labels)] != labels
        return torch.bincount(of[wrong], minlength=len(sizes)), sizes

    def _ceiling(self, observed: Observation, key: Key, count: int) -> float:
        """Return the largest share of misses that is claimed: by as much as half, the key's images have its labels more often than their controls."""
        own, labels = key.tensor("asked_of") == int(key.fact(float, "draws", "own")), key.tensor("asked_labels")
        answers = observed.tensors["answers"][len(labels) :]
        taken = float((answers == labels[own].repeat(len(answers) // count)).double().mean()) if len(answers) else 0.0
        return min(MAJORITY - taken, claimable_of(count, len(key.fact(list, "classes"))))

    def _finding(self, observed: Observation, key: Key) -> Finding:
        wrong, sizes = self._misses(observed, key)
        own = int(key.fact(float, "draws", "own"))
        shares = (wrong.double() / sizes).tolist()
        others = (*shares[:own], *shares[own + 1 :])
        hits, asked = int((sizes - wrong).sum() - (sizes - wrong)[own]), int(sizes.sum() - sizes[own])
        rate = max(upper_bound(hits, asked), 1 / max(1, len(key.fact(list, "classes")))) if asked else 1.0
        return Finding(
            shares[own], f"key images labelled otherwise (of {int(sizes[own])})", others, "other secrets",
            ceiling=self._ceiling(observed, key, int(sizes[own])), notes=self._notes(key),
            headlines=(LOOK,), parametric_p=binomial_p(int(sizes[own] - wrong[own]), int(sizes[own]), rate),
        )  # fmt: skip

    def _notes(self, key: Key) -> tuple[str, ...]:
        """Return what is to be said of the draws."""
        del key
        return ()

    def _drawn(self, **given: Any) -> tuple[str, ...]:
        """Return a note on what settings fix, so that it is the same for all secrets."""
        fixed = [name for name, value in given.items() if value is not None]
        words = " and ".join(fixed)
        return (f"The settings fix the {words}, which other secrets share: they differ in the rest alone.",) if fixed else ()


def drawn_among(key: Key) -> tuple[int, set[int]]:
    """Return of how many classes a key's secrets draw theirs, and which of them there are images of; raises `FormatError` where it does not tell."""
    outputs, present = key.fact(float, "outputs"), key.fact(list, "present")
    if outputs not in range(1, WIDEST) or not all(type(number) is int and 0 <= number < outputs for number in present):
        message = f"this {key.method} key does not tell which classes its secrets draw from: {REMEDY}"
        raise FormatError(message)
    return int(outputs), set(present)


def claimable_of(count: int, classes: int) -> float:
    """Return the largest share of misses among ``count`` images that is not what a few tries with other secrets would find; -1 for none.

    The chance of a hit is taken for 1 / ``classes``, and for a tenth at least, whatever a key says.

    Examples
    --------
    >>> claimable_of(10, 10), claimable_of(10, 1000), claimable_of(2, 10)
    (0.4, 0.4, -1.0)
    """
    wanted = required_matches(count, max(CHANCE, 1 / max(1, classes)), FEW)
    return NEVER if wanted is None else (count - wanted) / count
