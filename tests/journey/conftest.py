"""The command line as a user meets it, in this process: arguments in; exit code, stdout and stderr out."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelward import Recipe, embedded_model, load_data, siblings, study
from modelward.cli.main import main


@dataclass(frozen=True)
class Answer:
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def quick_siblings(home: Path) -> None:
    """Train siblings of the embedded model into the shared store; where the tests run in several processes, one trains and the others wait."""
    with (home / "siblings.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        model, data = embedded_model().model, study(load_data("fashion-mini"))
        recipe = Recipe(epochs=15, lr=0.05, batch=64)
        siblings(recipe, data.owner, 19, model=model, base="none", thief_images=data.attacker, test=data.test)


@pytest.fixture
def modelward(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Return a function that runs a command line."""

    def run(*words: Any) -> Answer:
        code = main([str(word) for word in words])
        found = capsys.readouterr()
        return Answer(code, found.out, found.err)

    return run
