"""``python -m tests.truth FOLDER [PART ...]``: do the parts that are not done yet; ``python -m tests.truth.train FOLDER`` trains the models first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tests.truth.datasets import NETS, taught, variants
from tests.truth.judging import guard, kept, named, rate, starts, together
from tests.truth.marking import MARKS, forged, marked
from tests.truth.orders import orders
from tests.truth.simulation import CASES, simulate
from tests.truth.worlds import Scene, photographs, scenes

CHUNK = 500


Part = Callable[[], dict[str, Any]]


def _fingerprints(known: dict[str, Scene], folder: Path) -> Iterator[tuple[str, Part]]:
    """Yield what fingerprints and weight tests say of the named owners, and what all owners of a recipe get."""
    for name, scene in known.items():
        for method in ("sac-jc", "sac", "unit-order", "unit-match", *(["weight-distance"] if scene.start == "base" else [])):
            yield f"named {name} {method}", partial(named, scene, method, folder)
    yield "guard foreign", partial(guard, known["foreign"], folder)
    yield "starts base", partial(starts, known["base"], known["foreign"], folder)
    yield "together foreign", partial(together, known["foreign"], folder)
    yield "orders foreign", partial(orders, known["foreign"], folder)
    for name in ("foreign", "ours"):
        for method in ("sac-jc", "sac", "unit-match"):
            yield f"rate {name} {method}", partial(rate, known[name], method, folder)
    for name, scene in known.items():
        yield f"named {name} ipguard", partial(named, scene, "ipguard", folder)
    for method in ("infip", "cae"):
        yield f"named foreign {method}", partial(named, known["foreign"], method, folder)
    for method in ("sac-jc", "unit-order"):
        yield f"named photographs {method}", partial(_on_photographs, method, folder)


def _marks(scene: Scene, folder: Path) -> Iterator[tuple[str, Part]]:
    """Yield what marks say, and what forgers get."""
    for method in MARKS:
        yield f"marked ours {method}", partial(marked, scene, method, folder)
        yield f"forged ours {method}", partial(forged, scene, method, folder)


def _simulations() -> Iterator[tuple[str, Part]]:
    """Yield the simulations in chunks, so that they can be stopped."""
    for method, (_, _, count) in CASES.items():
        for m in (19, 39, 59):
            for first in range(0, count, CHUNK):
                yield f"simulation {method} {m} {first}", partial(simulate, method, m, first=first, repetitions=CHUNK)


def _sets() -> Iterator[tuple[str, Part]]:
    """Yield what nets of others learn from a locked set."""
    for variant in variants():
        for net in NETS:
            yield f"taught {variant} {net}", partial(taught, variant, net)


def parts(folder: Path) -> dict[str, Part]:
    """Return all parts by name, in the order in which they are done."""
    known = scenes(folder)
    return {**dict(_fingerprints(known, folder)), **dict(_marks(known["ours"], folder)), **dict(_sets()), **dict(_simulations())}


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
