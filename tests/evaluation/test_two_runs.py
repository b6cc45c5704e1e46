"""Two runs on one store at once: both are right, and the store holds each cell once."""

import os
import subprocess
import sys
from pathlib import Path

from toy_driver import plan

from modelward.core.canonical import canonical_json
from modelward.evaluation.engine import Engine, closure
from modelward.evaluation.store import Store

HERE = Path(__file__).parent


def test_two_runs_on_one_store_at_once_are_both_right(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(HERE), "TOY_LOG": str(tmp_path / "log"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "toy_driver.py"), str(tmp_path / "store")]
    runs = [subprocess.Popen([*command, jobs], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for jobs in ("1", "2", "1")]
    ended = [(*run.communicate(timeout=60), run.returncode) for run in runs]
    assert [(err, code) for _, err, code in ended] == [(b"", 0)] * 3
    cells = closure(plan())
    shared, alone = Store(tmp_path / "store"), Store(tmp_path / "alone")
    reference = Engine(alone, jobs=1).run(cells)
    found = shared.find_many(cell.key for cell in cells)
    assert shared.count() == len(cells)
    for cell in cells:
        assert canonical_json(found[cell.key].rows) == canonical_json(reference.of(cell).rows)
        assert found[cell.key].artifact == reference.of(cell).artifact
        if found[cell.key].artifact:
            shared.get(found[cell.key].artifact)  # whole, by its digest
    assert not list((tmp_path / "store").rglob("*.tmp"))
