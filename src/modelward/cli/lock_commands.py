"""``modelward lock`` and ``unlock``: a model, or an image set, that is worth nothing without its key."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from modelward.cli.audit_commands import Arch, Data, Model, Size, TrainedOn, ask
from modelward.cli.key_commands import PassphraseFd, PassphraseFile, passphrase_of
from modelward.cli.options import Options, working
from modelward.cli.output import emit, facts, say, warn
from modelward.cli.paths import require_free
from modelward.cli.protect_command import OutKey, Settings, Variant, chosen_settings
from modelward.core.errors import ModelwardError, UsageError

if TYPE_CHECKING:
    from modelward.audit.locking import Locked
    from modelward.io.age import Secret

LockName = Annotated[str, typer.Argument(metavar="METHOD", help="Lock, as in advparams.", show_default=False)]
OutModel = Annotated[
    Path | None,
    typer.Option("--out-model", metavar="FILE", help="Where the model goes (safetensors); never overwritten.", show_default=False),
]
OutData = Annotated[
    Path | None, typer.Option("--out-data", metavar="DIR", help="Where an image set goes; never overwritten.", show_default=False)
]


def lock(
    options: Options,
    method: LockName,
    *,
    out_key: OutKey,
    out_model: OutModel = None,
    out_data: OutData = None,
    model: Model = None,
    arch: Arch = None,
    data: Data = "fashion-mini",
    trained_on: TrainedOn = None,
    size: Size = None,
    settings: Settings = None,
    variant: Variant = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    convention: Any = None,
) -> int:
    """Lock a model or an image set: hand out what --out-model or --out-data holds, keep the key.

    Whoever lacks the key has a model that errs, or images that teach the wrong thing; `modelward unlock` gives back what was there.

    A lock of image sets takes the images of --data, and as its surrogate the model of --model, or else one that it trains on them.
    """
    chosen = chosen_settings(settings or [], variant)
    passphrase = passphrase_of(passphrase_file, passphrase_fd)
    if _locks_data(method):
        target = _target(method, out_data, "--out-data DIR", out_model, "--out-model")
        if size is not None or trained_on is not None or convention is not None:
            raise UsageError(
                "an image set is locked at its own size; --size, --trained-on and the model's conventions are for locks of models"
            )
        return _lock_data(options, method, chosen, data, target, out_key, model, arch, passphrase)
    out_model = _target(method, out_model, "--out-model FILE", out_data, "--out-data")
    require_free(out_key, "--out-key", "a key")
    require_free(out_model, "--out-model", "a model")
    with working(options):
        from modelward.audit.locking import lock as work
        from modelward.evaluation.store import Store
        from modelward.keys import write_key
        from modelward.models import save_model

        question = ask(options, model=model, arch=arch, data=data, trained_on=trained_on, size=size, convention=convention)
        made = work(method, chosen, question, store=Store())
        write_key(out_key, made.key, passphrase=passphrase)  # first the key: a locked model without one is lost
        try:
            save_model(out_model, made.model)
        except ModelwardError:
            out_key.unlink(missing_ok=True)  # it opens a model that is nowhere, and would stand in the way of the next attempt
            raise
    _tell_locked(options, made, out_key, out_model)
    return 0


def _tell_locked(options: Options, made: Locked, out_key: Path, out_model: Path) -> None:
    """Say what locking did, and warn of a lock that locks little."""
    entries, served = made.key.facts.get("entries"), made.key.facts.get("settings", {}).get("mode") == "server"
    if made.idle:
        warn(f"before it was locked this model answered {made.before:.1%} rightly, {made.chance:.1%} is chance: it may be locked already")
    elif made.weak and not served:
        most = max(made.after, made.stripped or 0.0)
        warn(
            f"without the key this model still answers {most:.1%} rightly, {made.chance:.1%} is chance: it locks little; see the method's settings"
        )
    if options.as_json:
        emit("lock", {"key": out_key, "model": out_model, "method": made.key.method, "variant": made.key.variant, "entries": entries,
                      "accuracy_before": made.before, "accuracy_after": made.after, "accuracy_stripped": made.stripped, "chance": made.chance,
                      "n": made.images})  # fmt: skip
        return
    cut = "" if made.stripped is None else f", {made.stripped:.1%} with the lock cut out"
    told = f"{made.before:.1%} before, {made.after:.1%} locked{cut}, {made.images} images"
    lines = [("locked model", str(out_model)), ("key", str(out_key)), ("accuracy", told)]
    facts([*lines, *([("changed entries", f"{entries:,}")] if isinstance(entries, int) else [])])
    say(
        f"Open it with: modelward unlock --model {shlex.quote(str(out_model))} --key {shlex.quote(str(out_key))} --out-model FILE",
        wrap=False,
    )


def _locks_data(method: str) -> bool:
    """Return whether a method locks image sets."""
    from modelward.core.catalogue import find
    from modelward.core.image_locks import DataLock

    return issubclass(find(method), DataLock)


def _target(method: str, wanted: Path | None, option: str, other: Path | None, unwanted: str) -> Path:
    """Return where the result goes; raises `UsageError` where that is not said, or said of the wrong thing."""
    if wanted is None or other is not None:
        message = f"{method} needs {option}" + (f", not {unwanted}" if other is not None else "")
        raise UsageError(message)
    return wanted


def _lock_data(
    options: Options, method: str, chosen: dict[str, Any], data: str, out: Path, out_key: Path, model: Path | None, arch: str | None,
    passphrase: Secret | None,
) -> int:  # fmt: skip
    """Lock an image set, and say what became of it."""
    require_free(out, "--out-data", "an image set")
    with working(options):
        from modelward.audit.data_locking import lock_data as work

        made = work(method, chosen, data, out, out_key, model=model, arch=arch, seed=options.seed, passphrase=passphrase)
    if options.as_json:
        emit("lock", {"key": out_key, "data": out, "method": method, "variant": made.key.variant, "n": made.images, "counts": made.counts,
                      "psnr": made.psnr})  # fmt: skip
        return 0
    lie = ", ".join(f"{count} in {words}" for words, count in made.counts.items())
    facts([("locked images", f"{out} ({made.images:,}: {lie})"), ("key", str(out_key)), ("PSNR", f"{made.psnr:.1f} dB")])
    if made.recoded:
        warn(
            f"{made.recoded} palette or one-bit images will come back in the same colours as RGB or grey; `--set backend=sidecar` keeps files whole"
        )
    say("Publish the files as they are: an image that is resized or encoded anew cannot be unlocked.")
    say(f"Open it with: modelward unlock --data {shlex.quote(str(out))} --key {shlex.quote(str(out_key))} --out-data DIR", wrap=False)
    return 0


def unlock(
    options: Options,
    *,
    key: Annotated[Path, typer.Option("--key", metavar="KEY", help="Key file that lock wrote.")],
    model: Annotated[Path | None, typer.Option("--model", metavar="FILE", help="Locked model (safetensors).", show_default=False)] = None,
    data: Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Locked image set.", show_default=False)] = None,
    out_model: OutModel = None,
    out_data: OutData = None,
    customer: Annotated[
        str, typer.Option("--customer", metavar="NAME", help="Mark the copy of an image set as this customer's; its lowest bits change.")
    ] = "",
    registry: Annotated[
        Path | None, typer.Option("--registry", metavar="FILE", help="Open for users only whose grant in this registry is active.")
    ] = None,
    arch: Arch = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> int:
    """Open a locked model or image set with its key; nothing is written when the key does not fit."""
    if (model is None) == (data is None):
        raise UsageError("say what to unlock: --model FILE or --data DIR")
    if data is not None:
        if registry is not None:
            raise UsageError("--registry knows the users of a locked model; an image set is opened by its owner, for a --customer")
        target = _target("unlock --data", out_data, "--out-data DIR", out_model, "--out-model")
        return _unlock_data(options, data, key, target, customer, passphrase_of(passphrase_file, passphrase_fd))
    if customer:
        raise UsageError("--customer marks a copy of an image set; the keys of a model's users are made by modelward issue")
    target = _target("unlock --model", out_model, "--out-model FILE", out_data, "--out-data")
    require_free(target, "--out-model", "a model")
    with working(options):
        from modelward.audit.lock_users import require_standing
        from modelward.audit.locking import unlock as work
        from modelward.keys import read_key
        from modelward.models import save_model

        found = read_key(key, passphrase=passphrase_of(passphrase_file, passphrase_fd))
        require_standing(found, registry)
        opened = work(cast("Path", model), found, arch)
        save_model(target, opened.model)
    if options.as_json:
        emit("unlock", {"model": target, "exact": opened.exact})
    else:
        say(f"opened, byte for byte: {target}" if opened.exact else f"opened, to be used as it is: {target}", wrap=False)
    return 0


def _unlock_data(options: Options, data: Path, key: Path, out: Path, customer: str, passphrase: Secret | None) -> int:
    """Open an image set."""
    require_free(out, "--out-data", "an image set")
    with working(options):
        from modelward.audit.data_locking import unlock_data as work
        from modelward.keys import read_key

        found = work(data, read_key(key, passphrase=passphrase), out, customer=customer)
    if options.as_json:
        emit("unlock", {"data": out, "customer": customer or None, "n": found["images"], "whole_files": found["whole files"]})
        return 0
    exact = f"the copy of {customer}, one grey level off in places" if customer else "every pixel as it was"
    files = f", {found['whole files']} of them as whole files" if found["whole files"] else ""
    again = f"; {found['recoded']} palette or one-bit images are RGB or grey now, in the same colours" if found["recoded"] else ""
    say(f"opened: {out}, {found['images']:,} images{files}; {exact}{again}", wrap=False)
    return 0
