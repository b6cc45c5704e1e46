"""Locks: methods that make a model useless to whoever lacks the key."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from modelward.core.errors import InputError
from modelward.core.guard import frozen, require_finite, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.method import VariantMethod
from modelward.core.ownership import Attack


@dataclass(frozen=True, kw_only=True)
class LockMethod(VariantMethod, ABC):
    """Make a model useless without its key: ``lock(model, data, *, rng) -> (locked, key)``, ``unlock(locked, key) -> model``."""

    family: ClassVar[str] = "lock"

    def lock(self, model: nn.Module, data: ImageSet, *, secret: bytes | None = None, rng: torch.Generator) -> tuple[nn.Module, Key]:
        """Return the locked model and the key that opens it.

        Parameters
        ----------
        model
            the owner's model; never changed.
        data
            labelled images of the owner's, to see by what a model is hurt most; they need not be those it was trained on.
        secret
            for methods that derive what they do from a secret; drawn from ``rng`` when absent.
        rng
            source of all randomness.
        """
        require_finite(model)
        if not len(data):
            raise InputError("no images to lock with; pass labelled images of the model's task")
        with frozen(model):
            locked, key = self._lock(model, data, secret=secret, rng=rng)
        return locked.eval(), key

    def unlock(self, locked: nn.Module, key: Key) -> nn.Module:
        """Return the model as it was before it was locked; ``locked`` stays as it is.

        Raises
        ------
        InputError
            for a key of another method or of another locked model.
        """
        if key.method != self.card.name:
            message = f"this key was made by {key.method!r}; unlock with that method, not with {self.card.name!r}"
            raise InputError(message)
        found = state_digest(locked)
        if found != key.model_digest:
            message = f"this key opens the model with digest {key.model_digest[:12]}, the one given has {found[:12]}: it is another build"
            raise InputError(message)
        return self._unlock(locked, key).eval()

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return the thefts of somebody who knows this lock and lacks the key."""
        return ()

    @abstractmethod
    def _lock(self, model: nn.Module, data: ImageSet, *, secret: bytes | None, rng: torch.Generator) -> tuple[nn.Module, Key]:
        """Return the locked model, a new one, and the key."""

    @abstractmethod
    def _unlock(self, locked: nn.Module, key: Key) -> nn.Module:
        """Return the restored model, a new one."""
