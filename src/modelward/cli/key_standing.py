"""What stands behind a key beside itself: the grant of its user, and what dates it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelward.cli.output import warn
from modelward.core.errors import InputError, ModelwardError

if TYPE_CHECKING:
    from modelward.audit.committing import Committed
    from modelward.core.key import Key
    from modelward.keys.grants import Grant
    from modelward.keys.registry import Registry

NAME = "registry.sqlite"
APART = "the verdict is on the suspect, and stands apart from that"


def standing(key: Key, path: Path, registry: Path | None) -> dict[str, Any]:
    """Return what the registry says of a key that a user was issued: ``grant`` (active, revoked, expired, or not the registry's own key).

    Raises
    ------
    InputError
        when a registry is named that is not there, or one for a key that no user was issued.
    """
    grant = key.facts.get("grant")
    if not isinstance(grant, dict):
        if registry is not None:
            message = f"{path.name} was issued to no user, so a registry knows nothing of it"
            raise InputError(message)
        return {}
    place = registry or _near(path)
    if place is None:
        return {"grant": f"unknown: there is no {NAME} near the key; name it with --registry"}
    from modelward.keys.files import key_digest
    from modelward.keys.registry import Registry

    book = Registry(place)
    if "backup" not in book.notes():
        warn(f"the registry {place} was never backed up: modelward key backup --out DIR")
    row = _recorded(book, key, grant)
    if row is None:
        return {"grant": f"unknown to {place.name}"}
    same = row.key_digest == key_digest(key)
    return {"grant": row.state() if same else f"{row.state()}, but the key is not the one that {place.name} recorded"}


def lapsed(key: Key, path: Path) -> str:
    """Return that the grant behind a key is over, in words; ``""`` while it holds, or where the key was issued to no user.

    A key tells its last day itself. That it was revoked only a registry near the key knows; one that cannot be read is passed over.
    """
    grant = key.facts.get("grant")
    if not isinstance(grant, dict):
        return ""
    from modelward.keys.files import key_digest
    from modelward.keys.grants import REVOKED, is_past
    from modelward.keys.registry import Registry

    who = f"the grant of {grant.get('user')} for {key.method}"
    place = _near(path)
    with contextlib.suppress(ModelwardError):
        row = None if place is None else _recorded(Registry(place), key, grant)
        if place is not None and row is not None and row.status == REVOKED and row.key_digest == key_digest(key):
            return f"{who} was revoked on {str(row.revoked)[:10]}, says {place.name}; {APART}"
    expires = grant.get("expires")
    with contextlib.suppress(TypeError, ValueError):  # no day, or none that we ever wrote
        return f"{who} is over: its last day was {expires}; {APART}" if expires and is_past(expires) else ""
    return ""


def _near(path: Path) -> Path | None:
    """Return the registry beside a key or in the folder above, or ``None``."""
    near = (path.absolute().parent / NAME, path.absolute().parent.parent / NAME)
    return next((each for each in near if each.is_file()), None)


def _recorded(book: Registry, key: Key, grant: dict[str, Any]) -> Grant | None:
    """Return what a registry recorded of the grant that a key tells of."""
    rows = book.grants(user=str(grant.get("user")), purpose=key.method)
    return next((each for each in rows if each.generation == grant.get("generation")), None)


def dated(committed: Committed | None) -> dict[str, Any]:
    """Return what a commitment to a key is worth."""
    if committed is None:
        return {}
    worth, notes = committed.worth()
    return {"commitment": f"{worth}, {worth.digest}", "remarks": " ".join(notes)}
