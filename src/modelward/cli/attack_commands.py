"""``modelward attack``: adversarial images with what they do to a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from modelward.cli.audit_commands import Arch, Data, Model, Size, ask
from modelward.cli.options import Options, parse_settings, working
from modelward.cli.output import emit, say, table, warn
from modelward.core.errors import UsageError

EvasionName = Annotated[str, typer.Argument(metavar="METHOD", help="Evasion attack, as in pgd.", show_default=False)]
AttackSettings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Hyper-parameter, as in eps=8/255 or norm=l2; may be repeated.")
]
Count = Annotated[int, typer.Option("--count", min=1, metavar="N", help="How many test images are attacked.")]


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
        question = ask(options, model=model, arch=arch, data=data, trained_on=None, size=size)
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
