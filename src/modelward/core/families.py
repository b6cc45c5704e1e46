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

from modelward.core.errors import AccessError, InputError, ModelwardError, UsageError
from modelward.core.guard import frozen, require_batch, require_finite, require_labels
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.method import Method
from modelward.core.result import Result, Trace
from modelward.core.suspect import Access, Suspect
from modelward.core.verdict import Verdict
from modelward.core.view import AttackerView, Labels


def _sizes(delta: Tensor, norm: str) -> Tensor:
    """Return the per-sample size (N,) of a difference in ``norm``."""
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(p=1 if norm == "l1" else 2, dim=1)


@dataclass(frozen=True, kw_only=True)
class EvasionMethod(Method, ABC):
    """Change images a little so that a model errs: ``perturb(model, x, y, *, rng) -> x_adv``.

    Parameters
    ----------
    norm
        ``"linf"`` or ``"l2"``.
    eps
        the largest allowed size of the change, pixels in [0, 1].
    targeted
        ``y`` is the class to reach instead of the class to leave.
    """

    family: ClassVar[str] = "evasion"
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")

    norm: str = "linf"
    eps: float = 8 / 255
    targeted: bool = False

    def __post_init__(self) -> None:
        if self.norm not in self.norms:
            message = f"{self.card.name} works in {' or '.join(self.norms)}, not {self.norm!r}"
            raise UsageError(message)
        if not self.eps >= 0:
            message = f"eps must be >= 0 (pixels in [0, 1]; 8/255 is usual), got {self.eps}"
            raise UsageError(message)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: torch.Generator) -> Tensor:
        """Return adversarial images (N, C, H, W) in [0, 1] within ``eps`` of ``x`` in ``norm``."""
        return self.run(model, x, y, rng=rng).value

    def run(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: torch.Generator) -> Result[Tensor]:
        """Do as `perturb`, and also return flags, steps, queries and seconds."""
        require_batch(x)
        require_labels(y, len(x))
        started, trace = time.perf_counter(), Trace()
        x = x.detach()
        value = x.clone()
        if len(x):
            with frozen(model):
                value = self._perturb(model, x, y, rng=rng, trace=trace).detach()
            self._check(x, value)
        return Result(value, tuple(trace.flags), trace.steps, trace.queries, time.perf_counter() - started)

    def _check(self, x: Tensor, value: Tensor) -> None:
        """Refuse a result whose measured budget exceeds the declared one."""
        low, high = value.aminmax()
        size = float(_sizes(value - x, self.norm).max())
        if not (low >= 0 and high <= 1 and size <= self.eps * (1 + 1e-5) + 1e-6):
            message = f"{self.card.name} left its budget: {self.norm} {size:.6f} > {self.eps:.6f} or pixels outside [0, 1]; this is a bug"
            raise ModelwardError(message)

    @abstractmethod
    def _perturb(self, model: nn.Module, x: Tensor, y: Tensor, *, rng: torch.Generator, trace: Trace) -> Tensor:
        """Return the changed images; ``model`` is frozen, ``x`` is not empty."""


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
