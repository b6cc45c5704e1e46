"""``modelward lock`` and ``unlock``: a model that is worth nothing without its key."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from modelward.cli.audit_commands import Arch, Data, Model, Size, TrainedOn, ask
from modelward.cli.key_commands import PassphraseFd, PassphraseFile, passphrase_of
from modelward.cli.options import Options, working
from modelward.cli.output import emit, facts, say
from modelward.cli.paths import require_free
from modelward.cli.protect_command import OutKey, Settings, Variant, chosen_settings

LockName = Annotated[str, typer.Argument(metavar="METHOD", help="Lock, as in advparams.", show_default=False)]
OutModel = Annotated[Path, typer.Option("--out-model", metavar="FILE", help="Where the model goes (safetensors); never overwritten.")]


def lock(
    options: Options,
    method: LockName,
    *,
    out_key: OutKey,
    out_model: OutModel,
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
    """Lock a model: hand out what --out-model holds, keep the key.

    Whoever lacks the key has a model that errs; `modelward unlock` gives every byte back.
    """
    chosen = chosen_settings(settings or [], variant)
    require_free(out_key, "--out-key", "a key")
    require_free(out_model, "--out-model", "a model")
    passphrase = passphrase_of(passphrase_file, passphrase_fd)
    with working(options):
        from modelward.audit.locking import lock as work
        from modelward.evaluation.store import Store
        from modelward.keys import write_key
        from modelward.models import save_model

        question = ask(options, model=model, arch=arch, data=data, trained_on=trained_on, size=size, convention=convention)
        made = work(method, chosen, question, store=Store())
        write_key(out_key, made.key, passphrase=passphrase)  # first the key: a locked model without one is lost
        save_model(out_model, made.model)
    entries = made.key.facts.get("entries")
    found = {"key": out_key, "model": out_model, "method": made.key.method, "variant": made.key.variant, "entries": entries,
             "accuracy_before": made.before, "accuracy_after": made.after, "n": made.images}  # fmt: skip
    if options.as_json:
        emit("lock", found)
        return 0
    lines = [
        ("locked model", str(out_model)),
        ("key", str(out_key)),
        ("accuracy", f"{made.before:.1%} before, {made.after:.1%} locked, {made.images} images"),
    ]
    facts([*lines, *([("changed entries", f"{entries:,}")] if isinstance(entries, int) else [])])
    say(
        f"Open it with: modelward unlock --model {shlex.quote(str(out_model))} --key {shlex.quote(str(out_key))} --out-model FILE",
        wrap=False,
    )
    return 0


def unlock(
    options: Options,
    *,
    model: Annotated[Path, typer.Option("--model", metavar="FILE", help="Locked model (safetensors).")],
    key: Annotated[Path, typer.Option("--key", metavar="KEY", help="Key file that lock wrote.")],
    out_model: OutModel,
    arch: Arch = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> int:
    """Open a locked model with its key; nothing is written when the key does not fit."""
    require_free(out_model, "--out-model", "a model")
    with working(options):
        from modelward.audit.locking import unlock as work
        from modelward.keys import read_key
        from modelward.models import save_model

        opened = work(model, read_key(key, passphrase=passphrase_of(passphrase_file, passphrase_fd)), arch)
        save_model(out_model, opened)
    if options.as_json:
        emit("unlock", {"model": out_model})
    else:
        say(f"opened, byte for byte: {out_model}", wrap=False)
    return 0
