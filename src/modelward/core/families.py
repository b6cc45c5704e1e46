"""The families: one verb each to write, everything boring done once here.

A concrete method writes the verb with a leading underscore (``_perturb``, ``_steal``, ...); the public verb and `run` add argument checks,
a frozen and restored model, the budget check, timing and flags.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.core.errors import AccessError, InputError, UsageError
from modelward.core.evasion import EvasionMethod, MinimumNormMethod
from modelward.core.guard import frozen, require_finite
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.method import Method
from modelward.core.result import Result, Trace
from modelward.core.suspect import Access, Suspect
from modelward.core.verdict import Verdict
from modelward.core.view import AttackerView, Labels

__all__ = ["EvasionMethod", "MinimumNormMethod", "OwnershipMethod", "Theft", "TheftMethod"]


@dataclass(frozen=True)
class Theft:
    """What a thief ends up with.

    Parameters
    ----------
    model
        the stolen model (image batch -> logits).
    arch
        its architecture, as in ``--arch``; ``None`` when it is the victim's.
    accuracy, reference
        its accuracy on the owner's test images, and that of a model trained from scratch at the same budget; filled in by the suspect farm.
    log
        what the theft did: epochs, sparsity, bits, queries.
    """

    model: nn.Module
    arch: str | None = None
    accuracy: float | None = None
    reference: float | None = None
    log: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TheftMethod(Method, ABC):
    """Make a copy of a model that is not yours: ``steal(view, *, rng) -> Theft``."""

    family: ClassVar[str] = "theft"
    needs: ClassVar[Access] = Access.WEIGHTS
    labels: ClassVar[tuple[Labels, ...]] = (Labels.TRUE, Labels.STOLEN)

    def steal(self, view: AttackerView, *, rng: torch.Generator) -> Theft:
        """Return the stolen model; the victim stays untouched."""
        return self.run(view, rng=rng).value

    def run(self, view: AttackerView, *, rng: torch.Generator) -> Result[Theft]:
        """Do as `steal`, and also return flags, steps, queries and seconds."""
        if view.labels not in self.labels:
            message = f"{self.card.name} works with labels {' or '.join(self.labels)}, not {view.labels.value}"
            raise UsageError(message)
        if self.needs is Access.WEIGHTS and view.victim.access is not Access.WEIGHTS:
            message = f"{self.card.name} needs the victim's weights; this attacker has {view.victim.access.value}"
            raise AccessError(message)
        if self.needs is Access.WEIGHTS:
            require_finite(view.weights)
        started, before, trace = time.perf_counter(), view.victim.queries, Trace()
        theft = self._steal(view, rng=rng, trace=trace)
        require_finite(theft.model)
        theft.model.eval()
        queries = view.victim.queries - before
        return Result(theft, tuple(trace.flags), trace.steps, queries, time.perf_counter() - started)

    def _require(self, **rules: tuple[bool, str]) -> None:
        """Raise `UsageError` for the first setting whose rule (holds, words) does not hold."""
        for name, (holds, words) in rules.items():
            if not holds:
                message = f"{self.card.name}: {name} must be {words}, got {getattr(self, name)!r}"
                raise UsageError(message)

    @property
    def inner(self) -> tuple[str, ...]:
        """Names of the methods that this one runs inside, as its settings say."""
        return ()

    @property
    def effort(self) -> float:
        """What it costs, roughly, in epochs of plain training on the thief's images."""
        return float(getattr(self, "epochs", 0))

    @abstractmethod
    def _steal(self, view: AttackerView, *, rng: torch.Generator, trace: Trace) -> Theft:
        """Return the theft; never change ``view.victim``."""


@dataclass(frozen=True, kw_only=True)
class OwnershipMethod(Method, ABC):
    """Prove whose model it is: ``protect(...) -> (model, key)``, ``verify(suspect, key) -> Verdict``."""

    family: ClassVar[str] = "ownership"
    needs: ClassVar[Access] = Access.PROBABILITIES

    variant: str = "hardened"

    def __post_init__(self) -> None:
        if self.variant not in {"paper", "hardened"}:
            message = f"variant is 'paper' or 'hardened', not {self.variant!r}"
            raise UsageError(message)

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
            images that no model under study was trained on.
        secret
            for methods that derive their mark from a secret.
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

    def verify(self, suspect: Suspect | nn.Module, key: Key) -> Verdict:
        """Return the verdict on ``suspect``, asking it no more than this method needs."""
        if key.method != self.card.name:
            message = f"this key was made by {key.method!r}; verify it with that method, not with {self.card.name!r}"
            raise InputError(message)
        asked = suspect if isinstance(suspect, Suspect) else Suspect.of_model(suspect)
        before = asked.queries
        verdict = self._verify(asked, key)
        return replace(verdict, queries=asked.queries - before, caveats=(*asked.notes, *verdict.caveats))

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
    def _verify(self, suspect: Suspect, key: Key) -> Verdict:
        """Return the verdict."""

    def probes(self, key: Key) -> Tensor:
        """Return the key's query images as uint8 (n, C, H, W), for a suspect that only a remote service answers for."""
        if "probes" not in key.tensors:
            message = f"{self.card.name} keys hold no query images"
            raise UsageError(message)
        return key.tensors["probes"]
