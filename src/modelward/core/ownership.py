"""Ownership methods: protect a model, ask a suspect, judge what it answered."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from modelward.core.commitment import Commitment
from modelward.core.deciding import OLD, Finding, Standing, decide
from modelward.core.errors import FormatError, InputError, UsageError
from modelward.core.guard import frozen, require_finite, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import REMEDY, Key
from modelward.core.method import VariantMethod
from modelward.core.siblings import Siblings, chosen
from modelward.core.suspect import Access, Suspect
from modelward.core.verdict import Misses, Verdict

UNFIT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What an array of another shape or type raises; an error of ours is a `ModelwardError` and says what is wrong."""


class NotTaken(InputError):  # noqa: N818  # says what happened to the mark
    """A mark was embedded and not taken well enough to be claimed; ``model`` carries what there is of it."""

    def __init__(self, message: str, model: nn.Module) -> None:
        super().__init__(message)
        self.model = model


@dataclass(frozen=True, eq=False)
class Observation:
    """What a suspect answered, raw: enough to recompute the verdict without the suspect.

    Parameters
    ----------
    access
        the access level that was used.
    tensors
        the answers, or what was read from the weights.
    queries
        answers asked of the suspect.
    notes
        what is to be known of the answers; the verdict repeats it.
    digest
        SHA-256 of the suspect's weights, where they were granted.
    """

    access: Access
    tensors: Mapping[str, Tensor]
    queries: int = 0
    notes: tuple[str, ...] = ()
    digest: str | None = None


@dataclass(frozen=True)
class Attack:
    """A theft by name: its settings, and where the thief's labels come from (``true``, ``stolen`` or ``none``)."""

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    labels: str = "stolen"


@dataclass(frozen=True, kw_only=True)
class OwnershipMethod(VariantMethod, ABC):
    """Prove whose model it is: ``protect(...) -> (model, key)``, ``verify(suspect, key) -> Verdict``.

    ``needs`` is the least access that verification works with. ``marks``: protecting changes the model, by training on the owner's own images.
    ``forgeable``: a key can be made for a model of somebody else, so that only a dated commitment makes it evidence. ``drawn_over``: what a p-value
    counts, ``siblings`` of the owner's model, other ``secrets``, or ``orders`` of its hidden units. ``small``: settings for smoke runs, where the usual
    reduction does not do. ``acquits``: a score that does not fit may clear a suspect.
    """

    family: ClassVar[str] = "ownership"
    needs: ClassVar[Access] = Access.PROBABILITIES
    marks: ClassVar[bool] = False
    forgeable: ClassVar[bool] = False
    drawn_over: ClassVar[str] = "siblings"
    acquits: ClassVar[bool] = True
    small: ClassVar[Mapping[str, Any]] = {}

    def protect(
        self,
        model: nn.Module,
        data: ImageSet,
        *,
        secret: bytes | None = None,
        siblings: Siblings | Sequence[nn.Module] = (),
        nulls: Sequence[nn.Module] = (),
        thieves: Sequence[nn.Module] = (),
        rng: torch.Generator,
    ) -> tuple[nn.Module, Key]:
        """Return the model to publish and the key to keep.

        Parameters
        ----------
        model
            the owner's model; never changed.
        data
            for methods that mark: the owner's training images; for all others images that no model under study was trained on.
        secret
            for methods that derive their mark from a secret; drawn from ``rng`` when absent.
        siblings
            for fingerprints: models by the owner's code on exactly the owner's images, with other seeds (`modelward.siblings`). The p-value of a
            suspect is the owner's rank among them; with fewer than 19 every verdict is "undecided".
        nulls
            independent models: asked as suspects, so that the key tells how often it accuses such. They decide nothing.
        thieves
            validation thieves of ``model``: they fix the paper's thresholds; never the suspects that are reported on.
        rng
            source of all randomness of marks. What fingerprints draw follows from the digests of model, siblings, images and settings.
        """
        require_finite(model)
        if not len(data):
            raise InputError("no images to enrol with; pass a set that no model under study was trained on")
        family = Siblings.of(siblings)
        with frozen(model):
            return self._protect(model, data, secret=secret, siblings=family, nulls=nulls, thieves=thieves, rng=rng)

    def observe(self, suspect: Suspect | nn.Module, key: Key) -> Observation:
        """Return what ``suspect`` answers to ``key``, asking it no more than this method needs."""
        self._require_own(key)
        _require_sound(key)
        asked = suspect if isinstance(suspect, Suspect) else Suspect.of_model(suspect)
        before = asked.queries
        try:
            observed = self._observe(asked, key)
        except UNFIT as error:
            first = (str(error).splitlines() or [""])[0][:200]
            message = f"the suspect could not answer what this {key.method} key asks ({type(error).__name__}: {first}): it takes other images, or {REMEDY}"
            raise InputError(message) from error
        digest = _digest(asked.model) if asked.access is Access.WEIGHTS else None
        return replace(observed, queries=asked.queries - before, notes=(*asked.notes, *observed.notes), digest=digest)

    def judge(self, observed: Observation, key: Key, *, commitment: Commitment | None = None, shown: bool = True) -> Verdict:
        """Return the verdict on answers that were given to ``key``; needs no suspect, so that anybody may repeat it.

        Parameters
        ----------
        commitment
            what dates the key: there is no "stolen" unless it is older than the day on which the suspect was seen. Where it names several keys,
            the first decides; of another one p times their number has to be small.
        shown
            whether the claimant's model, of the digest that the key names, was shown to whoever decides.
        """
        self._require_own(key)
        _require_sound(key)
        try:
            found = self._judge(observed, key) if "draws" in key.facts else Finding(math.nan, "not computed", doubts=(OLD,))
            standing = self._standing(observed, key, commitment, shown=shown)
        except (*UNFIT, UsageError) as error:
            message = f"the arrays in this {key.method} key, or the answers to it, do not fit together ({type(error).__name__}): {REMEDY}"
            raise FormatError(message) from error
        return decide(replace(found, notes=(*observed.notes, *found.notes)), standing)

    def _standing(self, observed: Observation, key: Key, commitment: Commitment | None, *, shown: bool) -> Standing:
        """Return what a verdict rests on besides the answers."""
        power = ("draws", "thieves", observed.access.value)
        return Standing(
            method=self.card.name, variant=key.variant, forgeable=self.forgeable, access=observed.access.value, queries=observed.queries,
            misses=Misses(_count(key, *power, "missed"), _count(key, *power, "tried")), most=_most(key), keys=1 if commitment is None else commitment.speaking,
            nulls=_count(key, "draws", "nulls"), false_claims=_count(key, "draws", "false_claims"), commitment=commitment, shown=shown,
            same=observed.digest == key.model_digest or (observed.access is Access.WEIGHTS and observed.digest is None) or self._same(observed, key),
            acquits=self.acquits,
        )  # fmt: skip

    def _same(self, observed: Observation, key: Key) -> bool:
        """Return whether answers alone say that the suspect is the very model that the key names; false where they cannot."""
        del observed, key
        return False

    def verify(self, suspect: Suspect | nn.Module, key: Key, *, commitment: Commitment | None = None) -> Verdict:
        """Return the verdict on ``suspect``, asking it no more than this method needs."""
        return self.judge(self.observe(suspect, key), key, commitment=commitment)

    def differs(self, model: nn.Module, key: Key, place: int | None = None) -> bool:
        """Return whether ``model``, shown as the one that ``key`` names, has other parts than the key holds of it; false where it holds none."""
        del model, key, place
        return False

    def _require_own(self, key: Key) -> None:
        """Raise `InputError` for a key of another method."""
        if key.method != self.card.name:
            message = f"this key was made by {key.method!r}; verify it with that method, not with {self.card.name!r}"
            raise InputError(message)

    def enrolled(self, key: Key) -> Self:
        """Return this method with the settings that ``key`` was made with.

        Raises
        ------
        InputError
            for a key of another method.
        FormatError
            when the key does not tell its settings, or they do not fit.
        """
        if key.method != self.card.name:
            message = f"this is a key of {key.method}, not of {self.card.name}"
            raise InputError(message)
        settings = key.fact(dict, "settings")
        try:
            return type(self).configured(settings)
        except UsageError as error:
            message = f"the settings in this {key.method} key do not fit ({error}): {REMEDY}"
            raise FormatError(message) from error

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return the thefts of somebody who knows this method; its card names them."""
        return ()

    @abstractmethod
    def _protect(
        self,
        model: nn.Module,
        data: ImageSet,
        *,
        secret: bytes | None,
        siblings: Siblings,
        nulls: Sequence[nn.Module],
        thieves: Sequence[nn.Module],
        rng: torch.Generator,
    ) -> tuple[nn.Module, Key]:
        """Return the protected model and the key; ``key.facts["draws"]`` says what its p-values are drawn over."""

    @abstractmethod
    def _observe(self, suspect: Suspect, key: Key) -> Observation:
        """Return the suspect's raw answers; queries and the suspect's own notes are added by `observe`."""

    @abstractmethod
    def _judge(self, observed: Observation, key: Key) -> Finding:
        """Return what the answers say: the statistic, and that of every draw."""

    def probes(self, key: Key) -> Tensor:
        """Return the key's query images as uint8 (n, C, H, W), for a suspect that only a remote service answers for."""
        if "probes" not in key.tensors:
            message = f"{self.card.name} keys hold no query images"
            raise UsageError(message)
        return key.tensors["probes"]


def _require_sound(key: Key) -> None:
    """Raise `FormatError` for a key with an array that is one number, or holds what is no number."""
    for name, tensor in key.tensors.items():
        if not tensor.ndim or (tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())):
            message = f"the array {name!r:.60} of this {key.method} key is a single number, or holds what is no number: {REMEDY}"
            raise FormatError(message)


def _told(key: Key, *path: str) -> bool:
    """Return whether a key tells something at ``path``."""
    found: Any = key.facts
    for step in path:
        if not isinstance(found, Mapping) or step not in found:
            return False
        found = found[step]
    return True


def _count(key: Key, *path: str) -> int:
    """Return the count at ``path``, 0 where there is none; raises `FormatError` for what is no count."""
    if not _told(key, *path):
        return 0
    count = key.fact(float, *path)
    if count < 0 or count != int(count):
        message = f"{'.'.join(path)!r} of this {key.method} key is no count: {REMEDY}"
        raise FormatError(message)
    return int(count)


def _most(key: Key) -> str:
    """Return the most that may be said of a finding: weak where the owner chose the draws, ``""`` where the key sets no limit."""
    draws = key.facts.get("draws")
    return "weak" if isinstance(draws, Mapping) and draws.get("of") == "siblings" and chosen(draws) else ""


def _digest(model: nn.Module) -> str | None:
    """Return the digest of a suspect's weights; ``None`` where they are packed away, as in quantised models, which are no copy bit for bit."""
    return state_digest(model) if all(isinstance(tensor, Tensor) for tensor in model.state_dict().values()) else None
