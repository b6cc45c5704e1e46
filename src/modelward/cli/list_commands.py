"""``modelward methods``, ``data list`` and ``models list``: what there is."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from modelward.cli.method_card import card_facts, show_card
from modelward.cli.options import Options
from modelward.cli.output import console, emit, say, table

WIDE = 110
_INPUTS = ((1, 28, 28), (3, 32, 32))


def methods(
    options: Options,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Method to describe; without it all are listed.", show_default=False)
    ] = None,
) -> int:
    """List the methods, or describe one: paper, threat model, settings."""
    from modelward.core.catalogue import catalogue, find

    if name is not None:
        method = find(name)
        if options.as_json:
            emit("method", card_facts(method))
        else:
            show_card(method)
        return 0
    known = catalogue()
    if options.as_json:
        emit("methods", {"methods": [card_facts(method) for method in known.values()]})
        return 0
    rows = [(name, method.family, method.card.title, method.card.paper) for name, method in known.items()]
    if console().width >= WIDE:
        table(("name", "family", "title", "paper"), rows, keep=("name", "family"))
    else:
        table(("name", "family", "title"), [row[:3] for row in rows], keep=("name", "family"))
    say("\n`modelward methods NAME` describes one.")
    return 0


def data_list(options: Options) -> int:
    """List the image sets that have a name."""
    from modelward.data import list_data

    infos = list_data()
    if options.as_json:
        import dataclasses

        emit("data", {"data": [dataclasses.asdict(info) for info in infos]})
        return 0
    rows = [
        (
            *(info.name, "yes" if info.present else "no", info.classes, f"{info.train:,}", f"{info.test:,}"),
            *("x".join(map(str, info.shape)), info.licence, info.note),
        )
        for info in infos
    ]
    columns = ("name", "here", "classes", "train", "test", "C x H x W", "licence", "note")
    wide = console().width >= WIDE
    table(
        columns if wide else columns[:6],
        rows if wide else [row[:6] for row in rows],
        right=("classes", "train", "test"),
        keep=("name", "C x H x W"),
    )
    if any(not info.present for info in infos):
        say("\nPut NAME.zip or the folder NAME of an absent set into a folder and set MODELWARD_DATA to that folder.")
    return 0


def models_list(options: Options) -> int:
    """List the architectures with their arguments, and their sizes for ten classes."""
    from modelward.models import ARCHITECTURES

    counts = {name: [_parameters(name, shape) for shape in _INPUTS] for name in ARCHITECTURES}
    names = ["x".join(map(str, shape)) for shape in _INPUTS]
    if options.as_json:
        rows = [
            {"name": name, "arguments": ARCHITECTURES[name].defaults, "parameters": dict(zip(names, found, strict=True))}
            for name, found in counts.items()
        ]
        emit("architectures", {"architectures": rows, "trained": _trained()})
        return 0
    arguments = {name: ",".join(f"{option}={value}" for option, value in plan.defaults.items()) for name, plan in ARCHITECTURES.items()}
    shown = [(name, arguments[name], *(f"{count:,}" for count in found)) for name, found in counts.items()]
    table(("name", "arguments", *names), shown, right=names, keep=("name",))
    say("\nParameters for ten classes. Arguments are given as in resnet8:width=32; a net of your own as package.module:function.\n")
    trained = [(net["name"], "yes" if net["file"] else "no", net["source"], net["about"]) for net in _trained()]
    table(("trained network", "here", "package", "about"), trained, keep=("trained network",))
    say("\n`modelward models get NAME` fetches one.")
    return 0


def _trained() -> list[dict[str, Any]]:
    """Return the trained networks that can be fetched; ``file`` is where one is that was."""
    from modelward.models.pretrained import SOURCES, cached

    return [
        {"name": name, "source": f"{source.package}=={source.version}", "about": source.about,
         "file": str(cached(name)) if cached(name).exists() else None}
        for name, source in SOURCES.items()
    ]  # fmt: skip


def _parameters(name: str, shape: tuple[int, int, int]) -> int:
    """Return the number of parameters for images of ``shape`` and ten classes, without taking their memory."""
    import torch

    from modelward.models import ARCHITECTURES

    channels, height, width = shape
    with torch.device("meta"):
        body = ARCHITECTURES[name].make(channels, (height, width), 10)
    return sum(parameter.numel() for parameter in body.parameters())
