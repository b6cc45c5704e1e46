"""The view ``active-survey`` of ``modelward matrix``: the locks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelward.cli.audit_commands import show_plan
from modelward.cli.options import Options, command_line, working
from modelward.cli.output import emit, say, table

if TYPE_CHECKING:
    from collections.abc import Mapping

SURVEY = "active-survey"
SHOWN = ("effectiveness", "denial", "security", "robustness")


def show_survey(options: Options, chosen: Mapping[str, Any], from_rows: Path | None, *, dry_run: bool) -> int:
    """Measure the locks, or make the page of a survey again from its rows, and print what came out."""
    with working(options):
        from modelward.audit.active_survey import active_survey, dry_run_survey, read_survey
        from modelward.audit.run import estimate
        from modelward.evaluation.store import Store
        from modelward.report.active_survey import write_survey

        if dry_run:
            store = Store()
            cost = estimate(dry_run_survey(**chosen, store=store), store, chosen["jobs"])
        elif from_rows is not None:
            document = read_survey(from_rows)
        else:
            document = active_survey(**chosen, store=Store(), command=command_line())
        if not dry_run:
            folder = options.out or (from_rows.parent if from_rows is not None else Path("matrix"))
            paths = write_survey(document, folder)
    if dry_run:
        show_plan(cost, as_json=options.as_json)
        return 0
    if options.as_json:
        emit(SURVEY, {**document, "files": {path.suffix[1:]: path for path in paths}})
        return 0
    _show(document)
    say(f"{SURVEY}: {paths[0]}", wrap=False)
    return 0


def _show(document: Mapping[str, Any]) -> None:
    """Print what each lock does of what is asked of it."""
    say(document["headline"], style="bold")
    for sentence in document["sentences"]:
        say(sentence)
    say()
    rows = [(line["name"], *(_told(line["requirements"][name]) for name in SHOWN)) for line in document["survey"]["rows"]]
    table(("lock", *SHOWN), rows, keep=("lock",))


def _told(found: Mapping[str, Any]) -> str:
    """Return what becomes of a requirement, in words.

    >>> _told({"text": "0.100 (at most 0.150)", "passes": True}), _told({"text": "", "passes": None})
    ('yes: 0.100 (at most 0.150)', 'not measured')
    """
    sign = {True: "yes: ", False: "no: ", None: ""}[found["passes"]]
    return f"{sign}{found['text']}" if found["text"] else "not measured"
