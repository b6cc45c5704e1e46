"""A script as people write them, without an ``if __name__`` guard: ``toy_script.py STORE``. Collected by nobody: it runs when imported."""

import sys

from toy_work import cell

from modelward.evaluation.engine import Engine
from modelward.evaluation.store import Store

if len(sys.argv) == 2 and sys.argv[0].endswith("toy_script.py"):  # pytest imports every module for its doctests
    run = Engine(Store(sys.argv[1]), jobs=2).run([cell("add", f"add {index}", seed=index) for index in range(4)])
    sys.exit(0 if len(run.finished) == 4 and not run.failed else 1)
