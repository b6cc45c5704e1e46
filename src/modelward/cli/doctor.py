"""What can be wrong with an installation: one check a line, each with its fix."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from modelward._version import __version__
from modelward.core.errors import ModelwardError

PACKAGES = ("numpy", "scipy", "pillow", "safetensors", "sqlalchemy", "pyrage", "cryptography", "jinja2", "rich", "typer")
TORCH = "2.13"
MEMORY_NEEDED = 1.5 * 2**30
DISK_NEEDED = 2**30
DISK_LEAST = 2**26


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, ``ok``, ``warn`` or ``fail``, what was found, and how to mend it."""

    name: str
    status: str
    text: str
    fix: str = ""


def checks() -> Iterator[Check]:
    """Yield every check; one that breaks is reported as failed and does not stop the others."""
    looks: tuple[tuple[str, Callable[[], Iterator[Check]]], ...] = (
        ("python", _python), ("packages", _packages), ("torch", _torch), ("processor", _processor), ("foreign packages", _foreign),
        ("memory", _memory), ("store", _store), ("data", _data), ("sandbox", _sandbox),
    )  # fmt: skip
    for name, look in looks:
        try:
            yield from look()
        except ModelwardError as error:
            yield Check(name, "fail", str(error))
        except Exception as error:  # noqa: BLE001  # a doctor reports whatever is broken
            yield Check(name, "fail", f"{type(error).__name__}: {error}", "install modelward into a fresh environment")


def _python() -> Iterator[Check]:
    """Look at the interpreter and the platform."""
    tested = sys.platform == "linux"
    text = f"modelward {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield Check("python", "ok" if tested else "warn", text, "" if tested else "only Linux is tested: report what fails")


def _packages() -> Iterator[Check]:
    """Look at what modelward needs."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            yield Check("packages", "fail", f"{name} is not installed", f"python -m pip install {name}")
    yield Check("packages", "ok", ", ".join(f"{name} {number}" for name, number in found.items()))


def _torch() -> Iterator[Check]:
    """Look at torch's version and build."""
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    right = torch.__version__.startswith(f"{TORCH}.")
    yield Check(
        "torch",
        "ok" if right else "warn",
        f"{torch.__version__}, {build} build",
        "" if right else f'python -m pip install "torch=={TORCH}.*"',
    )


def _processor() -> Iterator[Check]:
    """Look at instruction sets and threads."""
    import torch

    from modelward.core.devices import bf16_is_native

    bf16 = bf16_is_native()
    capability = torch.backends.cpu.get_cpu_capability()
    yield Check(
        "processor",
        "ok",
        f"{capability}, bf16 {'native: training uses it' if bf16 else 'not native: training in fp32, which is faster here'}",
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    crowded = threads > cores
    yield Check(
        "threads",
        "warn" if crowded else "ok",
        f"{cores} cores, torch threads by default: {threads}",
        "export OMP_NUM_THREADS=1" if crowded else "",
    )


def _foreign() -> Iterator[Check]:
    """Look for packages that break torch here or fill the disk."""
    import torch

    names = sorted({(found.metadata["Name"] or "").lower() for found in distributions()})
    nvidia = [name for name in names if name.startswith("nvidia-")]
    if "torchvision" in names:
        yield Check(
            "foreign packages", "warn", "torchvision is installed: some of its builds break torch", "python -m pip uninstall torchvision"
        )
    if nvidia and not torch.version.cuda:
        yield Check("foreign packages", "warn", f"{len(nvidia)} nvidia-* packages beside a CPU torch", "make the environment anew")
    if "torchvision" not in names and (not nvidia or torch.version.cuda):
        yield Check("foreign packages", "ok", "no torchvision" + ("" if nvidia else ", no nvidia-* packages"))


def _memory() -> Iterator[Check]:
    """Look at the memory that can still be had."""
    free = available_memory()
    if free is None:
        yield Check("memory", "ok", "not measured on this platform")
        return
    enough = free >= MEMORY_NEEDED
    text = f"{free / 2**30:.1f} GiB available"
    yield Check(
        "memory", "ok" if enough else "warn", text, "" if enough else "an audit takes up to 1.5 GiB: close something, or pass --jobs 1"
    )


def available_memory() -> int | None:
    """Return the bytes of memory that can be had without swapping, where the kernel tells."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _store() -> Iterator[Check]:
    """Look at the store's folder, its disk and its database."""
    from modelward.evaluation.store import Store

    store = Store()
    yield Check("store", "ok", f"{store.folder} is writable, {store.count()} finished cells")
    free = shutil.disk_usage(store.folder).free
    state = "ok" if free >= DISK_NEEDED else "warn" if free >= DISK_LEAST else "fail"
    fix = "" if state == "ok" else "free some space, `modelward store clear`, or set MODELWARD_HOME to another disk"
    yield Check("disk", state, f"{free / 2**30:.1f} GiB free for the store", fix)
    yield _journal(store.folder / "cells.sqlite")


def _journal(path: Path) -> Check:
    """Look at how the database guards itself against a crash."""
    connection = sqlite3.connect(path)
    try:
        mode = str(connection.execute("PRAGMA journal_mode").fetchone()[0])
    finally:
        connection.close()
    durable = mode == "delete"
    fix = "" if durable else "close every program that uses the store, then: modelward store list"
    return Check("sqlite", "ok" if durable else "warn", f"{sqlite3.sqlite_version}, journal mode {mode}", fix)


def _data() -> Iterator[Check]:
    """Look for the image sets that have a name."""
    from modelward.data import list_data

    infos = list_data()
    here = [info.name for info in infos if info.present]
    absent = [info.name for info in infos if not info.present]
    fix = "put NAME.zip or the folder NAME into a folder and set MODELWARD_DATA to it" if absent else ""
    yield Check("data", "ok", "here: " + ", ".join(here) + (f"; absent: {', '.join(absent)}" if absent else ""), fix)


def _sandbox() -> Iterator[Check]:
    """Look at the limits a child process can be given when it opens a legacy file."""
    try:
        import resource
    except ImportError:
        yield Check("sandbox", "warn", "this platform sets no limits on child processes", "run `modelward convert` only on files you trust")
        return
    limited = (
        all(hasattr(resource, name) for name in ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE")) and sys.platform == "linux"
    )
    text = "child processes get limits on memory, time and files" if limited else "some limits on child processes are missing"
    yield Check("sandbox", "ok" if limited else "warn", text, "" if limited else "run `modelward convert` only on files you trust")
