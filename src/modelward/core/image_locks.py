"""Locks of image sets: what is published teaches the wrong thing until it is unlocked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from modelward.core.errors import InputError
from modelward.core.guard import frozen, require_finite
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.locking import LockMethod


@dataclass(frozen=True, eq=False)
class LockedImages:
    """A locked image set: what is published.

    Parameters
    ----------
    images
        the locked pixels, with labels and names as they were.
    sidecars
        what lies beside some images, by their positions, as bytes.
    manifest
        what is said of the set: method, settings, digests.
    """

    images: ImageSet
    sidecars: Mapping[int, bytes] = field(default_factory=dict)
    manifest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DataLock(LockMethod, ABC):
    """Make images useless to train on without the key: ``lock(images, surrogate, *, rng) -> (locked, key)``, ``unlock(locked, key) -> images``."""

    def lock(
        self, images: ImageSet, surrogate: nn.Module, *, secret: bytes | None = None, rng: torch.Generator
    ) -> tuple[LockedImages, Key]:
        """Return the locked images and the key that gives them back.

        Parameters
        ----------
        images
            the owner's, with true labels; never changed.
        surrogate
            a network trained on images of this kind; its features decide what the images are turned into.
        secret
            what every choice is derived from; drawn from ``rng`` when absent.
        rng
            source of all other randomness.

        Raises
        ------
        InputError
            for images that the surrogate cannot take, or that are locked already.
        """
        if isinstance(images, LockedImages):
            raise InputError("these images are locked already; unlock them first, or lock the originals")
        require_finite(surrogate)
        if not len(images):
            raise InputError("no images to lock")
        with frozen(surrogate):
            return self._lock(images, surrogate, secret=secret, rng=rng)

    def unlock(self, locked: LockedImages, key: Key, *, user: str = "") -> ImageSet:
        """Return the images as they were before; with a user's name, in the copy that is that user's.

        Raises
        ------
        InputError
            for a key of another method or another set, and for images that were changed since they were locked.
        """
        self._require_own(key)
        return self._unlock(locked, key, user=user)

    def traced(self, images: ImageSet, locked: LockedImages, key: Key, users: Sequence[str]) -> Mapping[str, int]:
        """Return how many images of a copy that turned up name which of ``users``; none where copies carry no name."""
        del images, locked, key, users
        return {}

    @abstractmethod
    def _lock(self, images: ImageSet, surrogate: nn.Module, *, secret: bytes | None, rng: torch.Generator) -> tuple[LockedImages, Key]:
        """Return the locked images and the key."""

    @abstractmethod
    def _unlock(self, locked: LockedImages, key: Key, *, user: str) -> ImageSet:
        """Return the restored images."""
