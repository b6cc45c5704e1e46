"""One altered file after another, in this process: what became of each, and what is wrong with it."""

from __future__ import annotations

import hashlib
import mmap
import random
import signal
import struct
import time
import traceback
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from hostile_formats import CONTENT, FILE, Format
from mutations_knowing import mutate

from modelward.core.errors import ModelwardError

FAILURES = 40
SHOWN = 600
COUNTS = ("cases", "refused", "accepted", "altered_accepted", "tracebacks", "untidy", "hangs", "crashes")


class Hang(BaseException):
    """A case took too long; no reader catches this one."""


def late(_signal: int, _frame: FrameType | None) -> None:
    raise Hang


def digest(value: Any) -> str:
    """Return a digest of what a reader returned."""
    if hasattr(value, "tobytes") or isinstance(value, torch.Tensor):
        array = value.numpy() if isinstance(value, torch.Tensor) else value
        return hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()
    if isinstance(value, (tuple, list)):
        return hashlib.sha256("".join(map(digest, value)).encode()).hexdigest()
    return hashlib.sha256(repr(value).encode()).hexdigest()


def untidy(error: ModelwardError) -> str | None:
    """Return what is wrong with a message: it must be one short line that a terminal can show."""
    text = str(error)
    why = "empty" if not text.strip() else "several lines" if len(text.splitlines()) > 1 else None
    return why or ("unprintable characters" if not text.isprintable() else "too long" if len(text) > SHOWN else None)


def judge(made: Format, data: bytes, truth: set[str]) -> tuple[str, str]:
    """Return what became of one case, and a note for those that failed."""
    started = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, made.seconds)
    try:
        value = made.read(made.file)
        outcome, note = "accepted", ""
    except ModelwardError as error:
        outcome, note = "refused", untidy(error) or ""
        if note:
            outcome, note = "untidy", f"{note}: {str(error)[:300]!r}"
    except Hang:
        outcome, note = "hangs", f"stopped after {made.seconds:.0f} s"
    except BaseException as error:  # noqa: BLE001  # the very thing that is looked for
        place = traceback.extract_tb(error.__traceback__)[-1]
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "modelward" in frame.filename]
        where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in (place, *reversed(ours[-3:])))
        outcome, note = "tracebacks", f"{type(error).__name__}: {str(error)[:200]} at {where}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if time.perf_counter() - started > made.seconds:
        outcome, note = "hangs", f"took {time.perf_counter() - started:.1f} s"
    altered = data not in made.seeds and (
        made.covers == FILE or (made.covers == CONTENT and outcome == "accepted" and digest(value) not in truth)
    )
    if outcome == "accepted" and altered:
        outcome, note = "altered_accepted", "an altered file was read"
    return outcome, note


def one(made: Format, name: str, number: int, seed: int) -> bytes:
    """Return the altered file of one case."""
    return mutate(made.seeds, made.donors, made.kind, random.Random(f"{seed} {name} {number}"))  # noqa: S311  # repeatable on purpose


def work(made: Format, name: str, numbers: range, seed: int, mark: mmap.mmap | None = None) -> dict[str, Any]:
    """Run the cases of one format in this process."""
    counts: dict[str, Any] = dict.fromkeys(COUNTS, 0) | {"failures": [], "covers": made.covers}
    made.file.parent.mkdir(parents=True, exist_ok=True)
    truth = set()
    for data in made.seeds:
        made.file.write_bytes(data)
        truth.add(digest(made.read(made.file)) if made.covers == CONTENT else str(made.read(made.file) is None))
    before, started = memory("VmRSS"), time.perf_counter()
    for number in numbers:
        if mark is not None:
            mark[:8] = struct.pack("<Q", number)
        data = one(made, name, number, seed)
        made.file.write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a reader that warns talks past its error
            outcome, note = judge(made, data, truth)
        counts["cases"] += 1
        counts[outcome] += 1
        if note and len(counts["failures"]) < FAILURES:
            counts["failures"].append({"format": name, "case": number, "outcome": outcome, "note": note})
    return counts | {"seconds": time.perf_counter() - started, "peak_mib": max(0, memory("VmHWM") - before) // 2**10}


def memory(field: str) -> int:
    """Return a line of the process's memory in KiB, 0 where the system does not tell."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(field)), 0)
