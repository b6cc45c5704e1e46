"""Toy cells for the tests of the engine: numpy only, so that a worker starts in a fraction of a second.

Every work function appends its name to ``$TOY_LOG`` when it has finished computing, which is how a test counts
how often a cell was really computed. The log is no setting, so that equal plans have equal keys in every folder.
"""

import os
import signal
import time

import numpy as np

from modelward.core.errors import InputError
from modelward.evaluation.cell import Cell, Outcome
from modelward.evaluation.store import Store


def note(name):
    log = os.environ.get("TOY_LOG")
    if log:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(handle, f"{name}\n".encode())
        os.close(handle)


def add(job):
    """Sum the arrays of the inputs and seeded noise; keep the sum."""
    time.sleep(job.settings.get("ms", 0) / 1000)
    total = np.random.default_rng(job.seed).normal(size=8)
    store = Store(job.store)
    for name in sorted(job.inputs):
        total = total + store.get(job.inputs[name])[0]["total"]
    note(job.settings["name"])
    return Outcome([{"metric": job.settings["name"], "value": float(total.sum()), "n": len(job.inputs)}], {"total": total})


def figure(job):
    """Return rows alone, no array."""
    time.sleep(job.settings.get("ms", 0) / 1000)
    note(job.settings["name"])
    return Outcome([{"metric": job.settings["name"], "value": job.seed / 7, "seed": job.seed, "threads": job.threads}])


def refuse(job):
    """Fail as a method does on purpose."""
    note(job.settings["name"])
    message = f"{job.settings['name']} was refused"
    raise InputError(message)


def crash(job):
    """Fail as a fault in a method does."""
    note(job.settings["name"])
    return 1 // job.settings["zero"]


def lasting(job):
    """Take longer than any test waits, so that it can only be interrupted."""
    note(f"{job.settings['name']} began")
    time.sleep(600)
    note(job.settings["name"])
    return Outcome()


def die(job):
    """End the process at once, as the out-of-memory killer does."""
    note(job.settings["name"])
    if job.settings.get("kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(3)


def unpicklable(job):
    """Return rows that no process can send."""
    note(job.settings["name"])
    return Outcome([{"value": lambda: job}])


def no_json(job):
    """Return rows that are no JSON."""
    note(job.settings["name"])
    return Outcome([{"value": object()}])


def cell(function, name, *, seed=0, needs=(), seconds=1.0, **rest):
    """Return the cell called ``name``; ``needs`` are the cells whose arrays it reads."""
    inputs = {f"in{index}": need for index, need in enumerate(needs)}
    settings = {"name": name, **rest}
    return Cell(f"toy_work:{function}", settings, inputs, seed=seed, label=name, seconds=seconds)


def layered(width, depth, *, ms):
    """Return a plan of ``width * depth`` cells with arrays, each layer reading two of the one below, and ``depth`` cells of rows alone."""
    cells, below = [], []
    for layer in range(depth):
        here = []
        for column in range(width):
            needs = [below[column], below[(column + 1) % width]] if below else []
            made = cell("add", f"add {layer}.{column}", seed=layer * width + column, needs=needs, ms=ms + 7 * column)
            here.append(made)
        cells += here
        cells.append(cell("figure", f"figure {layer}", seed=layer, ms=ms))
        below = here
    return cells
