"""``modelward audit`` and ``modelward reproduce``: the long runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from modelward.cli.options import FLAG, Options, command_line, working
from modelward.cli.output import emit, human_bytes, human_seconds, note, say, status, table
from modelward.cli.values import parse_size
from modelward.core.errors import UsageError

if TYPE_CHECKING:
    from modelward.audit import Estimate, Question
    from modelward.models.intake import Convention

Model = Annotated[Path | None, typer.Option("--model", metavar="FILE", help="Safetensors file; without it the embedded model.")]
Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        metavar="NAME",
        help="Architecture, as in resnet8:width=16, or package.module:function of your own; files that modelward saved carry theirs.",
    ),
]
Data = Annotated[str, typer.Option("--data", metavar="SET", help="Name, folder, zip or file of a labelled image set.")]
Size = Annotated[str | None, typer.Option("--size", metavar="H,W", help="Resize the images to H,W.")]
TrainedOn = Annotated[
    Literal["owner", "train"] | None,
    typer.Option("--trained-on", help="What the model saw: the owner's half of the training split, or all of it."),
]
Jobs = Annotated[
    int | None, typer.Option("--jobs", min=1, metavar="N", help="Worker processes; without it one a core.", show_default=False)
]
FailIf = Annotated[
    list[str] | None,
    typer.Option("--fail-if", metavar="CONDITION", help="Exit with 1 when it is met, as in 'robust_acc < .4'; may be repeated."),
]
JUnit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Also write the checks as JUnit XML.")]
PlanFile = Annotated[Path | None, typer.Option("--plan", metavar="FILE", help="YAML file that says what to test.")]
Battery = Annotated[
    Literal["smoke", "standard", "full"] | None,
    typer.Option(
        "--battery",
        help="Every theft there is instead of the profile's eight kinds: hardly trained (smoke), with their defaults, or over their grids (full).",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", metavar=FLAG, help="Only print cells, time and memory.")]


def ask(
    options: Options, *, model: Path | None, arch: str | None, data: str, trained_on: str | None, size: str | None,
    convention: Convention | None = None,
) -> Question:  # fmt: skip
    """Return the question that the arguments ask."""
    from modelward.audit import Question

    return Question(
        model=model, arch=arch, data=data, profile=options.profile, seed=options.seed, trained_on=trained_on, threads=options.threads,
        size=parse_size(size), convention=convention,
    )  # fmt: skip


def audit(
    options: Options,
    *,
    model: Model = None,
    arch: Arch = None,
    data: Data = "fashion-mini",
    trained_on: TrainedOn = None,
    size: Size = None,
    battery: Battery = None,
    plan: PlanFile = None,
    fail_if: FailIf = None,
    junit: JUnit = None,
    jobs: Jobs = None,
    dry_run: DryRun = False,
    convention: Any = None,
) -> int:
    """Audit a model: robustness, theft, and how well its thieves are recognised.

    Writes report.html and report.json into --out. After an interruption the same command goes on where it stopped. The exit code is 1 when a
    check failed, or a condition of --fail-if is met.
    """
    with working(options):
        from modelward.audit import audit as run
        from modelward.audit import dry_run as planned
        from modelward.evaluation.store import Store

        store = Store()
        question = ask(options, model=model, arch=arch, data=data, trained_on=trained_on, size=size, convention=convention)
        question = narrowed(question, plan, fail_if or [], battery)
        estimate = planned(question, store, jobs=jobs)
        if not dry_run:
            from modelward.report import ready, write

            folder = ready(options.out or Path("modelward-report"))
            if junit is not None:
                ready(junit.parent)
            note(f"{plan_words(estimate)}; finished cells are kept in {store.folder}", quiet=options.quiet)
            document = run(question, store, jobs=jobs, command=command_line())
            html, json = write(document, folder)
            if junit is not None:
                from modelward.report.junit import write_junit

                write_junit(document, junit)
    if dry_run:
        show_plan(estimate, as_json=options.as_json)
    elif options.as_json:
        emit("report", {**document, "files": {"html": html, "json": json}})
    else:
        _show_audit(document)
        say(f"report: {html}", wrap=False)
    return 1 if not dry_run and document["verdict"]["status"] == "failed" else 0


def narrowed(question: Question, plan: Path | None, conditions: list[str], battery: str | None = None) -> Question:
    """Return the question with a plan file's choices, the conditions to fail on, and a battery of thefts."""
    import dataclasses

    if battery is not None:
        question = dataclasses.replace(question, battery=battery)
    if conditions:
        question = dataclasses.replace(question, fail_if=tuple(conditions))
    if plan is None:
        return question
    from modelward.audit.plan_file import with_plan

    return with_plan(question, plan)


def plan_words(estimate: Estimate) -> str:
    """Return a plan in one sentence."""
    new = estimate.cells - estimate.cached
    if not estimate.cells:
        return "no models are trained for this: seconds"
    if not new:
        return f"all {estimate.cells} cells are in the store already"
    return f"{new} of {estimate.cells} cells to do, about {human_seconds(estimate.seconds)}"


def show_plan(estimate: Estimate, *, as_json: bool) -> None:
    """Print what would be done."""
    if as_json:
        lines = [{"work": name, "cells": count, "seconds": seconds} for name, count, seconds in estimate.lines]
        totals = {"cells": estimate.cells, "cached": estimate.cached, "seconds": estimate.seconds, "memory_bytes": estimate.memory_bytes}
        emit("plan", totals | {"lines": lines})
        return
    rows = [(name, count, human_seconds(seconds)) for name, count, seconds in estimate.lines]
    table(("work", "cells", "one core"), rows, right=("cells", "one core"))
    memory = f", up to {human_bytes(estimate.memory_bytes)} of memory" if estimate.cells > estimate.cached else ""
    say(f"\n{plan_words(estimate)}{memory}. Nothing was run.")


def _show_audit(document: Mapping[str, Any]) -> None:
    """Print the verdict in words and what became of each section."""
    verdict = document["verdict"]
    say(verdict["headline"], style="bold")
    for sentence in verdict.get("sentences", ()):
        say(sentence)
    say()
    columns = ("status", "section", "rows", "flagged", "not tested")
    table(columns, [_section(section) for section in document["sections"]], right=columns[2:], keep=("status",))
    cost = document.get("cost", {})
    if "seconds" in cost:
        say(f"\n{cost.get('cells', 0)} cells, {cost.get('cached', 0)} of them from the store, {human_seconds(cost['seconds'])}.")


def _section(section: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return one line of the table of sections."""
    counts = (len(section.get(name, ())) for name in ("rows", "flags", "not_tested"))
    return status(section["status"]), section["title"], *(count or "" for count in counts)


def reproduce(
    options: Options,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Recipe; without it they are listed.", show_default=False)] = None,
    *,
    jobs: Jobs = None,
) -> int:
    """Re-create a paper's table on real data, with intervals.

    Writes NAME.json and NAME.md into --out (docs/results). After an interruption the same command goes on where it stopped.
    """
    from modelward.core.nearest import nearest
    from modelward.reproduce import RECIPES
    from modelward.reproduce import reproduce as run

    known = sorted(RECIPES)
    if name is None:
        if options.as_json:
            emit("recipes", {"recipes": known})
        else:
            say("recipes: " + ", ".join(known))
        return 0
    if name not in known:
        message = f"there is no recipe {name!r}{nearest(name, known)}; known: {', '.join(known)}"
        raise UsageError(message)
    folder = options.out or Path("docs/results")
    with working(options):
        from modelward.evaluation.store import Store

        document = run(name, profile=options.profile, seed=options.seed, store=Store(), jobs=jobs, out=folder)
    if options.as_json:
        emit("reproduction", document)
        return 0
    for sentence in (document.get("verdict") or {}).get("sentences", ()):
        say(sentence)
    say(f"results: {' and '.join(document['files'])}", wrap=False)
    return 0
