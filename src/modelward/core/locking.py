"""Locks: methods that make a model, or a set of images, worth nothing to whoever lacks the key."""

from __future__ import annotations

import hashlib
import hmac
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from modelward.core.canonical import canonical_json
from modelward.core.errors import AccessError, InputError
from modelward.core.guard import frozen, predict, require_finite, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.method import VariantMethod
from modelward.core.ownership import Attack

TAG = "tag"


@dataclass(frozen=True, kw_only=True)
class LockMethod(VariantMethod, ABC):
    """What locks of models and of image sets share: ``lock(thing, ...) -> (locked, key)`` and ``unlock(locked, key) -> thing``."""

    family: ClassVar[str] = "lock"
    small: ClassVar[Mapping[str, Any]] = {}  # settings with which it is done in seconds, as no evidence
    exact: ClassVar[bool] = True  # unlocking gives every byte back; otherwise, something that works as well

    def adaptive_attacks(self) -> tuple[Attack, ...]:
        """Return the thefts of somebody who knows this lock and lacks the key."""
        return ()

    def _require_own(self, key: Key) -> None:
        """Raise `InputError` for another method's key."""
        if key.method != self.card.name:
            message = f"this key was made by {key.method!r}; unlock with that method, not with {self.card.name!r}"
            raise InputError(message)


@dataclass(frozen=True, kw_only=True)
class ModelLock(LockMethod, ABC):
    """Make a model useless without its key: ``lock(model, data, *, rng) -> (locked, key)``, ``unlock(locked, key) -> model``."""

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
        """Return the model as whoever holds ``key`` may use it; ``locked`` stays as it is.

        Raises
        ------
        InputError
            for a key of another method or of another locked model.
        """
        self._require_own(key)
        found = state_digest(locked)
        if found != key.model_digest:
            message = f"this key opens the model with digest {key.model_digest[:12]}, the one given has {found[:12]}: it is another build"
            raise InputError(message)
        return self._unlock(locked, key).eval()

    def issue(self, locked: nn.Module, key: Key, user: str, *, secret: bytes, rng: torch.Generator) -> Key:
        """Return the key of one user, made from the owner's; by default one that says whose it is, and cannot be given another name.

        Parameters
        ----------
        locked
            the build that was handed out; never changed.
        key
            the owner's.
        user
            the name that the registry knows.
        secret
            the user's own, derived from the owner's master secret: whoever lacks it cannot change the name.

        Raises
        ------
        InputError
            for a key of another method or another build, or one that is a user's already.
        """
        self._require_own(key)
        if key.model_digest != state_digest(locked):
            raise InputError("this key opens another build than the model given; issue from the key that lock wrote for it")
        if "user" in key.facts:
            message = f"this key was issued to {key.facts['user']!r}; issue from the owner's, which lock wrote"
            raise InputError(message)
        with frozen(locked):
            made = self._issue(locked, key, user, secret=secret, rng=rng)
        return tagged(made, user, secret)

    def stripped(self, locked: nn.Module) -> nn.Module | None:
        """Return the network that is left to whoever cuts the lock out of the file; ``None`` where there is nothing to cut out."""
        del locked
        return None

    def stealth(self, model: nn.Module, locked: nn.Module, key: Key, images: ImageSet) -> Mapping[str, float]:
        """Return by what the lock could be noticed, by unit: ``{"dB": 31.0}`` of changed images, ``{"auc": 0.6}`` of ranking changed entries."""
        del model, locked, key, images
        return {}

    @abstractmethod
    def _lock(self, model: nn.Module, data: ImageSet, *, secret: bytes | None, rng: torch.Generator) -> tuple[nn.Module, Key]:
        """Return the locked model, a new one, and the key."""

    @abstractmethod
    def _unlock(self, locked: nn.Module, key: Key) -> nn.Module:
        """Return the restored model, a new one."""

    def _issue(self, locked: nn.Module, key: Key, user: str, *, secret: bytes, rng: torch.Generator) -> Key:
        """Return what a user's key holds; the owner's key as it is, unless a lock has something of the user's own."""
        del locked, user, secret, rng
        return key


def right_answers(model: nn.Module, images: ImageSet) -> Tensor:
    """Return which images a model classifies rightly (N,): none where it refuses to answer, as a locked one may."""
    try:
        return predict(model, images.pixels).argmax(1) == images.labels
    except AccessError:
        return torch.zeros(len(images), dtype=torch.bool)


def tagged(key: Key, user: str, secret: bytes) -> Key:
    """Return a key that says whose it is, with the tag that only the holder of the user's secret can make."""
    named = replace(key, facts={**key.facts, "user": user})
    return replace(named, tensors={**named.tensors, TAG: _tag(named, secret)})


def issued_to(key: Key, secret: bytes) -> str:
    """Return the user whose key this is, by the tag that only the holder of the user's secret can have made.

    Raises
    ------
    InputError
        for a key without a user, and for one whose name or content was changed after it was issued.

    Examples
    --------
    >>> key = Key("advparams", "hardened", "0" * 64, {"user": "ann"}, {})
    >>> issued_to(replace(key, tensors={TAG: _tag(key, b"secret of ann")}), b"secret of ann")
    'ann'
    """
    if "user" not in key.facts:
        raise InputError("this is the owner's key, it was issued to nobody")
    said = bytes(key.tensor(TAG).to(torch.uint8).tolist())
    rest = replace(key, tensors={name: tensor for name, tensor in key.tensors.items() if name != TAG})
    if not hmac.compare_digest(said, bytes(_tag(rest, secret).tolist())):
        raise InputError("this key was changed after it was issued: its tag does not fit its name and content")
    return key.fact(str, "user")


def _tag(key: Key, secret: bytes) -> Tensor:
    """Return the tag (32,) over all that a user's key says, except of its grant, which the registry writes."""
    facts = {name: value for name, value in key.facts.items() if name != "grant"}
    whole = hashlib.sha256(canonical_json({"method": key.method, "variant": key.variant, "model": key.model_digest, "facts": facts}))
    for name, tensor in sorted(key.tensors.items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return torch.tensor(list(hmac.digest(secret, whole.digest(), "sha256")), dtype=torch.uint8)
