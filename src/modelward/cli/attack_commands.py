"""``modelward attack`` and ``steal``: adversarial images, and copies of a model, with what they are worth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from modelward.cli.audit_commands import Arch, Data, DryRun, Jobs, Model, Size, TrainedOn, ask, plan_words, show_plan
from modelward.cli.options import Options, working
from modelward.cli.output import emit, note, say, table, warn
from modelward.cli.values import parse_settings
from modelward.core.errors import UsageError

EvasionName = Annotated[str, typer.Argument(metavar="METHOD", help="Evasion attack, as in pgd.", show_default=False)]
AttackSettings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Hyper-parameter, as in eps=8/255 or norm=l2; may be repeated.")
]
Count = Annotated[int, typer.Option("--count", min=1, metavar="N", help="How many test images are attacked.")]

TheftName = Annotated[str, typer.Argument(metavar="METHOD", help="Theft, as in ftal or extract-l.", show_default=False)]
TheftSettings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Hyper-parameter, as in epochs=3; may be repeated.")
]
ThiefLabels = Annotated[
    Literal["true", "stolen", "none"] | None, typer.Option("--labels", help="The thief's labels; without it the method's usual ones.")
]
ThiefArch = Annotated[str | None, typer.Option("--thief-arch", metavar="NAME", help="Architecture of the copy; without it the victim's.")]
OutModel = Annotated[Path, typer.Option("--out-model", metavar="FILE", help="Where the copy goes (safetensors).")]


def attack(
    options: Options,
    method: EvasionName,
    *,
    model: Model = None,
    arch: Arch = None,
    data: Data = "fashion-mini",
    size: Size = None,
    settings: AttackSettings = None,
    count: Count = 512,
    convention: Any = None,
) -> int:
    """Attack a model's test images and write them into --out.

    Writes images/00000.png ..., answers.csv (the model's answers to them), samples.csv and attack.json. All figures are for 8-bit images, with
    random noise of the same size beside them.
    """
    if options.out is None:
        raise UsageError("say where the images go: --out DIR")
    with working(options):
        from modelward.audit.attacking import attack as run
        from modelward.audit.attacking import require_room, write_attack
        from modelward.report import ready

        require_room(ready(options.out))
        question = ask(options, model=model, arch=arch, data=data, trained_on=None, size=size, convention=convention)
        document = write_attack(run(question, method, parse_settings(settings or []), count=count), options.out)
    if options.as_json:
        emit("attack", document | {"folder": options.out})
        return 0
    _show(document)
    say(f"{document['images']} images: {options.out / 'images'}", wrap=False)
    return 0


def _show(document: Mapping[str, Any]) -> None:
    """Print the figures of an attack."""
    for flag in document["flags"]:
        warn(flag)
    rates = [row for row in document["rows"] if row["unit"] == "fraction"]
    shown = [
        (_what(row), f"{row['value']:.1%}", f"{row['ci_low']:.1%} to {row['ci_high']:.1%}" if row["ci_low"] is not None else "", row["n"])
        for row in rates if row["value"] is not None
    ]  # fmt: skip
    table(("images", "accuracy" if len(rates) == 3 else "share", "95 % interval", "n"), shown, right=("accuracy", "share", "n"))
    sizes = [
        f"{row['metric'].removeprefix('median_')} {row['value']:.4g}"
        for row in document["rows"]
        if row["metric"].startswith("median_") and row["n"]
    ]
    say(f"Median change of the images that were turned: {', '.join(sizes)}." if sizes else "No image was turned.")


def _what(row: Mapping[str, Any]) -> str:
    """Return which images a row is about."""
    if row["metric"] == "target_reached":
        return f"{row['attack']} at {row['budget']}: target reached"
    names = {"none": "as they are", "noise": "random noise of equal size"}
    return names.get(row["attack"], f"{row['attack']} at {row['budget']}")


def steal(
    options: Options,
    method: TheftName,
    *,
    out_model: OutModel,
    model: Model = None,
    arch: Arch = None,
    data: Data = "fashion-mini",
    trained_on: TrainedOn = None,
    size: Size = None,
    settings: TheftSettings = None,
    labels: ThiefLabels = None,
    thief_arch: ThiefArch = None,
    jobs: Jobs = None,
    dry_run: DryRun = False,
    convention: Any = None,
) -> int:
    """Make the copy that a thief would make, with images the owner never used, and write it to --out-model.

    Shows the copy's accuracy beside the victim's and beside a model trained from scratch at the same budget.
    """
    if not out_model.absolute().parent.is_dir():
        message = f"the folder {out_model.parent} of --out-model does not exist; make it first"
        raise UsageError(message)
    with working(options):
        from modelward.audit.stealing import dry_run_steal, theft_spec
        from modelward.audit.stealing import steal as run
        from modelward.evaluation.store import Store

        spec, store = theft_spec(method, parse_settings(settings or []), labels=labels, arch=thief_arch), Store()
        question = ask(options, model=model, arch=arch, data=data, trained_on=trained_on, size=size, convention=convention)
        cost = dry_run_steal(question, spec, store, jobs=jobs)
        note(plan_words(cost), quiet=options.quiet or dry_run)
        found = {} if dry_run else run(question, spec, store, out_model=out_model, jobs=jobs)
    if dry_run:
        show_plan(cost, as_json=options.as_json)
    elif options.as_json:
        emit("theft", found)
    else:
        _show_theft(found)
    return 0


def _show_theft(found: Mapping[str, Any]) -> None:
    """Print what a copy is worth."""
    lineage, row, reference = found["lineage"], found["rows"][0], found["reference"]
    for flag in row["flags"]:
        warn(flag)
    lines = [("the copy", row), *([("trained from scratch at its budget", reference)] if reference else [])]
    shown = [(name, f"{one['value']:.1%}", f"{one['ci_low']:.1%} to {one['ci_high']:.1%}", one["n"]) for name, one in lines]
    shown.append(("the victim", f"{lineage['accuracy'] + lineage['drop']:.1%}", "", row["n"]))
    table(("model", "accuracy", "95 % interval", "n"), shown, right=("accuracy", "n"))
    queries = f", {lineage['queries']:,} queries" if lineage["queries"] else ""
    say(f"It agrees with the victim on {lineage['agreement']:.1%} of the test images; {lineage['images']:,} images of the thief{queries}.")
    if not lineage["useful"]:
        say("It lost more than 5 points: a useless copy, which proves nothing about a fingerprint.")
    say(f"copy: {found['model']}", wrap=False)
