"""Ownership methods: protect a model, ask a suspect, judge what it answered."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from modelward.core.commitment import Commitment
from modelward.core.errors import FormatError, InputError, UsageError
from modelward.core.guard import frozen, require_finite
from modelward.core.images import ImageSet
from modelward.core.key import REMEDY, Key
from modelward.core.method import VariantMethod
from modelward.core.suspect import Access, Suspect
from modelward.core.verdict import Decision, Verdict

UNCOMMITTED = (
    "The statistic says that the key fits, but a key like this can be made for a model after the fact: without a dated commitment to it from "
    "before the dispute nothing is concluded."
)


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
    """

    access: Access
    tensors: Mapping[str, Tensor]
    queries: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attack:
    """A theft by name: its settings, and where the thief's labels come from (``true``, ``stolen`` or ``none``)."""

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    labels: str = "stolen"


@dataclass(frozen=True, kw_only=True)
class OwnershipMethod(VariantMethod, ABC):
    """Prove whose model it is: ``protect(...) -> (model, key)``, ``verify(suspect, key) -> Verdict``.

    ``needs`` is the least access that verification works with. ``marks``: protecting changes the model, by training on the owner's own
    images. ``forgeable``: a key can be made for a model of somebody else, so that only a dated commitment makes it evidence.
    ``small``: settings for smoke runs, where the usual reduction does not do.
    """

    family: ClassVar[str] = "ownership"
    needs: ClassVar[Access] = Access.PROBABILITIES
    marks: ClassVar[bool] = False
    forgeable: ClassVar[bool] = False
    small: ClassVar[Mapping[str, Any]] = {}

    def protect(
        self,
        model: nn.Module,
        data: ImageSet,
        *,
        secret: bytes | None = None,
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
        nulls
            independent models. Without them the key is uncalibrated and every verdict is "undecided".
        thieves
            validation thieves: they fix the paper's thresholds and show the power; never the suspects that are reported on.
        rng
            source of all randomness.
        """
        require_finite(model)
        if not len(data):
            raise InputError("no images to enrol with; pass a set that no model under study was trained on")
        with frozen(model):
            return self._protect(model, data, secret=secret, nulls=nulls, thieves=thieves, rng=rng)

    def observe(self, suspect: Suspect | nn.Module, key: Key) -> Observation:
        """Return what ``suspect`` answers to ``key``, asking it no more than this method needs."""
        if key.method != self.card.name:
            message = f"this key was made by {key.method!r}; verify it with that method, not with {self.card.name!r}"
            raise InputError(message)
        asked = suspect if isinstance(suspect, Suspect) else Suspect.of_model(suspect)
        before = asked.queries
        observed = self._observe(asked, key)
        return replace(observed, queries=asked.queries - before, notes=(*asked.notes, *observed.notes))

    def judge(self, observed: Observation, key: Key, *, commitment: Commitment | None = None) -> Verdict:
        """Return the verdict on answers that were given to ``key``; needs no suspect, so that anybody may repeat it.

        Parameters
        ----------
        commitment
            what says that the key is older than the dispute; for methods whose keys can be forged there is no "stolen" without a dated one.
        """
        verdict = self._judge(observed, key)
        verdict = replace(verdict, queries=observed.queries, access=observed.access.value, caveats=(*observed.notes, *verdict.caveats))
        if not (self.forgeable and verdict.stolen):
            return verdict
        if commitment is None or not commitment.dated:
            return replace(verdict, decision=Decision.UNDECIDED, caveats=(UNCOMMITTED, *verdict.caveats))
        return replace(verdict, caveats=(f"The key was committed to before: {commitment}.", *verdict.caveats))

    def verify(self, suspect: Suspect | nn.Module, key: Key, *, commitment: Commitment | None = None) -> Verdict:
        """Return the verdict on ``suspect``, asking it no more than this method needs."""
        return self.judge(self.observe(suspect, key), key, commitment=commitment)

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
        nulls: Sequence[nn.Module],
        thieves: Sequence[nn.Module],
        rng: torch.Generator,
    ) -> tuple[nn.Module, Key]:
        """Return the protected model and the key."""

    @abstractmethod
    def _observe(self, suspect: Suspect, key: Key) -> Observation:
        """Return the suspect's raw answers; queries and the suspect's own notes are added by `observe`."""

    @abstractmethod
    def _judge(self, observed: Observation, key: Key) -> Verdict:
        """Return the verdict on the answers alone."""

    def probes(self, key: Key) -> Tensor:
        """Return the key's query images as uint8 (n, C, H, W), for a suspect that only a remote service answers for."""
        if "probes" not in key.tensors:
            message = f"{self.card.name} keys hold no query images"
            raise UsageError(message)
        return key.tensors["probes"]
