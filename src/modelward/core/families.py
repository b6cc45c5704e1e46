"""The families: one verb each to write, everything boring done once here.

A concrete method writes the verb with a leading underscore (``_perturb``, ``_steal``, ...); the public verb and `run` add argument checks,
a frozen and restored model, the budget check, timing and flags.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from modelward.core.errors import AccessError, UsageError
from modelward.core.evasion import EvasionMethod, MinimumNormMethod
from modelward.core.guard import require_finite
from modelward.core.method import Method
from modelward.core.ownership import OwnershipMethod
from modelward.core.result import Result, Trace
from modelward.core.suspect import Access
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
