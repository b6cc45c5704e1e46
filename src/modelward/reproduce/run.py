"""Run a recipe and write its rows to ``NAME.json`` and its tables to ``NAME.md``."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modelward._version import __version__
from modelward.core.canonical import plain
from modelward.core.errors import UsageError
from modelward.core.nearest import nearest
from modelward.evaluation.environment import environment
from modelward.evaluation.store import Store
from modelward.io.atomic import write_text
from modelward.reproduce.activeguard import activeguard
from modelward.reproduce.additional_class import additional_class
from modelward.reproduce.advparams import advparams
from modelward.reproduce.dataset_lock import dataset_lock
from modelward.reproduce.fingerprints import fingerprints
from modelward.reproduce.gan_removal import gan_removal
from modelward.reproduce.infip import infip
from modelward.reproduce.sac_jc import sac_jc
from modelward.reproduce.sample_lock import sample_lock
from modelward.reproduce.tables import markdown, pretty_json
from modelward.reproduce.trigger_baselines import trigger_baselines
from modelward.reproduce.weight_baselines import weight_baselines

Recipe = Callable[..., dict[str, Any]]
RECIPES: dict[str, Recipe] = {
    "activeguard": activeguard,
    "additional-class": additional_class,
    "advparams": advparams,
    "dataset-lock": dataset_lock,
    "fingerprints": fingerprints,
    "gan-removal": gan_removal,
    "infip": infip,
    "sac-jc": sac_jc,
    "sample-lock": sample_lock,
    "trigger-baselines": trigger_baselines,
    "weight-baselines": weight_baselines,
}


def reproduce(
    name: str, *, profile: str = "quick", seed: int = 0, store: Store, jobs: int | None = None, out: Path = Path("docs/results")
) -> dict[str, Any]:
    """Measure a paper's claims and write ``NAME.json`` and ``NAME.md`` into ``out`` (``NAME-PROFILE`` for another profile than quick).

    Parameters
    ----------
    name
        a recipe, see ``RECIPES``.
    profile
        ``smoke``, ``quick`` or ``full``.

    Raises
    ------
    UsageError
        for an unknown recipe.
    """
    if name not in RECIPES:
        message = f"there is no recipe {name!r}{nearest(name, RECIPES)}; known: {', '.join(RECIPES)}"
        raise UsageError(message)
    started = time.perf_counter()
    command = f"modelward reproduce {name} --profile {profile} --seed {seed}"
    document = RECIPES[name](profile=profile, seed=seed, store=store, jobs=jobs, command=command)
    document |= {
        "schema": "modelward/results", "version": 1, "name": name, "profile": profile, "seed": seed, "command": command,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), "seconds": time.perf_counter() - started,
        "environment": {"modelward": __version__, **environment()},
    }  # fmt: skip
    stem = name if profile == "quick" else f"{name}-{profile}"
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / f"{stem}.json", pretty_json(plain(document)))
    write_text(out / f"{stem}.md", markdown(document))
    return {**document, "files": [str(out / f"{stem}.json"), str(out / f"{stem}.md")]}
