"""Users of a lock: what makes their keys, and whose key it was that leaked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelward.cli.options import Options, working
from modelward.cli.output import emit, facts, say
from modelward.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelward.audit.issuing import Maker
    from modelward.io.age import Secret
    from modelward.keys.grants import Grant
    from modelward.keys.master import Master
    from modelward.keys.registry import Registry

NAMED, UNKNOWN = 1, 3


def of_lock(method: str) -> bool:
    """Return whether ``method`` is a lock."""
    from modelward.audit.lock_users import is_lock

    return is_lock(method)


def lock_maker(
    method: str, key: Path | None, model: Path | None, arch: str | None, passphrase: Secret | None, *, slots: bool = False
) -> Maker:  # fmt: skip
    """Return what makes a user's key of a lock from the owner's; ``slots``: refuse, before anything is recorded, a lock that keeps none."""
    from modelward.audit.lock_users import lock_maker as made_of
    from modelward.audit.slots import require_slots
    from modelward.keys import read_key

    if key is None or model is None:
        message = (
            f"users of {method} get keys made from the owner's: say --key KEY and --model LOCKED, as `modelward lock {method}` wrote them"
        )
        raise UsageError(message)
    owners = read_key(key, passphrase=passphrase)
    make = made_of(method, model, owners, arch)
    if slots:
        require_slots(method, owners)
    return make


def slotted(
    out: Path, key: Path | None, model: Path | None, master: Master, grants: Sequence[Grant], arch: str | None, passphrase: Secret | None
) -> Maker:  # fmt: skip
    """Write the build with a slot for each user, and return what hands out their keys."""
    from modelward.audit.slots import enrol_users
    from modelward.keys import read_key
    from modelward.models import save_model

    if key is None or model is None:
        raise UsageError("slots are made in the owner's build: say --key KEY and --model LOCKED")
    made = enrol_users(model, read_key(key, passphrase=passphrase), master, grants, arch)
    save_model(out, made.model)
    return made.make


def without_slot(
    model: Path, out: Path, registry: Registry, user: str, method: str | None, arch: str | None, passphrase: Secret | None
) -> None:  # fmt: skip
    """Write the build without a user's slot."""
    from modelward.audit.slots import close_slot
    from modelward.cli.paths import require_free
    from modelward.models import save_model

    require_free(out, "--out-model", "a model")
    save_model(out, close_slot(model, registry, user, method, arch=arch, passphrase=passphrase))


def trace_key(options: Options, path: Path, method: str, registry: Path, master: Path | None, passphrase: Secret | None) -> int:
    """Say whom a key of a lock was issued to."""
    with working(options):
        from modelward.audit.lock_users import trace_key as asked
        from modelward.keys import read_key
        from modelward.keys.master import read_master
        from modelward.keys.registry import Registry

        key = read_key(path, passphrase=passphrase)
        if key.method != method:
            message = f"{path.name} is a key of {key.method}, not of {method}"
            raise UsageError(message)
        found = asked(key, Registry(registry), None if master is None else read_master(master, passphrase=passphrase))
    code = UNKNOWN if found.user is None else NAMED
    if options.as_json:
        emit("trace", {"suspect": path, "method": method, **vars(found), "exit_code": code})
        return code
    if found.user is None:
        said = f" It says that it is {found.claims}'s; keys that were changed say what they like." if found.claims else ""
        say(f"UNKNOWN: the registry knows no such key of {method}.{said}", style="bold yellow")
        return code
    say(f"{path.name} was issued to {found.user}.", style="bold red")
    tag = {None: "not asked, pass --master", True: "fits the user's secret", False: "does not fit the user's secret"}[found.genuine]
    facts([("grant", str(found.state)), ("tag", tag)])
    say("A user is named, not convicted: keys leak too.")
    return code


def trace_images(
    options: Options,
    place: Path,
    method: str,
    key: Path,
    locked: Path | None,
    among: tuple[Path, tuple[str, ...]],
    passphrase: Secret | None,
) -> int:
    """Say whose name is in images; ``among``: a registry, which need not exist, and further names."""
    with working(options):
        from modelward.audit.lock_traces import trace_images as asked
        from modelward.keys import read_key
        from modelward.keys.registry import Registry

        owner, (registry, names) = read_key(key, passphrase=passphrase), among
        if owner.method != method:
            message = f"{key.name} is a key of {owner.method}, not of {method}"
            raise UsageError(message)
        known = [grant.user for grant in Registry(registry).grants(purpose=method)] if registry.is_file() else []
        found = asked(place, owner, list(dict.fromkeys([*known, *names])), locked=locked)
    code = UNKNOWN if found.user is None else NAMED
    if options.as_json:
        emit("trace", {"suspect": place, "method": method, **vars(found), "exit_code": code})
        return code
    if found.user is None:
        say(f"UNKNOWN: nobody can be named for {place}.", style="bold yellow")
    else:
        say(f"{place} carries the name of {found.user}.", style="bold red")
        say("A user is named, not convicted: keys and copies leak too.")
    votes = ", ".join(f"{name} in {count:,}" for name, count in found.votes.items())
    facts([("images", f"{found.images:,}"), *([("names", votes)] if votes else [])])
    return code
