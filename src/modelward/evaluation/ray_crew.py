"""Workers of a Ray cluster. Machines share no disk: arrays travel as objects, and only the driver writes the store."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modelward.core import consent
from modelward.core.canonical import canonical_json
from modelward.core.errors import ModelwardError, UnavailableError
from modelward.evaluation import crew as crews
from modelward.evaluation.cell import Cell, Job, Outcome
from modelward.evaluation.code import code_digest
from modelward.evaluation.crew import Done, Result, die_with, died, execute, explained
from modelward.evaluation.place import Place
from modelward.evaluation.ray_cluster import ray
from modelward.evaluation.store import Store


@dataclass(frozen=True)
class Sent:
    """What a worker sends back: rows as JSON, the bytes of the artefact, seconds; or why there is none."""

    rows: bytes = b"[]"
    data: bytes | None = None
    seconds: float = 0.0
    failure: str | None = None


class Worker:
    """One worker: keeps the arrays it was sent in a folder of its own, and computes cells from them.

    Parameters
    ----------
    named
        the functions that the user named.
    parent
        where the folder is made; ``None`` is the machine's place for temporary files.
    watched
        the process ends when its machine's Ray does.
    """

    def __init__(self, named: tuple[str, ...], parent: str | None, *, watched: bool = True) -> None:
        consent.give(named)
        if watched:
            die_with(os.getppid())
        self.folder = tempfile.mkdtemp(prefix="modelward-", dir=parent)
        self.store = Store(self.folder)

    def compute(self, work: str, code: tuple[tuple[str, ...], str], job: Job, sent: Mapping[str, Sequence[Any]]) -> Sent:
        """Compute one cell.

        Parameters
        ----------
        code
            modules, and the digest that they have at the driver: other code would make other results under the same key.
        sent
            by digest: the reference of an artefact, in a list so that it is fetched only when it is not here yet.
        """
        try:
            self._check(*code)
            for digest, (reference,) in sent.items():
                if not self.store.path(digest).exists():
                    self.store.take(ray().get(reference))
            outcome, made, seconds = execute(work, replace(job, store=self.folder))
            data = self.store.path(made).read_bytes() if made else None
            return Sent(canonical_json(outcome.rows), data, seconds)
        except Exception as error:  # noqa: BLE001  # sent in words: the driver may not be able to read the exception
            return Sent(failure=explained(work, error))

    def leave(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check(self, modules: tuple[str, ...], digest: str) -> None:
        """Refuse to compute with other code than the driver has."""
        if code_digest(*modules) != digest:
            message = (
                f"a worker of the cluster has another version of {modules[0]} than this machine; install the same modelward everywhere"
            )
            raise ModelwardError(message)


class RayCrew:
    """Actors of the cluster that this process has joined. One that dies is replaced, and its cell gets a second chance.

    Parameters
    ----------
    store
        of the driver: inputs are read from it, results written to it.
    cells
        what is to be done.
    workers
        how many; ``None`` takes as many as the cluster has room for.
    place
        says the device: on an accelerator every worker gets one of its own.
    folder
        where workers make their folders; ``None`` is each machine's place for temporary files.

    Raises
    ------
    UnavailableError
        when the cluster has no accelerator and one was asked for.
    """

    def __init__(self, store: Store, cells: Sequence[Cell], workers: int | None, place: Place, folder: str | None = None) -> None:
        self.folder, self.store, self.threads, self.gpu = folder, store, max(cell.threads for cell in cells), place.device != "cpu"
        room = self._room()
        self.size = max(1, min(len(cells), workers or room, room if self.gpu else len(cells)))
        self.idle = [self._hire() for _ in range(self.size)]
        self.running: dict[Any, tuple[Cell, Job, Any, bool]] = {}
        self.objects: dict[str, Any] = {}
        self.deaths = 0

    def _room(self) -> int:
        """Return how many workers the cluster has room for."""
        resources = ray().cluster_resources()
        if self.gpu and not resources.get("GPU"):
            raise UnavailableError("no machine of the cluster has a CUDA device; leave --device out to work on the CPU")
        return int(resources["GPU"] if self.gpu else resources.get("CPU", 1) // self.threads)

    def _hire(self) -> Any:
        """Start a worker."""
        options = {"num_cpus": self.threads, "num_gpus": int(self.gpu), "max_restarts": 0, "max_task_retries": 0}
        return ray().remote(**options)(Worker).remote(consent.given(), self.folder)

    @property
    def busy(self) -> int:
        """How many cells are being computed."""
        return len(self.running)

    @property
    def free(self) -> int:
        """How many more can be started now."""
        return len(self.idle)

    def start(self, cell: Cell, job: Job) -> None:
        """Begin a cell on a free worker."""
        self._send(cell, job, self.idle.pop(), again=False)

    def _send(self, cell: Cell, job: Job, worker: Any, *, again: bool) -> None:
        """Send a cell to ``worker`` with references of its inputs."""
        sent = {digest: [self._object(digest)] for digest in sorted({*job.inputs.values()} - {""})}
        modules = (cell.work.partition(":")[0], *cell.uses)
        task = worker.compute.remote(cell.work, (modules, cell.code), job, sent)
        self.running[task] = (cell, job, worker, again)

    def _object(self, digest: str) -> Any:
        """Return the reference of an artefact, put into the cluster once."""
        if digest not in self.objects:
            self.objects[digest] = ray().put(self.store.path(digest).read_bytes())
        return self.objects[digest]

    def finished(self, timeout: float) -> list[tuple[Cell, Result]]:
        """Return the cells that ended, waiting up to ``timeout`` seconds for the first."""
        if not self.running:
            return []
        ray().wait([*self.running], num_returns=1, timeout=timeout, fetch_local=False)
        done, _ = ray().wait([*self.running], num_returns=len(self.running), timeout=0, fetch_local=False)
        ended = [self._end(task) for task in done]
        return [pair for pair in ended if pair is not None]

    def _end(self, task: Any) -> tuple[Cell, Result] | None:
        """Return an ended cell with its result; ``None`` when its worker died for the first time."""
        cell, job, worker, again = self.running.pop(task)
        try:
            sent = ray().get(task)
        except ray().exceptions.RayError:
            self.deaths += 1
            if self.deaths == crews.DEATHS:
                raise crews.give_up() from None
            worker = self._hire()
            if not again:
                self._send(cell, job, worker, again=True)
                return None
            self.idle.append(worker)
            return cell, died
        self.idle.append(worker)
        return cell, lambda: self._received(sent)

    def _received(self, sent: Sent) -> Done:
        """Write what a worker sent into the store."""
        if sent.failure is not None:
            raise ModelwardError(sent.failure)
        digest = self.store.take(sent.data) if sent.data is not None else None
        return Outcome(json.loads(sent.rows)), digest, sent.seconds

    def close(self) -> None:
        """Let the workers remove their folders, as far as they are idle, and end them all."""
        leaving = [worker.leave.remote() for worker in self.idle]
        if leaving:
            ray().wait(leaving, num_returns=len(leaving), timeout=5.0)
        for worker in [*self.idle, *(entry[2] for entry in self.running.values())]:
            ray().kill(worker)
