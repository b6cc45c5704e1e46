"""Joining a Ray cluster, or starting one on this machine for the time of a run: quiet, private, reporting to nobody."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelward.core.errors import ModelwardError, UnavailableError
from modelward.io.tokens import fresh_token

OBJECT_BYTES = 2**30
CONNECT_SECONDS, HEALTH_SECONDS = 4.0, 14.0


def ray() -> Any:
    """Return the package; raises `UnavailableError` with the install command when it is absent."""
    if importlib.util.find_spec("ray") is None:
        raise UnavailableError("the Ray engine needs one more package; install it with: pip install 'modelward[cluster]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("ray")


@contextlib.contextmanager
def joined(address: str | None, workers: int | None) -> Iterator[str | None]:
    """Belong to a cluster inside the block; one that the caller has joined already is used as it is.

    Yields the folder of a cluster that was started here, which goes with it, else ``None``.

    Parameters
    ----------
    address
        ``HOST:PORT`` of a cluster that this machine belongs to; ``None`` starts one here.
    workers
        how many cores a cluster that is started here has.

    Raises
    ------
    UnavailableError
        when Ray is not installed.
    ModelwardError
        when nothing answers at ``address``.
    """
    with _environment(local=address is None):
        package = ray()
        if package.is_initialized():
            yield None
            return
        if address is not None:
            _require_answer(address)
        folder = None if address else tempfile.mkdtemp(prefix="mw-")  # short: sockets lie in it
        own = {"num_cpus": workers, "include_dashboard": False, "_temp_dir": folder, "object_store_memory": OBJECT_BYTES}
        try:
            _start(package, {"address": address} if address else own)
            yield folder
        finally:
            package.shutdown()
            if folder:
                shutil.rmtree(folder, ignore_errors=True)


def _start(package: Any, options: dict[str, Any]) -> None:
    """Start or join, without a word."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            package.init(log_to_driver=False, logging_level="ERROR", **options)
        except (RuntimeError, ConnectionError, ValueError, OSError, package.exceptions.RayError) as error:
            where = f"the Ray cluster at {options['address']} cannot be joined" if "address" in options else "Ray cannot be started here"
            message = f"{where}: {' '.join(str(error).split())[:200]}"
            raise ModelwardError(message) from error
    with contextlib.suppress(AttributeError):  # a dead worker is reported by the engine, in one sentence
        package._private.worker.global_worker_stdstream_dispatcher.remove_handler("ray_print_logs")  # noqa: SLF001


def _require_answer(address: str) -> None:
    """Raise `ModelwardError` unless a Ray cluster answers; Ray's own attempts take minutes."""
    message = f"no Ray cluster answers at {address}; start one with `ray start --head --port 6379` and pass its HOST:PORT"
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
        command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
        done = subprocess.run(command, capture_output=True, timeout=HEALTH_SECONDS, check=False)  # noqa: S603  # our own arguments
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelwardError(message) from error
    if done.returncode:
        raise ModelwardError(message)


@functools.cache
def _token() -> str:
    """Return the token of all clusters that this process starts: Ray reads it once."""
    return fresh_token()


@contextlib.contextmanager
def _environment(*, local: bool) -> Iterator[None]:
    """Set what Ray and the workers it starts here read from the environment, and put it back.

    A local cluster is closed to other users of the machine by a token of its own, which is written nowhere; its workers find modules where
    this process finds them.
    """
    wanted = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if local:
        wanted["PYTHONPATH"] = os.pathsep.join(place or str(Path.cwd()) for place in sys.path)
        if "RAY_AUTH_MODE" not in os.environ:
            wanted["RAY_AUTH_TOKEN"] = _token()
    kept = {name: os.environ.get(name) for name in (*wanted, "RAY_AUTH_MODE")}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
