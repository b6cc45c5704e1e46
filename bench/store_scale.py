"""Write, query and list many finished cells, and measure time and memory: ``python bench/store_scale.py --rows 100000``.

Every cell is committed by itself, as a run does it, unless ``--batch`` says how many share a transaction.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from modelward.evaluation.cell import Cell, Outcome
from modelward.evaluation.store import Store


def cells(count: int) -> Iterator[Cell]:
    """Return cells of one attack with a number each."""
    return (Cell("modelward.evaluation.rows:Row", {"method": "pgd", "eps": 8 / 255, "part": index}, seed=index, label=f"cell {index}")
            for index in range(count))  # fmt: skip


def outcome(index: int) -> Outcome:
    """Return a row as an attack makes it."""
    return Outcome([{"metric": "accuracy", "value": index % 97 / 97, "n": 500, "ci_low": 0.1, "ci_high": 0.9, "attack": "pgd", "seed": index,
                     "budget": "linf 8/255", "data": "fashion-mini", "flags": [], "extra": {"eps": 8 / 255, "norm": "linf"}}])  # fmt: skip


def measure(folder: str, count: int, batch: int) -> dict[str, float]:
    """Return seconds of writing, finding, listing and adding up, and the peak memory of this process."""
    store, times = Store(folder), {}
    made = list(cells(count))
    started = time.perf_counter()
    for first in range(0, count, batch):
        store.finish_many([(cell, outcome(first + i), None, 0.1) for i, cell in enumerate(made[first : first + batch])])
    times["write"] = time.perf_counter() - started
    started = time.perf_counter()
    found = store.find_many(cell.key for cell in made)
    times["query"] = time.perf_counter() - started
    assert len(found) == count  # noqa: S101
    started = time.perf_counter()
    total = sum(row["value"] for done in found.values() for row in done.rows)
    text = json.dumps([done.rows for done in found.values()])
    times["report"] = time.perf_counter() - started
    started = time.perf_counter()
    listed = sum(1 for _ in store.listing())
    times["list"] = time.perf_counter() - started
    assert listed == count  # noqa: S101
    facts = {"mean": total / count, "report_bytes": float(len(text))}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) / 2**20
    return {**times, "total": sum(times.values()), "peak_mib": memory, "disk_mib": size, **facts}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(folder, options.rows, options.batch)
    for name, value in found.items():
        sys.stdout.write(f"{name:14} {value:14.3f}\n")
    if options.out:
        options.out.write_text(json.dumps({"rows": options.rows, "batch": options.batch, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
