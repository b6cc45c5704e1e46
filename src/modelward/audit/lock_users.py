"""Users of a lock: keys of their own for the one build that everybody has, and whose key it was that leaked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelward.audit.enrolment import Protected
from modelward.audit.issuing import Maker
from modelward.audit.locking import locking
from modelward.core.canonical import digest_bytes
from modelward.core.catalogue import find
from modelward.core.errors import InputError, UsageError
from modelward.core.key import Key
from modelward.core.locking import LockMethod, ModelLock, issued_to
from modelward.core.rng import generator
from modelward.keys.files import key_digest
from modelward.keys.master import Master
from modelward.keys.registry import Registry
from modelward.models import load_model


def is_lock(method: str) -> bool:
    """Return whether ``method`` is a lock; raises `UsageError` for a name that nothing has.

    >>> is_lock("advparams"), is_lock("zhang")
    (True, False)
    """
    return issubclass(find(method), LockMethod)


def lock_maker(method: str, locked: Path, key: Key, arch: str | None = None) -> Maker:
    """Return what makes a user's key from the owner's.

    Parameters
    ----------
    method
        the lock.
    locked
        the build that is handed out.
    key
        the owner's.

    Raises
    ------
    UsageError
        for a key of another method, and for a lock that knows no users.
    """
    if key.method != method:
        message = f"this is a key of {key.method}, not of {method}; pass the one that `modelward lock {method}` wrote"
        raise UsageError(message)
    chosen = locking(method, dict(key.fact(dict, "settings")))
    if not isinstance(chosen, ModelLock):
        message = (
            f"{method} locks images: a customer's name is written into the copy that is opened for him, by `modelward unlock --customer`"
        )
        raise UsageError(message)
    model = load_model(locked, arch).model

    def make(settings: dict[str, Any], secret: bytes, user: str) -> Protected:
        del settings
        rng = generator(int(digest_bytes(secret)[:15], 16))
        return Protected(model, chosen.issue(model, key, user, secret=secret, rng=rng), changed=False)

    return make


def require_standing(key: Key, registry: Path | None) -> None:
    """Raise `InputError` unless ``registry`` knows the key as one that was issued to a user whose grant is active.

    A key that was changed since it was issued is known to no registry, nor is the owner's: who could leave out the name would be asked nothing.
    """
    if registry is None:
        return
    book = Registry(registry)
    if "user" not in key.facts:
        message = f"this key says no user, and {registry.name} opens for users alone; an owner leaves out --registry"
        raise InputError(message)
    user = key.fact(str, "user")
    book.require(user, key.method)
    if key_digest(key) not in {grant.key_digest for grant in book.grants(purpose=key.method) if grant.user == user}:
        message = f"this is not the key that user {user} was issued: its content differs from the digest in {registry.name}"
        raise InputError(message)


@dataclass(frozen=True)
class Leak:
    """Whose key was found.

    Parameters
    ----------
    user, state
        whom it was issued to, and whether the grant is active, revoked or expired; ``None`` when the registry does not know this key.
    claims
        the name that the file itself says; not to be believed where ``genuine`` is not true.
    genuine
        whether the file is as it was issued; ``None`` without the master secret, and for a key that the registry does not know.
    """

    user: str | None
    state: str | None
    claims: str | None
    genuine: bool | None


def trace_key(key: Key, registry: Registry, master: Master | None = None) -> Leak:
    """Return whose key of a lock this is.

    A key is known by the digest of its content. One that was given another name, or otherwise changed, is known to nobody; of one that is known,
    the master secret tells besides whether its tag is its user's.
    """
    claims = key.facts.get("user")
    claimed = claims if isinstance(claims, str) else None
    digest = key_digest(key)
    for grant in registry.grants(purpose=key.method):
        if grant.key_digest == digest:
            secret = None if master is None else master.secret(grant.user, key.method, generation=grant.generation)
            return Leak(grant.user, grant.state(), claimed, None if secret is None else _genuine(key, secret))
    return Leak(None, None, claimed, None)


def _genuine(key: Key, secret: bytes) -> bool:
    """Return whether a key carries the tag of its user's secret."""
    try:
        issued_to(key, secret)
    except InputError:
        return False
    return True
