"""``modelward trace``: whose copy, key or image leaked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelward.cli.audit_commands import Arch
from modelward.cli.key_commands import PassphraseFd, PassphraseFile, passphrase_of
from modelward.cli.key_images import require_owners_key, trace_key_images
from modelward.cli.lock_users import NAMED, UNKNOWN, of_lock, trace_images, trace_key
from modelward.cli.options import Options, working
from modelward.cli.output import emit, facts, say, table
from modelward.cli.service_options import suspect_of, told
from modelward.cli.user_commands import SHOWN, RegistryFile

if TYPE_CHECKING:
    from modelward.audit.tracing import Tracing
    from modelward.io.age import Secret
    from modelward.keys.registry import Registry


def trace(
    options: Options,
    suspect: Annotated[str, typer.Argument(metavar="SUSPECT", help="Model, or address of a service.", show_default=False)],
    method: Annotated[str, typer.Option("--method", metavar="METHOD", help="Method that the copies are marked with, or the lock.")],
    *,
    registry: RegistryFile = Path("registry.sqlite"),
    master: Annotated[Path | None, typer.Option("--master", metavar="FILE", help="For a lock: tells whether the key was changed.")] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="KEY", help="For images: the owner's key, of the lock that they passed or of the mark.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="FILE", help="For key images of a mark: the marked model, which must know them too.")
    ] = None,
    locked: Annotated[
        Path | None, typer.Option("--locked", metavar="DIR", help="For a copy of an image set: the set as it was published.")
    ] = None,
    user: Annotated[
        list[str] | None, typer.Option("--user", metavar="NAME", help="For images: also look for this name; may be repeated.")
    ] = None,
    arch: Arch = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    convention: Any = None,
) -> int:
    """Say whose copy a suspect was made from, by the keys of all users. "Unknown" is an answer.

    Of a lock the suspect is a key file that was found: it is said whom it was issued to. With --key it is an image or a folder of images,
    and it is said whose name is in them: users' key images of additional-class, and images that passed a lock.

    Exit code 1: somebody is named, 3: nobody.
    """
    passphrase: Secret | None = passphrase_of(passphrase_file, passphrase_fd)
    require_owners_key(Path(suspect), method, key, model)
    if key is not None and not of_lock(method):
        given = {"model": model, "arch": arch, "convention": convention}
        return trace_key_images(options, Path(suspect), method, key, (registry, tuple(user or ())), passphrase, **given)
    if key is not None:
        return trace_images(options, Path(suspect), method, key, locked, (registry, tuple(user or ())), passphrase)
    if of_lock(method):
        return trace_key(options, Path(suspect), method, registry, master, passphrase)
    chosen = suspect_of(suspect, None)
    with working(options):
        from modelward.audit.tracing import trace as asked
        from modelward.keys.registry import Registry

        book: Registry = Registry(registry)
        found = asked(chosen, book, method, arch=arch, passphrase=passphrase, convention=convention)
    _tell_trace(found, told(chosen), as_json=options.as_json)
    return NAMED if found.named else UNKNOWN


def _tell_trace(found: Tracing, suspect: str, *, as_json: bool) -> None:
    """Print whose copy a suspect is."""
    if as_json:
        from dataclasses import asdict

        emit("trace", {"suspect": suspect, **asdict(found), "exit_code": NAMED if found.named else UNKNOWN})
        return
    if found.named:
        say(f"{suspect} was made from the copy of {' and '.join(found.named)}.", style="bold red")
    else:
        say(f"UNKNOWN: nobody can be named for {suspect}.", style="bold yellow")
    for text in found.notes:
        say(text)
    rows = [
        (row.user, row.state, f"{row.statistic:.4f}", "none" if row.threshold is None else f"{row.threshold:.4f}",
         "none" if row.corrected is None else f"{row.corrected:.2g}")
        for row in found.users[:SHOWN]
    ]  # fmt: skip
    table(("user", "grant", "statistic", "threshold", f"p over {len(found.users)} users"), rows, right=("statistic", "threshold"))
    if found.margin is not None:
        facts([("margin to the second", f"{found.margin:.4f}")])
