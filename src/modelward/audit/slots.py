"""Slots: what a locked build holds for each of its users, so that the owner can take one away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from modelward.audit.enrolment import Protected
from modelward.audit.issuing import Maker, issued_key, user_secret
from modelward.audit.locking import locking
from modelward.core.canonical import digest_bytes
from modelward.core.errors import InputError, UsageError
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.io.age import Secret
from modelward.keys.grants import Grant
from modelward.keys.master import Master
from modelward.keys.registry import Registry
from modelward.models import load_model


@runtime_checkable
class Slotted(Protocol):
    """A lock whose build keeps a slot for each user."""

    @property
    def keeps_slots(self) -> bool:
        """Whether it does so with these settings."""

    def enrol(
        self, locked: nn.Module, key: Key, users: Mapping[str, bytes], *, taken: Sequence[Key] = (), rng: torch.Generator
    ) -> tuple[nn.Module, dict[str, Key]]:
        """Return the build with a slot for each user, and the users' keys, which open it through their slots alone."""

    def revoke(self, locked: nn.Module, made: Key) -> nn.Module:
        """Return the build without the slot of a user's key."""


@dataclass(frozen=True, eq=False)
class Enrolled:
    """What enrolling gives: the build with a slot for each user, and what hands out their keys to `issue_keys`."""

    model: nn.Module
    make: Maker


def enrol_users(locked: Path, key: Key, master: Master, grants: Sequence[Grant], arch: str | None = None) -> Enrolled:
    """Return a build with a slot for the user of each grant, and the users' keys, all made at once.

    Parameters
    ----------
    locked
        the build so far; the slots in it stay.
    key
        the owner's.
    master
        where the users' secrets come from.

    Raises
    ------
    UsageError
        for a lock, or a setting of it, that keeps no slots.
    """
    chosen = require_slots(key.method, key)
    known = {grant.user: user_secret(master, key.method, grant) for grant in grants}
    rng = generator(int(digest_bytes(b"".join(known.values()))[:15], 16))
    model, made = chosen.enrol(load_model(locked, arch).model, key, known, rng=rng)

    def make(settings: dict[str, Any], secret: bytes, user: str) -> Protected:
        del settings, secret
        return Protected(model, made[user], changed=False)

    return Enrolled(model, make)


def close_slot(
    locked: Path, registry: Registry, user: str, method: str | None, *, arch: str | None = None, passphrase: Secret | None = None
) -> nn.Module:
    """Return the build in ``locked`` without the slot of ``user``, whose key the registry knows.

    Parameters
    ----------
    method
        the lock; needed where the user holds grants for several.

    Raises
    ------
    InputError
        when the registry knows no such user, or the key cannot be read any more.
    UsageError
        when the build has no slot of this user.
    """
    grants = [grant for grant in registry.grants(user=user, purpose=method) if grant.key_file is not None]
    methods = sorted({grant.purpose for grant in grants})
    if len(methods) != 1:
        if grants:
            message = f"user {user} has keys of {' and '.join(methods)}; say --method"
            raise UsageError(message)
        message = f"{registry.path.name} knows no key of user {user}" + (f" for {method}" if method else "")
        raise InputError(message)
    chosen, model = require_slots(methods[0]), load_model(locked, arch).model
    newest = max(grants, key=lambda grant: grant.generation)
    return chosen.revoke(model, issued_key(registry, newest, passphrase=passphrase))


def require_slots(method: str, key: Key | None = None) -> Slotted:
    """Return the lock as the owner's key says it was set up; raises `UsageError` for a lock, or a setting of it, that keeps no slots."""
    chosen = locking(method, {} if key is None else dict(key.fact(dict, "settings")))
    if not isinstance(chosen, Slotted):
        message = (
            f"the keys of {method} open every copy of the build, which keeps no slots: leave out --out-model, and revoke the grant alone"
        )
        raise UsageError(message)
    if not chosen.keeps_slots and key is not None:
        message = f"{method} keeps no slots with the settings of this key: nothing could be taken away again; leave out --out-model"
        raise UsageError(message)
    return chosen
