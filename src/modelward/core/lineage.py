"""How a model was trained, kept with the model, so that siblings of it can be trained by the same recipe."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor, nn

from modelward.core.canonical import canonical_json
from modelward.core.guard import state_digest

_NAME = "modelward_lineage"


def images_digest(pixels: Tensor, targets: Tensor) -> str:
    """Return the SHA-256 of a training set: uint8 images and their labels, in their order."""
    return state_digest({"x": pixels, "y": targets})


def remember(model: nn.Module, recipe: Any, *, seed: int, start: str, images: str, plain: bool) -> None:
    """Note at ``model`` how it was trained.

    Parameters
    ----------
    recipe
        a dataclass of plain values.
    seed, start, images
        of the training run; SHA-256 of the weights that it began with, and of the training set.
    plain
        whether the recipe alone says how: no validation images, no adversary, nothing trained beside.
    """
    told = {"seed": str(seed), "start_digest": start, "images": images}
    if plain:
        told["recipe"] = canonical_json(dataclasses.asdict(recipe)).decode()
    setattr(model, _NAME, {**told, "state": state_digest(model)})


def lineage_of(model: nn.Module) -> dict[str, str]:
    """Return what is known of a model's training, for its file; nothing once its weights were changed."""
    told: dict[str, str] = getattr(model, _NAME, {})
    if not told or told["state"] != state_digest(model):
        return {}
    return {name: value for name, value in told.items() if name != "state"}
