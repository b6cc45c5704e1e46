"""The toy modules can be imported by name, here and in the workers that inherit this path."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))


class Log:
    """The file in which toy cells say that they have computed."""

    def __init__(self, path):
        self.path = path

    def lines(self):
        return self.path.read_text().splitlines() if self.path.exists() else []


@pytest.fixture
def toy_log(tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_LOG", str(tmp_path / "toy.log"))
    return Log(tmp_path / "toy.log")
