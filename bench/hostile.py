"""Alter files of every format that modelward reads, and see that each is refused in one sentence, or read: never a traceback, never a hang.

``hostile.py --count 20000 --seed N [--format NAME] [--only CASE] [--out FILE.json]``. A case is made from (seed, format, number) alone, so that
``--format NAME --only NUMBER`` makes it again. Each format has a process of its own with bounded memory.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import mmap
import os
import platform
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hostile_formats import Format, formats
from hostile_judge import COUNTS, FAILURES, late, memory, work

SPARE = 3 * 2**30
STUCK = 90.0
BROKEN = 99


def shares(found: Mapping[str, Format], count: int) -> dict[str, int]:
    """Return how many cases each format gets, about ``count`` in all; what a slow one does not take goes to the others."""
    whole = sum(made.share for made in found.values())
    plan = {name: min(made.most, max(1, round(count * made.share / whole))) for name, made in found.items()}
    free = [name for name, made in found.items() if plan[name] < made.most]
    left, weight = max(0, count - sum(plan.values())), sum(found[name].share for name in free)
    return {name: cases + (math.ceil(left * found[name].share / weight) if name in free else 0) for name, cases in plan.items()}


def _forked(made: Format, name: str, numbers: range, seed: int, answer: Path, mark: mmap.mmap) -> None:
    """Be the process of one format: bound its memory, run its cases, leave the counts in a file; never returns."""
    try:
        limit = memory("VmSize") * 2**10 + SPARE
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
        signal.signal(signal.SIGALRM, late)
        answer.write_text(json.dumps(work(made, name, numbers, seed, mark)), encoding="utf-8")
    except BaseException:  # noqa: BLE001  # nothing may run on in a fork
        traceback.print_exc()
        os._exit(BROKEN)
    os._exit(0)


def _watched(made: Format, name: str, numbers: range, seed: int, room: Path) -> dict[str, Any]:
    """Run cases in a process of its own until they are done, or one of them ends it."""
    mark, answer = mmap.mmap(-1, 8), room / "answer.json"
    mark[:8] = struct.pack("<Q", numbers.start)
    answer.unlink(missing_ok=True)
    pid = os.fork()
    if not pid:
        _forked(made, name, numbers, seed, answer, mark)
    seen, since, outcome, status = -1, time.monotonic(), "crashes", 0
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        at = struct.unpack("<Q", mark[:8])[0]
        seen, since = (at, time.monotonic()) if at != seen else (seen, since)
        if time.monotonic() - since > STUCK + made.seconds:
            os.kill(pid, signal.SIGKILL)
            outcome = "hangs"
        time.sleep(0.02)
    if answer.exists():
        return dict(json.loads(answer.read_text(encoding="utf-8")))
    if os.waitstatus_to_exitcode(status) == BROKEN:
        message = f"the campaign itself failed at {name!r}"
        raise RuntimeError(message)
    at = struct.unpack("<Q", mark[:8])[0]
    failure = {"format": name, "case": at, "outcome": outcome, "note": f"the process ended with {os.waitstatus_to_exitcode(status)}"}
    lost = dict.fromkeys(COUNTS, 0) | {"seconds": 0.0, "peak_mib": 0, "covers": made.covers}
    return lost | {"cases": at + 1 - numbers.start, outcome: 1, "failures": [failure]}


def _apart(made: Format, name: str, numbers: range, seed: int, room: Path) -> dict[str, Any]:
    """Run the cases of one format, going on after each that ended its process."""
    found = _watched(made, name, numbers, seed, room)
    while found["cases"] < len(numbers) and len(found["failures"]) < FAILURES:
        found = _sum(found, _watched(made, name, range(numbers.start + found["cases"], numbers.stop), seed, room))
    return found


def _sum(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Add what two runs of one format counted."""
    added = {key: first[key] + second[key] for key in (*COUNTS, "seconds", "failures")}
    return {**second, **added, "peak_mib": max(first["peak_mib"], second["peak_mib"])}


def campaign(
    count: int, seed: int, chosen: str | None = None, only: int | None = None, *, quick: bool = False, patience: float = 1.0
) -> dict[str, dict[str, Any]]:
    """Run ``count`` cases over all formats, or over those whose name begins with ``chosen``; return the counts by format."""
    room = Path(tempfile.mkdtemp(prefix="modelward-hostile-"))
    os.environ["MODELWARD_HOME"] = str(room / "home")
    try:
        found = {name: made for name, made in formats(room).items() if name.startswith(chosen or "") and not (quick and made.slow)}
        found = {name: dataclasses.replace(made, seconds=patience * made.seconds) for name, made in found.items()}
        plan = shares(found, count)
        numbers = {name: range(plan[name]) if only is None else range(only, only + 1) for name in found}
        return {name: _apart(made, name, numbers[name], seed, room) for name, made in found.items()}
    finally:
        shutil.rmtree(room, ignore_errors=True)


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the counts as text."""
    total = {key: sum(row[key] for row in rows.values()) for key in (*COUNTS, "seconds")}
    total |= {"peak_mib": max(row["peak_mib"] for row in rows.values()), "covers": ""}
    head = f"{'format':28}{'cases':>7}{'refused':>9}{'accepted':>9}{'altered':>9}{'traceb.':>9}{'untidy':>8}{'hangs':>7}{'crashes':>8}{'MiB':>6}{'s':>8}"
    lines = [head]
    for name, row in {**rows, "all": total}.items():
        altered = row["altered_accepted"] if row["covers"] or name == "all" else "-"
        lines.append(
            f"{name:28}{row['cases']:7}{row['refused']:9}{row['accepted']:9}{altered:>9}{row['tracebacks']:9}{row['untidy']:8}{row['hangs']:7}"
            f"{row['crashes']:8}{row['peak_mib']:6}{row['seconds']:8.1f}"
        )
    return "\n".join(lines)


def main() -> int:
    """Run the campaign; 1 when a case failed."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--count", type=int, default=20_000)
    options.add_argument("--seed", type=int, required=True)
    options.add_argument("--format", help="only formats whose name begins so")
    options.add_argument("--only", type=int, help="only the case of this number")
    options.add_argument("--quick", action="store_true", help="without the formats whose every case takes a second")
    options.add_argument("--patience", type=float, default=1.0, help="by how much the seconds after which a case is a hang are longer")
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    torch.set_num_threads(1)
    rows = campaign(given.count, given.seed, given.format, given.only, quick=given.quick, patience=given.patience)
    failures = [failure for row in rows.values() for failure in row["failures"]]
    print(table(rows))
    for failure in failures:
        print(failure["outcome"], f"--format {failure['format']!r} --only {failure['case']}:", failure["note"])
    if given.out:
        names = ("modelward", "torch", "numpy", "pillow", "safetensors", "pyrage", "pyyaml", "onnx", "onnxruntime")
        facts = {"seed": given.seed, "count": sum(row["cases"] for row in rows.values()), "python": platform.python_version()}
        facts["versions"] = {name: version(name) for name in names if _installed(name)}
        kept = {
            name: {k: round(v, 2) if isinstance(v, float) else v for k, v in row.items() if k != "failures"} for name, row in rows.items()
        }
        given.out.write_text(json.dumps({**facts, "formats": kept, "failures": failures}, indent=1) + "\n", encoding="utf-8")
    return int(bool(failures))


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except ModuleNotFoundError:
        return False


if __name__ == "__main__":
    sys.exit(main())
