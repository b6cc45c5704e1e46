"""What stands behind a key beside itself: the grant of its user, and what dates it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelward.cli.output import warn
from modelward.core.errors import InputError

if TYPE_CHECKING:
    from modelward.audit.committing import Committed
    from modelward.core.key import Key

NAME = "registry.sqlite"


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
    near = (path.absolute().parent / NAME, path.absolute().parent.parent / NAME)
    place = registry or next((each for each in near if each.is_file()), None)
    if place is None:
        return {"grant": f"unknown: there is no {NAME} near the key; name it with --registry"}
    from modelward.keys.files import key_digest
    from modelward.keys.registry import Registry

    book = Registry(place)
    if "backup" not in book.notes():
        warn(f"the registry {place} was never backed up: modelward key backup --out DIR")
    rows = [each for each in book.grants(user=str(grant.get("user")), purpose=key.method) if each.generation == grant.get("generation")]
    if not rows:
        return {"grant": f"unknown to {place.name}"}
    same = rows[0].key_digest == key_digest(key)
    return {"grant": rows[0].state() if same else f"{rows[0].state()}, but the key is not the one that {place.name} recorded"}


def dated(committed: Committed | None) -> dict[str, Any]:
    """Return what a commitment to a key is worth."""
    if committed is None:
        return {}
    worth, notes = committed.worth()
    return {"commitment": f"{worth}, {worth.digest}", "remarks": " ".join(notes)}
