"""The command line as a user meets it, in this process: arguments in; exit code, stdout and stderr out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from modelward.cli.main import main


@dataclass(frozen=True)
class Answer:
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def modelward(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Return a function that runs a command line."""

    def run(*words: Any) -> Answer:
        code = main([str(word) for word in words])
        found = capsys.readouterr()
        return Answer(code, found.out, found.err)

    return run
