"""``modelward issue``, ``revoke`` and ``pardon``: keys for many users, taken back, and attempts forgiven."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelward.cli.audit_commands import Arch, Data, Jobs, Model, Size, TrainedOn, ask
from modelward.cli.key_commands import PassphraseFd, PassphraseFile, passphrase_of
from modelward.cli.key_images import named_images, tell_secrets
from modelward.cli.lock_users import UNKNOWN, lock_maker, of_lock, slotted, without_slot
from modelward.cli.options import FLAG, Options, working
from modelward.cli.output import emit, note, say, table, warn
from modelward.cli.paths import require_free
from modelward.cli.protect_command import Nulls, Settings, Variant, chosen_settings
from modelward.core.errors import UsageError

if TYPE_CHECKING:
    from modelward.audit import Question
    from modelward.audit.issuing import Issued, Maker

SHOWN = 10
MethodName = Annotated[str, typer.Argument(metavar="METHOD", help="Ownership method that marks, as in deepmarks.", show_default=False)]
RegistryFile = Annotated[Path, typer.Option("--registry", metavar="FILE", help="Registry of users.")]
MasterFile = Annotated[Path, typer.Option("--master", metavar="FILE", help="Master secret: modelward key new-master.")]
User = Annotated[str | None, typer.Option("--user", metavar="NAME", help="Who gets a key.")]
Expires = Annotated[str | None, typer.Option("--expires", metavar="DATE", help="Last day on which the grant holds.")]
Roster = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="Table of many users, with the header user,expires.")]
Keys = Annotated[Path | None, typer.Option("--keys", metavar="DIR", help="Where keys and copies go; by default keys/ beside the registry.")]
OwnerKey = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="KEY",
        help="The owner's key. For a lock: as lock wrote it; --model is the locked build. For additional-class: users get key images; "
        "--model is the marked model.",
    ),
]
Recipient = Annotated[
    list[str] | None,
    typer.Option("--recipient", metavar="AGE1...", help="Encrypt the key for the holder of this age public key; may be repeated."),
]
SlotModel = Annotated[
    Path | None,
    typer.Option(
        "--out-model", metavar="FILE", help="For a lock that keeps slots: the build with one for each user, which revoke takes away."
    ),
]
Copies = Annotated[
    bool, typer.Option("--copies", metavar=FLAG, help="Mark a copy of the model for each user; implied by --model and --nulls.")
]


def issue(
    options: Options,
    method: MethodName,
    *,
    user: User = None,
    expires: Expires = None,
    csv: Roster = None,
    master: MasterFile = Path("master.json"),
    registry: RegistryFile = Path("registry.sqlite"),
    keys: Keys = None,
    key: OwnerKey = None,
    recipient: Recipient = None,
    copies: Copies = False,
    model: Model = None,
    out_model: SlotModel = None,
    arch: Arch = None,
    data: Data = "fashion-mini",
    trained_on: TrainedOn = None,
    size: Size = None,
    nulls: Nulls = None,
    settings: Settings = None,
    variant: Variant = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    jobs: Jobs = None,
    convention: Any = None,
) -> int:
    """Issue keys to users: each gets a secret of his own, and with --copies or --model a copy of the model that carries it.

    Of a lock every user gets a key of his own for the one locked build: say --key and --model. With --out-model the key opens through a slot
    in the build that is written there, and through nothing else: `revoke --model` takes the slot away; users who
    come later, or were left over by an interruption, get theirs in that build: pass it as --model. The secrets come from the master secret by
    the user's name; the registry keeps digests, numbers and dates. Users are issued all or none; an interrupted run goes on where it stopped.
    """
    if (user is None) == (csv is None) or (csv is not None and expires is not None):
        raise UsageError("say who gets a key: --user NAME with or without --expires DATE, or --csv FILE")
    if recipient and user is None:
        raise UsageError("--recipient encrypts the key of one user; say --user NAME with it")
    chosen = chosen_settings(settings or [], variant)
    passphrase = passphrase_of(passphrase_file, passphrase_fd)
    with working(options):
        from modelward.audit.issuing import grant_users, issue_keys
        from modelward.keys.grants import require_ahead, require_day
        from modelward.keys.master import read_master
        from modelward.keys.registry import Registry
        from modelward.keys.roster import read_roster

        users = [(user, require_ahead(require_day(expires)))] if user is not None else read_roster(csv or Path())
        root = read_master(master, passphrase=passphrase)
        make = None
        if out_model is not None:
            require_free(out_model, "--out-model", "a model")
        if of_lock(method):
            make = lock_maker(method, key, model, arch, passphrase, slots=out_model is not None)
        elif key is not None or out_model is not None:
            make = named_images(method, key, model, out_model, registry, dict(users), arch, passphrase)
        elif copies or model is not None or nulls is not None:
            question = ask(options, model=model, arch=arch, data=data, trained_on=trained_on, size=size, convention=convention)
            make = _maker(method, question, nulls, jobs)
        book = Registry(registry, create=True)
        grants = grant_users(book, root, method, chosen, users)
        if out_model is not None:
            make = slotted(out_model, key, model, root, grants, arch, passphrase)
        folder = keys or registry.parent / "keys"
        done = []
        made = issue_keys(
            book, root, method, chosen, grants, folder=folder, make=make, passphrase=passphrase, recipients=tuple(recipient or ())
        )
        for issued in made:
            done.append(issued)
            note(f"{issued.grant.user}: {issued.key}", quiet=options.quiet)
    if book.made:
        warn(f"the registry {registry} is new and has no copy: modelward key backup --out DIR, before you need one")
    tell_secrets(method, make, quiet=options.quiet)
    _tell_issued(done, as_json=options.as_json)
    return 0


def _maker(method: str, question: Question, nulls: Path | None, jobs: int | None) -> Maker:
    """Return what makes a user's copy of the question's model."""
    from modelward.audit import Protected, enrol
    from modelward.evaluation.store import Store

    def make(settings: dict[str, Any], secret: bytes, user: str) -> Protected:
        del user  # the settings name him where the method knows users
        return enrol(method, settings, question, nulls=nulls, store=Store(), jobs=jobs, secret=secret)

    return make


def _tell_issued(done: list[Issued], *, as_json: bool) -> None:
    """Print who was issued what."""
    if as_json:
        users = [{"user": each.grant.user, "number": each.grant.number, "generation": each.grant.generation, "expires": each.grant.expires,
                  "key": each.key, "model": each.model} for each in done]  # fmt: skip
        emit("issued", {"users": users})
        return
    rows = [(each.grant.user, each.grant.number, each.grant.expires or "never", each.key, each.model or "none") for each in done[:SHOWN]]
    table(("user", "number", "expires", "key", "copy"), rows, right=("number",))
    say(f"{len(done)} issued" + (f", the first {SHOWN} are shown" if len(done) > SHOWN else ""))


def revoke(
    options: Options,
    user: Annotated[str, typer.Argument(metavar="USER", help="Who may no longer use a key.", show_default=False)],
    *,
    registry: RegistryFile = Path("registry.sqlite"),
    method: Annotated[str | None, typer.Option("--method", metavar="METHOD", help="Only the grants for this method.")] = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="FILE", help="A build with slots, as issue --out-model wrote it.")
    ] = None,
    out_model: Annotated[
        Path | None, typer.Option("--out-model", metavar="FILE", help="Where the build without the user's slot goes; never overwritten.")
    ] = None,
    arch: Arch = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> int:
    """Revoke a user's grants. What the user holds stays out there; the registry says from now on that it is void.

    With --model and --out-model the user's slot is taken out of a locked build too: the user's key opens the new file no more, and still
    opens every copy of the old one.

    Exit code 3: they were revoked already.
    """
    from modelward.keys.registry import Registry

    book = Registry(registry)
    if (model is None) != (out_model is None):
        raise UsageError("a slot is taken out of --model FILE, and the build without it goes to --out-model FILE; say both")
    if model is not None and out_model is not None:
        passphrase = passphrase_of(passphrase_file, passphrase_fd)
        with working(options):
            without_slot(model, out_model, book, user, method, arch, passphrase)
    count = book.revoke(user, purpose=method)
    if options.as_json:
        emit("revoked", {"user": user, "grants": count, "model": out_model})
        return 0 if count else UNKNOWN
    say(f"{count} grant{'s' * (count != 1)} of {user} revoked" if count else f"the grants of {user} were revoked already", wrap=False)
    if out_model is not None:
        say(f"without the slot of {user}: {out_model}", wrap=False)
    return 0 if count else UNKNOWN


def pardon(
    options: Options,
    user: Annotated[str, typer.Argument(metavar="USER", help="Whose failed attempts are forgotten.", show_default=False)],
    *,
    registry: RegistryFile = Path("registry.sqlite"),
    method: Annotated[str, typer.Option("--method", metavar="METHOD", help="Lock whose gate counts attempts.")] = "activeguard",
) -> int:
    """Forget a user's failed attempts at a gate, which locks out whoever failed too often.

    Whoever sends false credentials in a user's name locks that user out: see to it who did before you pardon.
    """
    from modelward.keys.registry import Registry

    book = Registry(registry)
    book.require(user, method)
    book.pardon(user, method)
    if options.as_json:
        emit("pardoned", {"user": user, "method": method})
    else:
        say(f"{user} may try again", wrap=False)
    return 0
