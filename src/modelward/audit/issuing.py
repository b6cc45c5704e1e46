"""Issue keys to users: the registry first, then a key, and where a model is given a copy of it, for each of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from modelward.audit.enrolment import Protected, ownership
from modelward.core.catalogue import find
from modelward.core.errors import InputError, StoreError, UsageError
from modelward.core.families import OwnershipMethod
from modelward.core.key import Key
from modelward.core.locking import LockMethod
from modelward.io.age import Secret
from modelward.keys import read_key, write_key
from modelward.keys.files import key_digest
from modelward.keys.grants import ACTIVE, Grant, Request, require_ahead
from modelward.keys.master import Master, secret_digest
from modelward.keys.registry import Registry
from modelward.models import save_model

Maker = Callable[[dict[str, Any], bytes, str], Protected]


@dataclass(frozen=True)
class Issued:
    """What one user was issued: the grant, the key file, and the file of the marked copy where one was made."""

    grant: Grant
    key: Path
    model: Path | None = None


def grant_users(
    registry: Registry, master: Master, method: str, settings: dict[str, Any], users: Sequence[tuple[str, str | None]]
) -> list[Grant]:
    """Return the grants of ``users`` (name, last day) under the newest generation, recorded all or none.

    Users whose key was never finished, since an earlier run was stopped, keep the grant they have.

    Raises
    ------
    UsageError
        for a user who was revoked or has a key already, a last day that is past, or more users than the method's code serves.
    InputError
        when the master secret is not the one that the registry was filled with.
    """
    for _, expires in users:
        require_ahead(expires)
    require_master(registry, master)
    generation = master.generation
    known = {grant.user: grant for grant in registry.grants(purpose=method) if grant.generation == generation}
    begun = {user: grant for user, grant in known.items() if grant.key_file is None and grant.state() == ACTIVE}

    def check(grant: Grant) -> object:
        return user_settings(method, settings, grant)

    fresh = [Request(user, secret_digest(master.secret(user, method)), expires) for user, expires in users if user not in begun]
    made = {grant.user: grant for grant in registry.issue(fresh, purpose=method, generation=generation, check=check)}
    return [(begun | made)[user] for user, _ in users]


def require_master(registry: Registry, master: Master) -> None:
    """Raise `InputError` when a grant of the registry was made with another master secret."""
    for grant in registry.grants()[:1]:
        if secret_digest(master.secret(grant.user, grant.purpose, generation=grant.generation)) != grant.secret_digest:
            message = (
                f"this master secret is not the one that {registry.path.name} was filled with: user {grant.user} would get another secret"
            )
            raise InputError(message)


def issue_keys(
    registry: Registry, master: Master, method: str, settings: dict[str, Any], grants: Sequence[Grant], *, folder: Path,
    make: Maker | None = None, passphrase: Secret | None = None, recipients: Sequence[str] = (),
) -> Iterator[Issued]:  # fmt: skip
    """Write a key for each grant, and the marked copy where ``make`` makes one; each is recorded when it is whole.

    Parameters
    ----------
    settings
        hyper-parameters of the method.
    folder
        where ``USER.METHOD.mw`` and ``USER.METHOD.safetensors`` go; later generations have their number in the name.
    make
        from (settings, secret, user) to the protected model; ``None`` writes the user's secret alone.
    passphrase, recipients
        whom the key files are encrypted for: a passphrase, or the holders of age public keys.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        message = f"the folder {folder} cannot be made: {error.strerror}; pass another with --keys"
        raise StoreError(message) from error
    for grant in grants:
        own, secret = user_settings(method, settings, grant), user_secret(master, method, grant)
        made = None if make is None else make(own, secret, grant.user)
        key = _bare(method, own, secret) if made is None else made.key
        key = replace(key, facts={**key.facts, "grant": _told(grant)})
        stem = f"{grant.user}.{method}" + (f".{grant.generation}" if grant.generation > 1 else "")
        path, copy = folder / f"{stem}.mw", folder / f"{stem}.safetensors"
        if made is not None and made.changed:
            save_model(copy, made.model, {"trained_on": "owner"})
        write_key(path, key, passphrase=None if recipients else passphrase, recipients=recipients)
        whole = registry.record(grant, key_digest=key_digest(key), key_file=_relative(path, registry.path.parent))
        yield Issued(whole, path, copy if made is not None and made.changed else None)


def user_settings(method: str, settings: dict[str, Any], grant: Grant) -> dict[str, Any]:
    """Return a method's settings for one user: the user's name or number, where the method knows one.

    Raises
    ------
    UsageError
        when the settings name a user themselves, or the number is beyond what the method's code serves.
    """
    own = {"user": grant.user, "number": grant.number}
    fields = {field.name for field in dataclasses.fields(serving(method, {}))}
    taken = sorted(set(own) & set(settings))
    if taken:
        message = f"{taken[0]} is set for each user by the registry; leave it out of --set"
        raise UsageError(message)
    chosen = settings | {name: value for name, value in own.items() if name in fields}
    serving(method, chosen)
    return chosen


def serving(method: str, settings: dict[str, Any]) -> OwnershipMethod | LockMethod:
    """Return the method that users are issued keys of: one that proves ownership, or a lock; raises `UsageError` for another family."""
    found = find(method).configured(settings)
    if not isinstance(found, OwnershipMethod | LockMethod):
        message = (
            f"{method} is of the family {found.family}: it has no keys to issue; `modelward methods` lists ownership methods and locks"
        )
        raise UsageError(message)
    return found


def numbered(method: str) -> bool:
    """Return whether a method tells users apart by their numbers under one secret, as a code against collusion does."""
    return any(field.name == "number" for field in dataclasses.fields(serving(method, {})))


def user_secret(master: Master, method: str, grant: Grant) -> bytes:
    """Return the secret that a user's key is drawn from."""
    if numbered(method):
        return master.shared(method, generation=grant.generation)
    return master.secret(grant.user, method, generation=grant.generation)


def _bare(method: str, settings: dict[str, Any], secret: bytes) -> Key:
    """Return a key that holds a user's secret and no model's mark yet."""
    chosen = ownership(method, settings)
    facts = {"settings": chosen.settings(), "calibrated": False, "classes": [], "bare": True}
    return Key(method, chosen.variant, "0" * 64, facts, {"secret": torch.tensor(list(secret), dtype=torch.uint8)})


def _told(grant: Grant) -> dict[str, Any]:
    """Return what a key says of its grant."""
    return {name: getattr(grant, name) for name in ("user", "number", "generation", "purpose", "issued", "expires")}


def _relative(path: Path, folder: Path) -> str:
    """Return a path relative to a folder, so that both can be moved together."""
    try:
        return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
    except ValueError:  # another drive
        return path.resolve().as_posix()


def issued_key(registry: Registry, grant: Grant, *, passphrase: Secret | None = None) -> Key:
    """Return the key of a grant; raises `InputError` when there is none, or it is not the one that was issued."""
    if grant.key_file is None:
        message = f"user {grant.user} has no key for {grant.purpose} yet; finish it by the same modelward issue"
        raise InputError(message)
    path = registry.path.parent / grant.key_file
    key = read_key(path, passphrase=passphrase)
    if key_digest(key) != grant.key_digest:
        message = f"{path} is not the key that user {grant.user} was issued: its content differs from the registry's digest"
        raise InputError(message)
    return key
