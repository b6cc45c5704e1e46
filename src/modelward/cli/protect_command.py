"""``modelward protect``: make a key, and for a mark the model that carries it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from modelward.cli.audit_commands import Arch, Data, DryRun, Jobs, Model, Size, ask, plan_words, show_plan
from modelward.cli.calibration_options import (
    Base,
    Calibrate,
    Count,
    KnownBase,
    NoThieves,
    OutSiblings,
    RecipeKind,
    SiblingModels,
    Start,
    Train,
    TrainingSet,
    calibrating_of,
    part_of,
    tell_uncalibrated,
    write_siblings,
)
from modelward.cli.key_commands import PassphraseFd, PassphraseFile, passphrase_of
from modelward.cli.key_facts import header, header_lines
from modelward.cli.options import Options, working
from modelward.cli.output import emit, facts, note, say, warn
from modelward.cli.paths import require_free
from modelward.cli.values import parse_settings
from modelward.core.errors import UsageError

if TYPE_CHECKING:
    from modelward.audit import Estimate, Protected, Question
    from modelward.audit.calibrating import Calibrating
    from modelward.core.key import Key
    from modelward.io.age import Secret

MethodName = Annotated[str, typer.Argument(metavar="METHOD", help="Ownership method, as in sac-jc.", show_default=False)]
OutKey = Annotated[Path, typer.Option("--out-key", metavar="KEY", help="Where the key goes; an existing file is never overwritten.")]
OutModel = Annotated[
    Path | None, typer.Option("--out-model", metavar="FILE", help="Where the marked model goes, for methods that change it (safetensors).")
]
Nulls = Annotated[
    Path | None,
    typer.Option("--nulls", metavar="DIR", help="Independent models (safetensors): the key tells how many of them it accuses. They decide nothing."),
]  # fmt: skip
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Hyper-parameter; may be repeated.")]
Variant = Annotated[Literal["paper", "hardened"] | None, typer.Option("--variant", help="The paper's recipe or the repaired one.")]


def protect(
    options: Options,
    method: MethodName,
    *,
    out_key: OutKey,
    out_model: OutModel = None,
    model: Model = None,
    arch: Arch = None,
    data: Data = "fashion-mini",
    trained_on: TrainingSet = None,
    size: Size = None,
    nulls: Nulls = None,
    calibrate: Calibrate = None,
    train: Train = None,
    siblings: Count = None,
    sibling_models: SiblingModels = None,
    recipe: RecipeKind = None,
    base: Base = None,
    start: Start = None,
    known_base: KnownBase = None,
    no_thieves: NoThieves = False,
    out_siblings: OutSiblings = None,
    settings: Settings = None,
    variant: Variant = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    jobs: Jobs = None,
    dry_run: DryRun = False,
    convention: Any = None,
) -> int:
    """Enrol or mark a model with an ownership method and write its key.

    The key proves later whether a suspect was made from this model. Keep it secret.

    A method that marks trains a copy on the owner's images: publish what --out-model holds, not the original.

    A fingerprint's p-value is the rank of your model among siblings: models by your own training on exactly your images, with other seeds. They are
    trained with --calibrate (a model that modelward.fit trained), or with --train and --siblings; without them every verdict is undecided.
    """
    chosen = chosen_settings(settings or [], variant)
    require_free(out_key, "--out-key", "a key")
    asked = calibrating_of(
        calibrate=calibrate, train=train, count=siblings, sibling_models=sibling_models, recipe=recipe, base=base, start=start,
        known_base=known_base, trained_on=trained_on, no_thieves=no_thieves,
    )  # fmt: skip
    _require_out_model(method, out_model)
    passphrase = passphrase_of(passphrase_file, passphrase_fd)
    with working(options):
        question = ask(options, model=model, arch=arch, data=data, trained_on=part_of(trained_on), size=size, convention=convention)
        cost = _cost(method, chosen, question, asked, jobs)
        note(plan_words(cost), quiet=options.quiet or dry_run)
        made = None if dry_run else _enrol(method, chosen, question, asked, nulls=nulls, jobs=jobs)
    if made is None:
        show_plan(cost, as_json=options.as_json)
    else:
        _write_model(out_model, made)
        if out_siblings is not None:
            write_siblings(out_siblings, made.siblings)
        _write(out_key, made.key, passphrase, out_model if made.changed else None, as_json=options.as_json)
    return 0


def _cost(method: str, settings: dict[str, Any], question: Question, asked: Calibrating, jobs: int | None) -> Estimate:
    """Return what enrolling costs; a wrong method or setting is refused before data are read."""
    from modelward.audit import Estimate, dry_run_enrol
    from modelward.core.catalogue import find
    from modelward.evaluation.store import Store

    find(method).configured(settings)
    if not asked.wanted:
        return Estimate(0, 0, 0.0, 0, [])
    return dry_run_enrol(method, settings, question, asked, store=Store(), jobs=jobs)


def _enrol(
    method: str, settings: dict[str, Any], question: Question, asked: Calibrating, *, nulls: Path | None, jobs: int | None
) -> Protected:
    """Return the key of the question's model, and the model to publish."""
    from modelward.audit import enrol
    from modelward.evaluation.store import Store

    return enrol(method, settings, question, calibrating=asked, nulls=nulls, store=Store(), jobs=jobs)


def _require_out_model(method: str, path: Path | None) -> None:
    """Raise `UsageError` when a marked model has no place to go, or one that is taken; and for a method that marks nothing."""
    from modelward.core.catalogue import find

    marks = bool(getattr(find(method), "marks", False))
    if marks and path is None:
        message = f"{method} marks the model: say where the marked model goes with --out-model FILE.safetensors"
        raise UsageError(message)
    if path is not None and not marks:
        message = f"{method} leaves the model as it is; --out-model is for methods that mark it"
        raise UsageError(message)
    if path is not None:
        require_free(path, "--out-model", "a model")


def _write_model(path: Path | None, made: Protected) -> None:
    """Write the marked model; it is written before its key, so that no key speaks of a model that is lost."""
    if path is not None and made.changed:
        from modelward.models import save_model

        save_model(path, made.model, {"trained_on": "owner"})


def _write(path: Path, key: Key, passphrase: Secret | None, model: Path | None, *, as_json: bool) -> None:
    """Write the key file, and print what was enrolled and what to do with it."""
    from modelward.keys import write_key

    write_key(path, key, passphrase=passphrase)
    if not key.calibrated:
        tell_uncalibrated()
    for failing in key.facts.get("intake", ()):
        warn(f"the model may not be handed over in working order: {failing}")
    if as_json:
        emit("protect", {"key": path, "model": model, "encrypted": passphrase is not None} | header(key))
        return
    say(f"key: {path}" + (" (encrypted)" if passphrase is not None else ""), wrap=False)
    if model is not None:
        say(f"marked model: {model}", wrap=False)
    facts(header_lines(key))
    say(f"Keep it secret. Ask it with: modelward verify SUSPECT --key {shlex.quote(str(path))}", wrap=False)


def chosen_settings(pairs: list[str], variant: str | None) -> dict[str, Any]:
    """Return the hyper-parameters of --set and --variant."""
    chosen = parse_settings(pairs)
    if variant is None:
        return chosen
    if chosen.get("variant", variant) != variant:
        raise UsageError("--variant and --set variant=... differ; pass one of the two")
    return chosen | {"variant": variant}
