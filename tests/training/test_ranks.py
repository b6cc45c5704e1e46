"""Two processes under torchrun train the net that one process trains: same loss, same weights, one checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ranks_driver import CASES, run

from modelward.core.errors import UsageError
from modelward.io.safetensors import load_tensors
from modelward.training import together
from modelward.training.ranks import Ranks

HERE = Path(__file__).parent
TOLERANCE = {"bf16": 0.03}


def torchrun(folder: Path, names: list[str], processes: int, *more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += [str(HERE / "ranks_driver.py"), ",".join(names), str(folder), *map(str, more)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train every case in two processes."""
    folder = tmp_path_factory.mktemp("pair")
    torchrun(folder, list(CASES), 2)
    return folder


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_tensors(path)[0]


def assert_close(one: Path, other: Path, tolerance: float) -> None:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.allclose(a[name].double(), b[name].double(), rtol=tolerance, atol=tolerance), name


@pytest.mark.parametrize("name", CASES)
def test_all_processes_end_with_the_same_bits_and_one_writes(pair: Path, name: str) -> None:
    first, second = (json.loads((pair / name / f"done{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert (pair / name / "checkpoint0.safetensors").exists()
    assert not (pair / name / "checkpoint1.safetensors").exists()


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one(pair: Path, tmp_path: Path, name: str) -> None:
    alone = run(name, tmp_path, 0)
    together_ = json.loads((pair / name / "done0.json").read_text())
    tolerance = TOLERANCE.get(name, 1e-4)
    assert len(alone["log"]) == len(together_["log"])
    for (number, loss, score), (number_, loss_, score_) in zip(alone["log"], together_["log"], strict=True):
        assert number == number_
        assert loss_ == pytest.approx(loss, rel=tolerance)
        assert score_ == (pytest.approx(score, abs=0.02) if score is not None else None)
    assert_close(tmp_path / "weights0.safetensors", pair / name / "weights0.safetensors", tolerance)


def test_the_adversary_was_at_work(pair: Path) -> None:
    attacked, clean = (json.loads((pair / name / "done0.json").read_text())["log"] for name in ("adversary", "cnn"))
    assert attacked[0][1] > clean[0][1] * 1.01


@pytest.mark.slow
def test_three_processes_resume_a_run_that_was_killed_even_where_one_has_no_image(pair: Path, tmp_path: Path) -> None:
    torchrun(tmp_path, ["average"], 3, 3)  # all die after epoch 3: two are in the checkpoint, of the first process alone
    assert not (tmp_path / "average" / "done0.json").exists()
    torchrun(tmp_path, ["average"], 3)
    parts, whole = (json.loads((folder / "average" / "done0.json").read_text())["log"] for folder in (tmp_path, pair))
    assert [line[1] for line in parts] == pytest.approx([line[1] for line in whole], rel=1e-4)
    assert_close(tmp_path / "average" / "weights2.safetensors", pair / "average" / "weights0.safetensors", 1e-4)


@given(st.integers(0, 300), st.integers(1, 9))
def test_shares_cover_a_batch_once(count: int, size: int) -> None:
    shares = [range(count)[Ranks(rank, size).share(count)] for rank in range(size)]
    assert [index for share in shares for index in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_group_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(UsageError, match="already"), together():
        pass
