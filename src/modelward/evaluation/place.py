"""Where cells run: which engine, which cluster, which device. The doors say it once; no result is a different question for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from modelward.core.errors import UsageError

ENGINES = ("process", "ray")


@dataclass(frozen=True)
class Place:
    """Where the cells of a run are computed.

    Parameters
    ----------
    engine
        ``"process"``: worker processes of this machine; ``"ray"``: workers of a Ray cluster.
    address
        ``HOST:PORT`` of a running Ray cluster; ``None`` starts one on this machine for the time of the run.
    device
        torch device that models and batches are moved to, as in ``"cuda:1"``; results come back to the CPU. It is part of a cell's key.

    Raises
    ------
    UsageError
        for an unknown engine, an address that is none, or one without the engine that needs it.

    Examples
    --------
    >>> Place("ray", "10.0.0.1:6379").address
    '10.0.0.1:6379'
    >>> Place(address="10.0.0.1:6379")
    Traceback (most recent call last):
    ...
    modelward.core.errors.UsageError: --ray-address goes with --engine ray
    """

    engine: str = "process"
    address: str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            message = f"--engine is {' or '.join(ENGINES)}, not {self.engine!r}"
            raise UsageError(message)
        if self.address is None:
            return
        if self.engine != "ray":
            raise UsageError("--ray-address goes with --engine ray")
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            message = f"--ray-address takes HOST:PORT, as in 10.0.0.1:6379, not {self.address!r}"
            raise UsageError(message)


_USUAL = Place()
_place: ContextVar[Place] = ContextVar("modelward_place", default=_USUAL)


def here() -> Place:
    """Return the place that holds now.

    >>> here()
    Place(engine='process', address=None, device='cpu')
    """
    return _place.get()


@contextlib.contextmanager
def placed(place: Place) -> Iterator[None]:
    """Run the cells of this block at ``place``.

    >>> with placed(Place("ray")):
    ...     here().engine
    'ray'
    """
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)
