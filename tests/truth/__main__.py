"""``python -m tests.truth FOLDER [PART ...]``: do the parts that are not done yet; ``python -m tests.truth.train FOLDER`` trains the models first."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tests.truth.judging import guard, kept, named, rate
from tests.truth.marking import MARKS, forged, marked
from tests.truth.orders import orders
from tests.truth.simulation import CASES, simulate
from tests.truth.worlds import photographs, scenes

CHUNK = 500


def parts(folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """Return all parts by name, in the order in which they are done."""
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    known = scenes(folder)
    for name, scene in known.items():
        for method in ("sac-jc", "sac", "unit-order", "unit-match", *(["weight-distance"] if scene.start == "base" else [])):
            found[f"named {name} {method}"] = partial(named, scene, method, folder)
    found["guard foreign"] = partial(guard, known["foreign"], folder)
    found["orders foreign"] = partial(orders, known["foreign"], folder)
    for name in ("foreign", "ours"):
        for method in ("sac-jc", "sac", "unit-match"):
            found[f"rate {name} {method}"] = partial(rate, known[name], method, folder)
    for name, scene in known.items():
        found[f"named {name} ipguard"] = partial(named, scene, "ipguard", folder)
    for method in MARKS:
        found[f"marked ours {method}"] = partial(marked, known["ours"], method, folder)
        found[f"forged ours {method}"] = partial(forged, known["ours"], method, folder)
    for method in ("infip", "cae"):
        found[f"named foreign {method}"] = partial(named, known["foreign"], method, folder)
    for method in ("sac-jc", "unit-order"):
        found[f"named photographs {method}"] = partial(_on_photographs, method, folder)
    for method, (_, _, count) in CASES.items():
        for m in (19, 39, 59):
            for first in range(0, count, CHUNK):
                found[f"simulation {method} {m} {first}"] = partial(simulate, method, m, first=first, repetitions=CHUNK)
    return found


def _on_photographs(method: str, folder: Path) -> dict[str, Any]:
    """Return the rows of the owner on CIFAR-10."""
    return named(photographs(), method, folder)


def main(folder: Path, wanted: list[str]) -> None:
    """Do the parts whose names begin with one of ``wanted``, or all."""
    torch.set_num_threads(1)
    for name, make in parts(folder).items():
        if not wanted or any(name.startswith(one) for one in wanted):
            kept(folder, name, make)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
