"""``modelward protect``, ``verify``, ``probes`` and ``key show``: making a key and asking it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from modelward.cli.audit_commands import Arch, Data, DryRun, Jobs, Model, Size, TrainedOn, ask, plan_words, show_plan
from modelward.cli.options import Options, parse_settings, working
from modelward.cli.output import emit, facts, note, say, warn
from modelward.cli.verdict_screen import EXIT_CODES, show_verdict, verdict_facts
from modelward.core.errors import UsageError

if TYPE_CHECKING:
    from modelward.core.key import Key
    from modelward.io.age import Secret

KeyFile = Annotated[Path, typer.Argument(metavar="KEY", help="Key file that protect wrote.")]
PassphraseFile = Annotated[Path | None, typer.Option("--passphrase-file", metavar="FILE", help="File that holds the key's passphrase.")]
PassphraseFd = Annotated[
    int | None, typer.Option("--passphrase-fd", min=0, metavar="N", help="Open descriptor to read the passphrase from.")
]


def _secret(file: Path | None, fd: int | None) -> Secret | None:
    """Return the passphrase from a file, a descriptor or $MODELWARD_PASSPHRASE; ``None`` when there is none."""
    from modelward.io.age import read_secret

    return read_secret(file=file, fd=fd)


def _read(path: Path, file: Path | None, fd: int | None) -> Key:
    """Return the key in ``path``."""
    from modelward.keys import read_key

    return read_key(path, passphrase=_secret(file, fd))


def protect(
    options: Options,
    method: Annotated[str, typer.Argument(metavar="METHOD", help="Ownership method, as in sac-jc.", show_default=False)],
    *,
    out_key: Annotated[Path, typer.Option("--out-key", metavar="KEY", help="Where the key goes; an existing file is never overwritten.")],
    model: Model = None,
    arch: Arch = None,
    data: Data = "fashion-mini",
    trained_on: TrainedOn = None,
    size: Size = None,
    nulls: Annotated[
        Path | None, typer.Option("--nulls", metavar="DIR", help="Folder of independent models (safetensors) to calibrate with.")
    ] = None,
    calibrate: Annotated[
        Literal["smoke", "quick", "full"] | None, typer.Option("--calibrate", help="Train independent models to calibrate with.")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Hyper-parameter; may be repeated.")] = None,
    variant: Annotated[
        Literal["paper", "hardened"] | None, typer.Option("--variant", help="The paper's recipe or the repaired one.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    jobs: Jobs = None,
    dry_run: DryRun = False,
) -> int:
    """Enrol a model with an ownership method and write its key.

    The key proves later whether a suspect was made from this model. Keep it secret.

    With --nulls or --calibrate it is calibrated: only then can a verdict be more than undecided.
    """
    chosen = _settings(settings or [], variant)
    if nulls is not None and calibrate is not None:
        raise UsageError("--nulls brings independent models and --calibrate trains them; pass one of the two")
    _require_free(out_key)
    passphrase = _secret(passphrase_file, passphrase_fd)
    with working(options):
        from modelward.audit import Estimate, dry_run_enrol, enrol
        from modelward.core.catalogue import find
        from modelward.evaluation.store import Store
        from modelward.keys import write_key

        find(method).configured(chosen)
        question, store = ask(options, model=model, arch=arch, data=data, trained_on=trained_on, size=size), Store()
        estimate = dry_run_enrol(question, calibrate=calibrate, store=store, jobs=jobs) if calibrate else Estimate(0, 0, 0.0, 0, [])
        if not dry_run:
            note(plan_words(estimate), quiet=options.quiet)
            key = enrol(method, chosen, question, calibrate=calibrate, nulls=nulls, store=store, jobs=jobs)
            write_key(out_key, key, passphrase=passphrase)
    if dry_run:
        show_plan(estimate, as_json=options.as_json)
        return 0
    if not key.calibrated:
        warn("the key is not calibrated: every verdict will be undecided; enrol with --calibrate quick or --nulls DIR")
    if options.as_json:
        emit("protect", {"key": out_key, "encrypted": passphrase is not None} | _header(key))
        return 0
    say(f"key: {out_key}" + (" (encrypted)" if passphrase else ""), wrap=False)
    facts(_header_lines(key))
    say(f"Keep it secret. Ask it with: modelward verify SUSPECT --key {shlex.quote(str(out_key))}", wrap=False)
    return 0


def _settings(pairs: list[str], variant: str | None) -> dict[str, Any]:
    """Return the hyper-parameters of --set and --variant."""
    chosen = parse_settings(pairs)
    if variant is None:
        return chosen
    if chosen.get("variant", variant) != variant:
        raise UsageError("--variant and --set variant=... differ; pass one of the two")
    return chosen | {"variant": variant}


def _require_free(path: Path) -> None:
    """Raise `UsageError` before hours of work when the key could not be written after them."""
    if path.exists():
        message = f"{path} exists, and a key is never overwritten; pass another --out-key or move it away"
        raise UsageError(message)
    if not path.absolute().parent.is_dir():
        message = f"the folder {path.parent} of --out-key does not exist; make it first"
        raise UsageError(message)


def verify(
    options: Options,
    suspect: Annotated[
        Path, typer.Argument(metavar="SUSPECT", help="Model (safetensors), or answers.csv for the probes.", show_default=False)
    ],
    *,
    key: Annotated[Path, typer.Option("--key", metavar="KEY", help="Key file that protect wrote.")],
    arch: Arch = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
) -> int:
    """Say whether a suspect was made from the protected model.

    Exit code 1: stolen, 0: not stolen, 3: undecided.
    """
    from modelward.core.nearest import nearest

    if not suspect.exists():
        siblings = [child.name for child in suspect.parent.iterdir()] if suspect.parent.is_dir() else []
        message = f"there is no file {suspect}{nearest(suspect.name, siblings)}"
        raise UsageError(message)
    with working(options):
        from modelward.audit import judge

        verdict = judge(suspect, _read(key, passphrase_file, passphrase_fd), arch)
    if options.as_json:
        emit("verdict", verdict_facts(verdict) | {"suspect": suspect, "key": key})
    else:
        show_verdict(verdict, suspect=suspect.name, key=key.name, quiet=options.quiet)
    return EXIT_CODES[verdict.decision.value]


def probes(options: Options, key: KeyFile, *, passphrase_file: PassphraseFile = None, passphrase_fd: PassphraseFd = None) -> int:
    """Write a key's query images into --out, for a suspect that only answers queries.

    Writes 00000.png ... and probes.json. Whoever sees the images knows the key's questions.
    """
    if options.out is None:
        raise UsageError("say where the images go: --out DIR")
    with working(options):
        from modelward.audit import write_probes

        count = write_probes(_read(key, passphrase_file, passphrase_fd), options.out)
    if options.as_json:
        emit("probes", {"folder": options.out, "images": count})
        return 0
    say(f"{count} images: {options.out}", wrap=False)
    say("Ask the suspect about each and write answers.csv with the header file,label or file,p0,p1,...; then:")
    say(f"modelward verify answers.csv --key {shlex.quote(str(key))}", wrap=False)
    return 0


def key_show(options: Options, key: KeyFile, *, passphrase_file: PassphraseFile = None, passphrase_fd: PassphraseFd = None) -> int:
    """Show what a key says of itself, without what is secret in it."""
    found = _read(key, passphrase_file, passphrase_fd)
    if options.as_json:
        emit("key-facts", _header(found) | {"key": key})
    else:
        say(key.name, style="bold", wrap=False)
        facts(_header_lines(found))
    return 0


def _header(key: Key) -> dict[str, Any]:
    """Return what may be told of a key: its facts, and of its arrays only name, type and shape."""
    arrays = {name: {"type": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)} for name, tensor in key.tensors.items()}
    head = {"method": key.method, "variant": key.variant, "calibrated": key.calibrated, "model_digest": key.model_digest}
    return head | {"facts": dict(key.facts), "arrays": arrays}


def _header_lines(key: Key) -> list[tuple[str, str]]:
    """Return a key's header as lines: numbers in short, arrays by shape."""
    lines = [("method", f"{key.method}, variant {key.variant}"), ("model", key.model_digest)]
    lines.append(("calibrated", "yes" if key.calibrated else "no: every verdict will be undecided"))
    for name, value in key.facts.items():
        if name != "calibrated":
            lines += _flat(name, value)
    for name, tensor in key.tensors.items():
        shape = "x".join(map(str, tensor.shape)) or "one value"
        lines.append((f"array {name}", f"{shape} {str(tensor.dtype).removeprefix('torch.')}, not shown"))
    return lines


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    """Return a fact as lines; nested facts get dotted names, long lists of numbers are summed up."""
    if isinstance(value, dict):
        return [line for inner, item in value.items() for line in _flat(f"{name}.{inner}", item)]
    if isinstance(value, list | tuple) and len(value) > 3 and all(isinstance(item, int | float) for item in value):
        return [(name, f"{len(value)} values, {min(value):.4g} to {max(value):.4g}")]
    if isinstance(value, list | tuple):
        return [(name, ", ".join(map(str, value)) or "none")]
    return [(name, "none" if value is None else str(value))]
