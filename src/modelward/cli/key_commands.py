"""``modelward protect``, ``verify``, ``probes`` and ``key show``: making a key and asking it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from modelward.cli.audit_commands import Arch, Data, DryRun, Jobs, Model, Size, TrainedOn, ask, plan_words, show_plan
from modelward.cli.key_facts import header, header_lines
from modelward.cli.options import Options, working
from modelward.cli.output import emit, facts, note, say, warn
from modelward.cli.service_options import (
    Batch,
    Budget,
    Function,
    HeaderFile,
    Rate,
    Resume,
    Retries,
    Send,
    Timeout,
    asking_of,
    suspect_of,
    told,
)
from modelward.cli.values import parse_settings
from modelward.cli.verdict_screen import EXIT_CODES, show_verdict, verdict_facts
from modelward.core.errors import UsageError

if TYPE_CHECKING:
    from modelward.audit import Estimate, Question
    from modelward.core.key import Key
    from modelward.io.age import Secret

KeyFile = Annotated[Path, typer.Argument(metavar="KEY", help="Key file that protect wrote.")]
PassphraseFile = Annotated[Path | None, typer.Option("--passphrase-file", metavar="FILE", help="File that holds the key's passphrase.")]
PassphraseFd = Annotated[
    int | None, typer.Option("--passphrase-fd", min=0, metavar="N", help="Open descriptor to read the passphrase from.")
]

MethodName = Annotated[str, typer.Argument(metavar="METHOD", help="Ownership method, as in sac-jc.", show_default=False)]
OutKey = Annotated[Path, typer.Option("--out-key", metavar="KEY", help="Where the key goes; an existing file is never overwritten.")]
Nulls = Annotated[Path | None, typer.Option("--nulls", metavar="DIR", help="Folder of independent models (safetensors) to calibrate with.")]
Calibrate = Annotated[
    Literal["smoke", "quick", "full"] | None, typer.Option("--calibrate", help="Train independent models to calibrate with.")
]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Hyper-parameter; may be repeated.")]
Variant = Annotated[Literal["paper", "hardened"] | None, typer.Option("--variant", help="The paper's recipe or the repaired one.")]


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
    method: MethodName,
    *,
    out_key: OutKey,
    model: Model = None,
    arch: Arch = None,
    data: Data = "fashion-mini",
    trained_on: TrainedOn = None,
    size: Size = None,
    nulls: Nulls = None,
    calibrate: Calibrate = None,
    settings: Settings = None,
    variant: Variant = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    jobs: Jobs = None,
    dry_run: DryRun = False,
    convention: Any = None,
) -> int:
    """Enrol a model with an ownership method and write its key.

    The key proves later whether a suspect was made from this model. Keep it secret.

    With --nulls or --calibrate it is calibrated: only then can a verdict be more than undecided.
    """
    chosen = _settings(settings or [], variant)
    _require_possible(out_key, nulls, calibrate)
    passphrase = _secret(passphrase_file, passphrase_fd)
    with working(options):
        question = ask(options, model=model, arch=arch, data=data, trained_on=trained_on, size=size, convention=convention)
        cost = _cost(method, chosen, question, calibrate, jobs)
        note(plan_words(cost), quiet=options.quiet or dry_run)
        key = None if dry_run else _enrol(method, chosen, question, calibrate=calibrate, nulls=nulls, jobs=jobs)
    if key is None:
        show_plan(cost, as_json=options.as_json)
    else:
        _write(out_key, key, passphrase, as_json=options.as_json)
    return 0


def _cost(method: str, settings: dict[str, Any], question: Question, calibrate: str | None, jobs: int | None) -> Estimate:
    """Return what enrolling costs; a wrong method or setting is refused before data are read."""
    from modelward.audit import Estimate, dry_run_enrol
    from modelward.core.catalogue import find
    from modelward.evaluation.store import Store

    find(method).configured(settings)
    return dry_run_enrol(question, calibrate=calibrate, store=Store(), jobs=jobs) if calibrate else Estimate(0, 0, 0.0, 0, [])


def _enrol(
    method: str, settings: dict[str, Any], question: Question, *, calibrate: str | None, nulls: Path | None, jobs: int | None
) -> Key:
    """Return the key of the question's model."""
    from modelward.audit import enrol
    from modelward.evaluation.store import Store

    return enrol(method, settings, question, calibrate=calibrate, nulls=nulls, store=Store(), jobs=jobs)


def _write(path: Path, key: Key, passphrase: Secret | None, *, as_json: bool) -> None:
    """Write the key file, and print what was enrolled and what to do with it."""
    from modelward.keys import write_key

    write_key(path, key, passphrase=passphrase)
    if not key.calibrated:
        warn("the key is not calibrated: every verdict will be undecided; enrol with --calibrate quick or --nulls DIR")
    for failing in key.facts.get("intake", ()):
        warn(f"the model may not be handed over in working order: {failing}")
    if as_json:
        emit("protect", {"key": path, "encrypted": passphrase is not None} | header(key))
        return
    say(f"key: {path}" + (" (encrypted)" if passphrase is not None else ""), wrap=False)
    facts(header_lines(key))
    say(f"Keep it secret. Ask it with: modelward verify SUSPECT --key {shlex.quote(str(path))}", wrap=False)


def _require_possible(path: Path, nulls: Path | None, calibrate: str | None) -> None:
    """Raise `UsageError` before hours of work when the key could not be written after them, or when the options contradict each other."""
    if nulls is not None and calibrate is not None:
        raise UsageError("--nulls brings independent models and --calibrate trains them; pass one of the two")
    if path.exists():
        message = f"{path} exists, and a key is never overwritten; pass another --out-key or move it away"
        raise UsageError(message)
    if not path.absolute().parent.is_dir():
        message = f"the folder {path.parent} of --out-key does not exist; make it first"
        raise UsageError(message)


def _settings(pairs: list[str], variant: str | None) -> dict[str, Any]:
    """Return the hyper-parameters of --set and --variant."""
    chosen = parse_settings(pairs)
    if variant is None:
        return chosen
    if chosen.get("variant", variant) != variant:
        raise UsageError("--variant and --set variant=... differ; pass one of the two")
    return chosen | {"variant": variant}


def verify(
    options: Options,
    suspect: Annotated[
        str | None,
        typer.Argument(
            metavar="SUSPECT",
            help="Model (safetensors or ONNX), address of a service, or answers.csv for the probes.",
            show_default=False,
        ),
    ] = None,
    *,
    key: Annotated[Path, typer.Option("--key", metavar="KEY", help="Key file that protect wrote.")],
    arch: Arch = None,
    function: Function = None,
    send: Send = None,
    batch: Batch = None,
    rate: Rate = None,
    budget: Budget = None,
    retries: Retries = None,
    timeout: Timeout = None,
    header_file: HeaderFile = None,
    resume: Resume = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    convention: Any = None,
) -> int:
    """Say whether a suspect was made from the protected model.

    Exit code 1: stolen, 0: not stolen, 3: undecided.
    """
    chosen = suspect_of(suspect, function)
    asking = asking_of(chosen, header_file, rate, send=send, batch=batch, budget=budget, retries=retries, timeout=timeout, resume=resume)
    with working(options):
        from modelward.audit import judge

        verdict = judge(chosen, _read(key, passphrase_file, passphrase_fd), arch, convention=convention, asking=asking)
    if options.as_json:
        emit("verdict", verdict_facts(verdict) | {"suspect": chosen if isinstance(chosen, Path) else told(chosen), "key": key})
    else:
        show_verdict(verdict, suspect=told(chosen), key=key.name, quiet=options.quiet)
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
    say(
        "Ask the suspect about each and write answers.csv with the header file,label or file,p0,p1,... or file,label1,p1,label2,p2,...; then:"
    )
    say(f"modelward verify answers.csv --key {shlex.quote(str(key))}", wrap=False)
    return 0


def key_show(options: Options, key: KeyFile, *, passphrase_file: PassphraseFile = None, passphrase_fd: PassphraseFd = None) -> int:
    """Show what a key says of itself, without what is secret in it."""
    found = _read(key, passphrase_file, passphrase_fd)
    if options.as_json:
        emit("key-facts", header(found) | {"key": key})
    else:
        say(key.name, style="bold", wrap=False)
        facts(header_lines(found))
    return 0
