"""``modelward matrix``: which protection survives which thief."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelward.cli.audit_commands import DryRun, Jobs, show_plan
from modelward.cli.options import Options, command_line, working
from modelward.cli.output import emit, say, table
from modelward.cli.survey_view import SURVEY, show_survey
from modelward.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

Method = Annotated[list[str] | None, typer.Option("--method", metavar="NAME", help="Row of the matrix; may be repeated. Default: all.")]
Variant = Annotated[
    list[str] | None, typer.Option("--variant", metavar="NAME", help="hardened or paper; may be repeated. Default: hardened, in full both.")
]
SourceArch = Annotated[
    list[str] | None,
    typer.Option(
        "--arch",
        metavar="ARCH",
        help="Architecture of a source, which is trained for this; may be repeated. Default: lenet5, in full resnet8 too.",
    ),
]
Seeds = Annotated[
    int | None, typer.Option("--seeds", metavar="N", min=1, help="How many seeds, from --seed on; they are pooled. Default: 1, in full 3.")
]
FromRows = Annotated[
    Path | None,
    typer.Option("--from", metavar="JSON", help="Make page and table again from the rows of a matrix.json; nothing is measured."),
]
View = Annotated[
    str | None,
    typer.Option("--view", metavar="NAME", help="ip-survey: the rows as the survey's table, too; active-survey: the locks instead."),
]
SourceData = Annotated[str, typer.Option("--data", metavar="DATA", help="Labelled images: name, folder, zip or file.")]
WORDS = {"robust": "yes", "broken": "broken", "useless": "-", "fragile": "no mark", "failed": "failed", "not tested": ""}


def matrix(
    options: Options,
    *,
    method: Method = None,
    variant: Variant = None,
    arch: SourceArch = None,
    data: SourceData = "fashion-mini",
    seeds: Seeds = None,
    from_rows: FromRows = None,
    view: View = None,
    jobs: Jobs = None,
    dry_run: DryRun = False,
) -> int:
    """Measure which protection survives which thief: a heat map, a table, and all rows behind them.

    A source model is trained and protected by every method; every protected model is stolen in every way that the rules of the survey pick for
    its mechanism, and in the ways of somebody who knows the method; every key is asked about every stolen model.

    Writes matrix.html, matrix.csv and matrix.json into --out (./matrix), and a view beside them, with --from too. After an interruption the same
    command goes on where it stopped. With --view active-survey the rows are the locks, the columns what is asked of active protection, and the
    files active-survey.html, .csv and .json.
    """
    if from_rows is not None and view != SURVEY:
        return _again(options, from_rows, view)
    full = options.profile == "full"
    chosen: dict[str, Any] = {
        "data": data, "profile": options.profile, "methods": tuple(method or ()), "seed": options.seed, "jobs": jobs,
        "variants": tuple(variant or (("hardened", "paper") if full else ("hardened",))),
    }  # fmt: skip
    if view == SURVEY:
        return show_survey(options, {**chosen, "arch": _only(arch, seeds)}, from_rows, dry_run=dry_run)
    chosen |= {"archs": tuple(arch or (("lenet5", "resnet8") if full else ("lenet5",))), "seeds": seeds or (3 if full else 1)}
    with working(options):
        from modelward.audit.matrix import dry_run_matrix
        from modelward.audit.matrix import matrix as run
        from modelward.audit.run import estimate
        from modelward.evaluation.store import Store
        from modelward.report.views import view_named

        if view is not None:
            view_named(view)
        store = Store()
        if dry_run:
            cost = estimate(dry_run_matrix(**chosen, store=store), store, jobs)
        else:
            document = run(**chosen, store=store, command=command_line())
            paths = _written(document, options.out or Path("matrix"), view)
    if dry_run:
        show_plan(cost, as_json=options.as_json)
        return 0
    return _told(options, document, paths)


def _only(arch: list[str] | None, seeds: int | None) -> str:
    """Return the one architecture of the survey of locks."""
    if len(arch or ()) > 1 or (seeds or 1) > 1:
        message = f"--view {SURVEY} locks one source: say --arch once, and leave out --seeds"
        raise UsageError(message)
    return arch[0] if arch else "lenet5"


def _again(options: Options, path: Path, view: str | None) -> int:
    """Write the page and the table of a document that was measured before."""
    with working(options):
        from modelward.audit.matrix import read_matrix

        document = read_matrix(path)
        paths = _written(document, options.out or path.parent, view)
    return _told(options, document, paths)


def _written(document: Mapping[str, Any], folder: Path, view: str | None) -> dict[str, Path]:
    """Write the matrix, and a view of it, and return the files by what they are."""
    from modelward.report.matrix_page import write_matrix
    from modelward.report.views import view_named

    more = None if view is None else view_named(view)
    paths = {path.suffix[1:]: path for path in write_matrix(document, folder)}
    return paths | ({path.name: path for path in more(document, folder)} if more else {})


def _told(options: Options, document: Mapping[str, Any], paths: Mapping[str, Path]) -> int:
    """Show or emit what was written."""
    if options.as_json:
        emit("matrix", {**document, "files": paths})
    else:
        _show(document)
        for name, path in paths.items():
            if path.suffix == ".html":
                say(f"{'matrix' if name == 'html' else path.stem}: {path}", wrap=False)
    return 0


def _show(document: Mapping[str, Any]) -> None:
    """Print the leaderboard."""
    from modelward.report.matrix import leaders

    say(document["headline"], style="bold")
    for sentence in document["sentences"]:
        say(sentence)
    rows = [
        (
            entry["name"],
            f"{entry['robust']} of {entry['decided']}",
            entry["useless"],
            "" if entry["drop"] is None else f"{100 * entry['drop']:.1f}",
        )
        for entry in leaders(document["matrix"])
    ]
    say()
    table(
        ("protection", "withstood", "ruin the copy", "points lost"),
        rows,
        right=("withstood", "ruin the copy", "points lost"),
        keep=("protection",),
    )
