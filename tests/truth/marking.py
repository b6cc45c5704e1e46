"""Marks: what strangers, thieves of the marked model and forgers get."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.foreign.suspects import thieves
from tests.truth.judging import ACCEPTED, verdicts
from tests.truth.worlds import SHARED_START, Scene

from modelward.core.errors import InputError
from modelward.core.rng import derive_seed, generator
from modelward.core.suspect import Suspect
from modelward.keys.derive import derive
from modelward.ownership import EWE, AdditionalClass, Adi, DeepMarks, Frontier, Passport, Uchida, Zhang
from modelward.ownership.mark import MarkMethod

MARKS: dict[str, MarkMethod] = {
    "adi": Adi(), "zhang": Zhang(), "frontier": Frontier(), "ewe": EWE(), "additional-class": AdditionalClass(), "uchida": Uchida(),
    "deepmarks": DeepMarks(), "passport": Passport(),
}  # fmt: skip
TRIES, INNOCENT = 1000, 20


def marked(scene: Scene, name: str, folder: Path) -> dict[str, Any]:
    """Return what a mark's key says of all strangers, and of 14 thieves of the marked model."""
    method, world = MARKS[name], scene.world
    began = time.perf_counter()
    try:
        published, key = method.protect(world.owner.model(folder), world.images, secret=derive(b"truth" * 8, name), rng=generator(5))
    except InputError as error:
        return {"method": name, "rows": [], "why": str(error)}
    spent = time.perf_counter() - began
    every = [(one, one.model(folder)) for one in scene.strangers()]
    every += [(one, one.model(folder)) for one in thieves(world, published)[::2]]
    return {"method": name, "protect_seconds": round(spent, 1), "rows": verdicts(method, key, every)}


def forged(scene: Scene, name: str, folder: Path, *, seconds: float = 150.0) -> dict[str, Any]:
    """Return how many of the tries to make a key for models of somebody else end in "stolen", were such a key dated before the suspect."""
    method, found = MARKS[name], []
    innocent = [one for one in scene.strangers() if one.kind not in SHARED_START][:INNOCENT]
    began = time.perf_counter()
    for place, one in enumerate(innocent):
        model, tried, stolen, fits = one.model(folder), 0, 0, 0
        while tried < TRIES and time.perf_counter() - began < seconds * (place + 1) / len(innocent):
            secret = derive(b"forger" * 6, name, str(place), str(tried))
            try:
                key = method.forge(model, scene.world.others, secret=secret, rng=generator(derive_seed("forge", place, tried)))
                verdict = method.verify(Suspect.of_model(model), key, commitment=ACCEPTED)
            except InputError as error:
                return {"method": name, "rows": found, "why": str(error)[:200]}
            tried, stolen, fits = tried + 1, stolen + verdict.stolen, fits + verdict.matches
        found.append({"suspect": one.name, "tried": tried, "fits": fits, "stolen": stolen})
    return {"method": name, "rows": found}
