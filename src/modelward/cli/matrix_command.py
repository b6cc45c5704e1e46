"""``modelward matrix``: which protection survives which thief."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelward.cli.audit_commands import DryRun, Jobs, show_plan
from modelward.cli.options import Options, command_line, working
from modelward.cli.output import emit, say, table

if TYPE_CHECKING:
    from collections.abc import Mapping

Method = Annotated[list[str] | None, typer.Option("--method", metavar="NAME", help="Row of the matrix; may be repeated. Default: all.")]
Variant = Annotated[
    list[str] | None, typer.Option("--variant", metavar="NAME", help="hardened or paper; may be repeated. Default: hardened, in full both.")
]
SourceArch = Annotated[str, typer.Option("--arch", metavar="ARCH", help="Architecture of the source, which is trained for this.")]
FromRows = Annotated[
    Path | None,
    typer.Option("--from", metavar="JSON", help="Make page and table again from the rows of a matrix.json; nothing is measured."),
]
SourceData = Annotated[str, typer.Option("--data", metavar="DATA", help="Labelled images: name, folder, zip or file.")]
WORDS = {"robust": "yes", "broken": "broken", "useless": "-", "fragile": "no mark", "failed": "failed", "not tested": ""}


def matrix(
    options: Options,
    *,
    method: Method = None,
    variant: Variant = None,
    arch: SourceArch = "lenet5",
    data: SourceData = "fashion-mini",
    from_rows: FromRows = None,
    jobs: Jobs = None,
    dry_run: DryRun = False,
) -> int:
    """Measure which protection survives which thief: a heat map, a table, and all rows behind them.

    A source model is trained and protected by every method; every protected model is stolen in every way that the rules of the survey pick for
    its mechanism, and in the ways of somebody who knows the method; every key is asked about every stolen model.

    Writes matrix.html, matrix.csv and matrix.json into --out (./matrix). After an interruption the same command goes on where it stopped.
    """
    if from_rows is not None:
        return _again(options, from_rows)
    chosen: dict[str, Any] = {
        "arch": arch, "data": data, "profile": options.profile, "methods": tuple(method or ()), "seed": options.seed, "jobs": jobs,
        "variants": tuple(variant or (("hardened", "paper") if options.profile == "full" else ("hardened",))),
    }  # fmt: skip
    with working(options):
        from modelward.audit.matrix import dry_run_matrix
        from modelward.audit.matrix import matrix as run
        from modelward.audit.run import estimate
        from modelward.evaluation.store import Store
        from modelward.report.matrix_page import write_matrix

        store = Store()
        if dry_run:
            cost = estimate(dry_run_matrix(**chosen, store=store), store, jobs)
        else:
            document = run(**chosen, store=store, command=command_line())
            paths = write_matrix(document, options.out or Path("matrix"))
    if dry_run:
        show_plan(cost, as_json=options.as_json)
    elif options.as_json:
        emit("matrix", {**document, "files": {path.suffix[1:]: path for path in paths}})
    else:
        _show(document)
        say(f"matrix: {paths[0]}", wrap=False)
    return 0


def _again(options: Options, path: Path) -> int:
    """Write the page and the table of a document that was measured before."""
    with working(options):
        from modelward.audit.matrix import read_matrix
        from modelward.report.matrix_page import write_matrix

        document = read_matrix(path)
        paths = write_matrix(document, options.out or path.parent)
    if options.as_json:
        emit("matrix", {**document, "files": {path.suffix[1:]: path for path in paths}})
    else:
        _show(document)
        say(f"matrix: {paths[0]}", wrap=False)
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
