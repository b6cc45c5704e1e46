"""The child processes of modelward, forked from one that has loaded the libraries: the same code under the same limits, without the start of an interpreter."""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock


def _child(main: Callable[..., int], arguments: list[str], folder: Path, out: int) -> None:
    """Run ``main`` as the real child would; never returns."""
    code = 1
    try:
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.setpgrp()
        os.chdir(folder)
        sys.stdout = os.fdopen(out, "w", encoding="utf-8", errors="replace")
        code = main(*arguments)
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001  # what escapes is exit 1, as from an interpreter
        code = 1
    finally:
        os._exit(code)


def forked(command: list[str], *, timeout: float, cwd: Path, **_: Any) -> subprocess.CompletedProcess[bytes]:
    """Stand in for `subprocess.run` of ``python -I -m MODULE ARGUMENTS``."""
    module = importlib.import_module(command[3])
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(read)
        _child(module.main, command[4:], Path(cwd), write)
    os.close(write)
    said, late = b"", time.monotonic() + timeout
    try:
        while select.select([read], [], [], max(0.0, late - time.monotonic()))[0]:
            piece = os.read(read, 65_536)
            if not piece:
                break
            said += piece
        else:
            raise subprocess.TimeoutExpired(command, timeout)  # noqa: TRY301
    except BaseException:  # the campaign's own timer among them
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(read)
    return subprocess.CompletedProcess(command, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said, b"")


@contextlib.contextmanager
def forking(parent: Any) -> Iterator[None]:
    """Let module ``parent`` fork its children instead of starting them."""
    stand_in = SimpleNamespace(run=forked, TimeoutExpired=subprocess.TimeoutExpired)
    with mock.patch.object(parent, "subprocess", stand_in):
        yield
