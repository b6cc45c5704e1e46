"""``modelward scan``: look for a trigger in a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

from modelward.cli.audit_commands import Arch, Data, Model, Size, ask
from modelward.cli.options import Options, working
from modelward.cli.output import emit, say, status, table
from modelward.core.errors import UsageError

Kind = Annotated[
    Literal["trigger", "direct", "residual"],
    typer.Option("--kind", help="How triggers are searched for: by a generator, pixel by pixel, or image by image."),
]
Count = Annotated[int, typer.Option("--count", min=10, metavar="N", help="How many test images the search works with.")]
Gate = Annotated[float, typer.Option("--gate", metavar="X", help="Anomaly index above which a class is flagged.")]


def scan(
    options: Options,
    *,
    model: Model = None,
    arch: Arch = None,
    data: Data = "fashion-mini",
    size: Size = None,
    kind: Kind = "trigger",
    count: Count = 200,
    gate: Gate = 2.0,
    convention: Any = None,
) -> int:
    """Look for a small trigger that sends images of any class to one class: a backdoor, or a mark.

    With --out writes masks/, patterns/, sheet.png and scan.json. The exit code is 1 when a class is flagged.
    """
    if options.profile == "paper":
        raise UsageError("a scan has the profiles smoke, quick and full")
    with working(options):
        from modelward.audit.scanning import scan_model, write_scan
        from modelward.report import prepared

        with prepared(options.out) as folder:
            question = ask(options, model=model, arch=arch, data=data, trained_on=None, size=size, convention=convention)
            document = scan_model(question, kind=kind, count=count, gate=gate)
            told = {key: value for key, value in document.items() if key not in {"report", "shown"}}
            if folder is not None:
                told = write_scan(document, folder) | {"folder": folder}
    if options.as_json:
        emit("scan", told)
    else:
        _show(told)
    return 1 if told["flagged"] else 0


def _show(told: Mapping[str, Any]) -> None:
    """Print a line a class, the smallest trigger first."""
    lines = sorted(told["classes"], key=lambda line: -(line["anomaly"] if line["anomaly"] is not None else float("-inf")))
    shown = [
        (
            line["name"], "not reached" if line["size"] is None else f"{line['size']:.1f}", f"{line['success']:.0%}",
            "" if line["anomaly"] is None else f"{line['anomaly']:.2f}", "" if line["p"] is None else f"{line['p']:.3f}",
            status("flagged" if line["flagged"] else "info") if line["flagged"] else "",
        )
        for line in lines
    ]  # fmt: skip
    table(("class", "pixels", "success", "index", "p", "flag"), shown, right=("pixels", "success", "index", "p"))
    if told["flagged"]:
        names = [line["name"] for line in lines if line["flagged"]]
        say(
            f"A trigger for {', '.join(names)} covers far fewer of the {told['pixels']} pixels than those of the other classes: a backdoor or a mark."
        )
    else:
        say("No class is reached through a trigger that is far smaller than the others'.")
    say("A trigger for images of one source class, or one made for each image, would not be seen.")
    if "folder" in told:
        say(f"masks, patterns, sheet.png: {told['folder']}", wrap=False)
