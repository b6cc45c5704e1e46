"""Progress: time left from the rate, heartbeats at most every ten seconds, nothing that can stop the work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.cli.display import Bar, Heartbeat, Pace, progress_shown
from modelward.core import progress


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_time_left_is_what_is_left_over_the_rate_since_the_start() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.update(50, 150)  # these 50 were cached: they say nothing about the pace
    assert pace.left() is None
    clock.now = 20.0
    pace.update(60, 150)
    assert pace.left() == pytest.approx(90 * 20 / 10)
    clock.now = 50.0  # no news for 30 s
    assert pace.left() == pytest.approx(180 - 30)
    assert pace.elapsed == 50.0
    assert pace.percent == 40
    clock.now = 999.0
    assert pace.words().startswith("longer than expected")


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.001, 50)), min_size=1, max_size=20), st.floats(1, 200))
def test_a_steady_pace_is_predicted_exactly(steps: list[tuple[float, float]], rate: float) -> None:
    clock = Clock()
    pace = Pace(clock)
    total = rate * (sum(wait for _, wait in steps) + 7)
    pace.update(0, total)
    for _, wait in steps:
        clock.now += wait
        pace.update(rate * clock.now, total)
    assert pace.left() == pytest.approx(7, rel=1e-6, abs=1e-6)


@given(st.floats(), st.floats(), st.text())
def test_nothing_that_is_reported_can_break_a_display(done: float, total: float, text: str) -> None:
    lines: list[str] = []
    beat = Heartbeat(lines.append, every=0.0)
    beat.advance(text, done, total, text)
    beat.advance(text, total, done, text)
    assert all("\x1b" not in line and line.count("\n") == 1 for line in lines)


def test_a_line_at_most_every_ten_seconds() -> None:
    clock, lines = Clock(), list[str]()
    beat = Heartbeat(lines.append, clock=clock)
    for second in range(100):
        clock.now = float(second)
        beat.advance("audit", second, 100, f"{second}/100 cells")
    assert len(lines) == 10
    assert lines[0] == "audit 0 % 0/100 cells, time left not known yet, 0 s so far\n"
    assert lines[5] == "audit 50 % 50/100 cells, about 50 s left, 50 s so far\n"


def test_a_long_cell_does_not_silence_the_heart() -> None:
    lines: list[str] = []
    with Heartbeat(lines.append, every=0.1) as beat:
        beat.advance("audit", 1, 2, "1/2 cells")
        deadline = time.monotonic() + 60
        while len(lines) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    beat.thread.join(60)
    assert not beat.thread.is_alive()


def test_a_broken_stream_does_not_stop_the_work() -> None:
    def broken(_: str) -> None:
        raise OSError("gone")

    Heartbeat(broken).advance("audit", 1, 2)


def test_quiet_is_silent_and_the_listener_is_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_shown(quiet=True):
        progress.advance("audit", 1, 2)
    assert capsys.readouterr().err == ""
    with progress_shown() as display:
        assert isinstance(display, Heartbeat)
        progress.advance("audit", 1, 2, "note")
    progress.advance("audit", 2, 2)
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err == "audit 50 % note, time left not known yet, 0 s so far\n"


@given(st.floats(), st.floats(), st.text())
def test_the_bar_takes_anything(done: float, total: float, text: str) -> None:
    bar = Bar()
    bar.advance(text, done, total, text)
    bar.advance(text, 1, 2, text)
    bar._bars.get_renderable()


SHOW = """
import time
from modelward.cli.display import progress_shown
from modelward.core import progress
with progress_shown():
    for done in range(4):
        progress.advance("audit", done + 10, 20, f"{done}/10 cells [red] null lenet5 on attacker #3")
        time.sleep(0.15)
print("result")
"""


def in_terminal(code: str, columns: int, **changes: str) -> str:
    import fcntl
    import pty
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment: dict[str, Any] = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=follower, stdout=follower, stderr=follower, env=environment | {"TERM": "xterm"} | changes
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the last process closed the terminal
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait(timeout=30) == 0
    return shown.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
@pytest.mark.parametrize("columns", [30, 60, 140])
def test_the_bar_on_a_terminal(columns: int) -> None:
    shown = in_terminal(SHOW, columns)
    assert "audit" in shown
    assert "50 %" in shown
    assert "left" in shown
    assert ("[red] null" in shown) == (columns == 140)
    assert shown.rstrip().endswith("result")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_a_dumb_terminal_gets_lines() -> None:
    shown = in_terminal(SHOW, 80, TERM="dumb")
    assert "\x1b" not in shown
    assert shown.splitlines()[0].startswith("audit 50 % 0/10 cells")
