"""The mutation campaign in small: every format, a fixed seed; and that the campaign sees what it looks for."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelward.core.errors import FormatError

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"
DIGESTED = {"mw key", "mw key, age recipient", "service state (--resume)", "store blob", "idx, pinned digest", "decoded pixels"}


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """Return the result of 600 cases over every format, run as a person would."""
    out = tmp_path_factory.mktemp("campaign") / "out.json"
    words = ["--count", "600", "--seed", "20261121", "--quick", "--patience", "60", "--out", str(out)]
    command = [sys.executable, str(BENCH / "hostile.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done, json.loads(out.read_text())


@pytest.mark.slow
def test_nothing_escapes_hangs_or_gets_past_a_digest(campaign):
    done, found = campaign
    assert found["failures"] == [], done.stdout
    assert done.returncode == 0
    assert sum(row["cases"] for row in found["formats"].values()) == found["count"] >= 600
    for name, row in found["formats"].items():
        assert row["refused"] + row["accepted"] == row["cases"] > 0, name
    assert {name for name, row in found["formats"].items() if row["covers"]} == DIGESTED
    everywhere = found["formats"].values()
    assert sum(row["refused"] for row in everywhere) > 300, "the alterations alter too little"
    assert sum(row["accepted"] for row in everywhere) > 30, "the alterations never get past the first bytes"


@pytest.fixture
def judged(monkeypatch, tmp_path):
    """Return a judge of one reader: ``judged(read, covers="") -> outcome`` for an altered file."""
    monkeypatch.syspath_prepend(str(BENCH))
    from hostile_format import Format
    from hostile_judge import judge

    def run(read, covers="", seconds=60.0):
        return judge(Format(read, (b"whole",), tmp_path / "x", covers=covers, seconds=seconds), b"altered", {"other"})[0]

    return run


def test_the_campaign_sees_what_it_looks_for(judged):
    from hostile_judge import late

    def fail(error):
        def read(_path):
            raise error

        return read

    before = signal.signal(signal.SIGALRM, late)
    try:
        assert judged(fail(FormatError("it is damaged"))) == "refused"
        assert (
            judged(fail(FormatError("two\nlines")))
            == judged(fail(FormatError("\x1b[2J")))
            == judged(fail(FormatError("x" * 900)))
            == "untidy"
        )
        assert judged(fail(KeyError("x"))) == judged(fail(SystemExit(1))) == judged(fail(MemoryError())) == "tracebacks"
        assert judged(lambda path: path) == "accepted"
        assert judged(lambda path: path, covers="file") == judged(lambda path: path, covers="content") == "altered_accepted"
        assert judged(lambda _path: time.sleep(2), seconds=0.1) == "hangs"
    finally:
        signal.signal(signal.SIGALRM, before)


def test_cases_are_made_again_from_their_number(judged):
    from hostile_format import Format
    from hostile_judge import one
    from mutations_knowing import KNOWING

    del judged
    for kind in KNOWING:
        made = Format(lambda path: path, (b'{"a": [1, 2, "b"]}', b"second file\nof two lines\n"), Path("x"), kind)
        first = [one(made, kind, number, 5) for number in range(20)]
        assert first == [one(made, kind, number, 5) for number in range(20)]
        assert not set(first) & set(made.seeds)
        assert len(set(first)) > 10
