"""The options that say what a fingerprint's p-value is drawn over."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from modelward.cli.output import warn
from modelward.core.errors import UsageError

if TYPE_CHECKING:
    from modelward.audit.calibrating import Calibrating
    from modelward.core.siblings import Siblings

_PANEL = "Calibration of fingerprints"
Calibrate = Annotated[
    Literal["smoke", "quick", "full"] | None,
    typer.Option(
        "--calibrate", help="Train 6, 19 or 59 siblings by the recipe in the model's file (smoke decides nothing).", rich_help_panel=_PANEL
    ),
]
Train = Annotated[
    str | None,
    typer.Option("--train", metavar="MODULE:FUNCTION", help="Your own training: function(images, labels, seed) -> module.", rich_help_panel=_PANEL),
]  # fmt: skip
Count = Annotated[int | None, typer.Option("--siblings", metavar="N", help="How many siblings: 19, 39, 59 or 99.", rich_help_panel=_PANEL)]
SiblingModels = Annotated[
    Path | None,
    typer.Option(
        "--sibling-models", metavar="DIR", help="Siblings that you trained (safetensors): weak evidence at most.", rich_help_panel=_PANEL
    ),
]
RecipeKind = Annotated[
    Literal["matched"] | None,
    typer.Option("--recipe", help="No code at hand: our recipe, stopped at your accuracy. Decides nothing.", rich_help_panel=_PANEL),
]
Base = Annotated[
    str | None,
    typer.Option(
        "--base", metavar="FILE|none", help="Public network that training began with, or none: weights drawn anew.", rich_help_panel=_PANEL
    ),
]
Start = Annotated[
    Path | None,
    typer.Option(
        "--start", metavar="FILE", help="Initial weights that others may have, such as those of a public seed.", rich_help_panel=_PANEL
    ),
]
KnownBase = Annotated[
    Path | None,
    typer.Option(
        "--known-base", metavar="DIR", help="Public networks (safetensors) that --base none is tried against.", rich_help_panel=_PANEL
    ),
]
TrainingSet = Annotated[
    str | None,
    typer.Option(
        "--trained-on", metavar="SET",
        help="Exactly the images that the model was trained on: a set (SET:train, SET:test or SET:all of one with a test part), or owner or train for "
             "that part of --data.",
    ),
]  # fmt: skip
OutSiblings = Annotated[
    Path | None,
    typer.Option(
        "--out-siblings", metavar="DIR", help="Write the siblings, for whoever checks evidence to ask them again.", rich_help_panel=_PANEL
    ),
]
NoThieves = Annotated[
    bool,
    typer.Option(
        "--no-thieves", metavar=" ", help="Do not try thefts: quicker, and no verdict can then say 'not stolen'.", rich_help_panel=_PANEL
    ),
]


def calibrating_of(
    *, calibrate: str | None, train: str | None, count: int | None, sibling_models: Path | None, recipe: str | None, base: str | None,
    start: Path | None, known_base: Path | None, trained_on: str | None, no_thieves: bool,
) -> Calibrating:  # fmt: skip
    """Return how a fingerprint is calibrated; raises `UsageError` for options that contradict each other."""
    from modelward.audit.calibrating import Calibrating

    asked = Calibrating(
        profile=calibrate, train=train, count=count, models=sibling_models, matched=recipe is not None, base=base, start=start,
        trained_on=trained_on, known_bases=known_base, thieves=not no_thieves,
    )  # fmt: skip
    if known_base is not None and base != "none":
        raise UsageError("--known-base holds public networks that --base none is tried against; pass it with --base none")
    return asked


def write_siblings(folder: Path, siblings: Siblings) -> None:
    """Write every sibling as a safetensors file, named by its number."""
    from modelward.models import save_model

    folder.mkdir(parents=True, exist_ok=True)
    for number, model in enumerate(siblings.models, 1):
        save_model(folder / f"sibling-{number:02d}.safetensors", model)


def part_of(trained_on: str | None) -> str | None:
    """Return which part of the data a model was trained on, for what splits the data; ``None`` for a set of its own."""
    return trained_on if trained_on in {"owner", "train"} else None


def tell_uncalibrated() -> None:
    """Warn that a key decides nothing."""
    warn(
        "the key has no siblings: every verdict will be undecided; enrol with --calibrate quick (a model that modelward.fit trained), or with "
        "--train package.module:function --siblings 19"
    )
