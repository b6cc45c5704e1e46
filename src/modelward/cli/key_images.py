"""Users of a mark whose key images carry their names: what makes their keys, and whose name is in images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelward.cli.lock_users import NAMED, UNKNOWN
from modelward.cli.options import Options, working
from modelward.cli.output import emit, facts, note, say
from modelward.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from modelward.audit.issuing import Maker
    from modelward.audit.key_images import ImageName
    from modelward.io.age import Secret

SHOWN = 10


def of_images(method: str) -> bool:
    """Return whether ``method`` is a mark whose key images carry the names of users."""
    from modelward.audit.key_images import names_images

    return names_images(method)


def named_images(
    method: str,
    key: Path | None,
    model: Path | None,
    out_model: Path | None,
    registry: Path,
    users: Collection[str],
    arch: str | None,
    passphrase: Secret | None,
) -> Maker:
    """Return what makes a user's key, with an image in it, from the owner's; raises `UsageError` for a method without such images."""
    from modelward.audit.key_images import image_maker
    from modelward.keys import read_key

    if key is None or out_model is not None or not of_images(method):
        option = "--key" if out_model is None else "--out-model"
        message = f"{option} is for locks, whose users' keys are made from the owner's; leave it out"
        raise UsageError(message)
    if model is None:
        message = f"key images are handed out for the model that knows them: say --model MARKED, as `modelward protect {method}` wrote it"
        raise UsageError(message)
    return image_maker(method, model, read_key(key, passphrase=passphrase), registry, users, arch)


def tell_secrets(method: str, make: Maker | None, *, quiet: bool) -> None:
    """Print that users were issued secrets alone, ``make`` being none, where they could have had images."""
    if make is None and of_images(method):
        note("these keys hold secrets and no images: with --key OWNER and --model MARKED users get key images", quiet=quiet)


def require_owners_key(suspect: Path, method: str, key: Path | None, model: Path | None) -> None:
    """Raise `UsageError` for images without the owner's key, and for a marked model where no key images are traced."""
    from modelward.data.folders import SUFFIXES

    if not of_images(method) or key is None:
        if model is not None:
            raise UsageError("--model says which model must know key images: say --key KEY and the mark's --method with it")
        if of_images(method) and (suspect.is_dir() or suspect.suffix.lower() in SUFFIXES):
            raise UsageError("the names in key images are read with the owner's key: say --key KEY")


def trace_key_images(
    options: Options, place: Path, method: str, key: Path, among: tuple[Path, tuple[str, ...]], passphrase: Secret | None, **given: Any
) -> int:  # fmt: skip
    """Say whose name is in key images; ``among``: a registry, which need not exist, and further names."""
    with working(options):
        from modelward.audit.key_images import trace_key_images as asked
        from modelward.keys import read_key

        owner = read_key(key, passphrase=passphrase)
        if owner.method != method:
            message = f"{key.name} is a key of {owner.method}, not of {method}"
            raise UsageError(message)
        rows = asked(place, owner, *among, **given)
    named = list(dict.fromkeys(row.user for row in rows if row.user is not None))
    code = NAMED if named else UNKNOWN
    if options.as_json:
        emit("trace", {"suspect": place, "method": method, "named": named, "images": [vars(row) for row in rows], "exit_code": code})
    else:
        _tell(place, rows, named)
    return code


def _tell(place: Path, rows: Sequence[ImageName], named: Sequence[str]) -> None:
    """Print whose name is in images."""
    if named:
        say(f"{place} carries the name of {' and '.join(named)}.", style="bold red")
    else:
        say(f"UNKNOWN: nobody can be named for {place}.", style="bold yellow")
    for row in rows[:SHOWN]:
        who = [] if row.user is None else [row.user]
        say(f"{row.file}: " + "; ".join([*who, row.remark or "the grant is active"]))
    if len(rows) > SHOWN:
        facts([("images", f"{len(rows):,}, the first {SHOWN} are shown")])
    if named:
        say(
            "A user is named, not convicted: it was issued to him, others may have got hold of it, and who leaked a model it does not tell."
        )
