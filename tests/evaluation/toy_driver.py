"""Run the layered plan on a store in a process of its own, to be killed: ``toy_driver.py STORE JOBS [POINT NTH DELAY_US]``.

With a POINT the process group kills itself at the NTH time that point of a commit is reached, DELAY_US microseconds after it.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from sqlalchemy import event
from toy_work import cell, layered

from modelward.evaluation.engine import Engine
from modelward.evaluation.place import Place
from modelward.evaluation.store import Store

WIDTH, DEPTH, MILLISECONDS = 4, 3, 12


def plan():
    return layered(WIDTH, DEPTH, ms=MILLISECONDS)


class Trap:
    """Kills the group when ``point`` is reached for the ``nth`` time."""

    def __init__(self, point, nth, delay_us):
        self.point, self.left, self.delay_us = point, nth, delay_us

    def reached(self, point):
        if point != self.point:
            return
        self.left -= 1
        if self.left == 0:
            if self.delay_us:
                threading.Thread(target=self.strike, daemon=True).start()
            else:
                self.strike()

    def strike(self):
        if self.delay_us:
            time.sleep(self.delay_us / 1e6)
        os.killpg(0, signal.SIGKILL)

    def set(self, store):
        """Listen to the transactions of ``store`` and to the renames of its files."""
        event.listen(store._engine, "before_cursor_execute", lambda *call: self.reached(f"before {call[2].split()[0].lower()}"))
        event.listen(store._engine, "after_cursor_execute", lambda *call: self.reached(f"after {call[2].split()[0].lower()}"))
        event.listen(store._engine, "commit", lambda _: self.reached("commit"))
        finish, replace = store.finish, Path.replace

        def finish_and_die(*values):
            self.reached("computed")
            done = finish(*values)
            self.reached("finished")
            return done

        def replace_and_die(path, target):
            self.reached("before rename")
            moved = replace(path, target)
            self.reached("after rename")
            return moved

        store.finish, Path.replace = finish_and_die, replace_and_die


def main(folder, jobs, point="", nth="1", delay_us="0"):
    store = Store(folder)
    if point:
        Trap(point, int(nth), int(delay_us)).set(store)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    cells = plan()
    if os.environ.get("TOY_LASTING"):
        cells += [cell("lasting", f"lasting {index}", needs=cells) for index in range(2)]
    try:
        run = Engine(store, jobs=int(jobs), place=Place(os.environ.get("TOY_ENGINE", "process"))).run(cells)
    except KeyboardInterrupt:
        return 130
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
