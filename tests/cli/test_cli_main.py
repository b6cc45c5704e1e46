"""The door itself: exit codes, messages, what it imports, version, completion, pipes, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from modelward._version import __version__
from modelward.cli import main as door
from modelward.cli.options import _COMMON
from modelward.core.errors import (
    AccessError,
    FormatError,
    InputError,
    StoreError,
    UnavailableError,
    Undecided,
    UnsafeFileError,
    UsageError,
)

HEAVY = ("torch", "numpy", "scipy", "matplotlib", "sqlalchemy", "PIL", "jinja2")
COMMANDS = (
    "audit", "reproduce", "protect", "verify", "probes", "key show", "data list", "models list", "store list", "store clear", "methods",
    "convert", "doctor",
)  # fmt: skip


def python(code: str, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "MODELWARD_DEBUG"}} | changes
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=60, env=environment
    )


RUN = "import sys; from modelward.cli.main import main; sys.exit(main())"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["audit", "--help"], ["protect"], ["adit"]])
def test_the_door_imports_nothing_heavy(arguments: list[str]) -> None:
    code = f"import sys; from modelward.cli.main import main; main(); print([m for m in {HEAVY} if m in sys.modules])"
    found = python(code, *arguments)
    assert found.stdout.splitlines()[-1] == "[]"


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert python(f"import sys, modelward; print([m for m in {HEAVY} if m in sys.modules])").stdout.strip() == "[]"


def test_help_names_every_command_and_the_exit_codes() -> None:
    text = python(RUN, "--help").stdout
    for command in COMMANDS:
        assert f" {command.split()[0]} " in text
    for word in ("no finding", "undecided", "refused for safety", "interrupted"):
        assert word in " ".join(text.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_common_options(command: str, shell: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    found = shell(*command.split(), "--help")
    assert found.code == 0
    for option in ("--json", "--seed", "--device", "--precision", "--threads", "--profile", "--out", "--quiet"):
        assert option in found.out
    assert len(_COMMON) == 8


def test_version(shell: Callable[..., Any]) -> None:
    found = shell("--version")
    assert (found.code, found.out) == (0, f"modelward {__version__}\n")


def test_python_dash_m_is_the_same_command() -> None:
    found = subprocess.run([sys.executable, "-m", "modelward", "--version"], capture_output=True, text=True, check=False, timeout=60)
    assert (found.returncode, found.stdout) == (0, f"modelward {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["adit"], "did you mean 'audit'"),
        (["audit", "--modle", "x"], "--model"),
        (["audit", "--seed", "abc"], "--seed"),
        (["audit", "--seed", "-1"], "--seed"),
        (["audit", "--threads", "0"], "--threads"),
        (["audit", "--profile", "fast"], "--profile"),
        (["protect"], "missing argument 'METHOD'"),
        (["protect", "sac-jc"], "--out-key"),
        (["store", "lst"], "did you mean 'list'"),
        (["audit", "--device", "tpu"], "--device tpu"),
        (["audit", "--precision", "bf16"], "fp32"),
        (["audit", "--size", "32"], "--size 32,32"),
        (["probes", "k.mw"], "--out DIR"),
    ],
)
def test_wrong_usage_is_4_and_says_what_is_wrong(arguments: list[str], words: str, shell: Callable[..., Any], world: Any) -> None:
    found = shell(*arguments)
    assert found.code == 4
    assert found.out == ""
    assert found.err.startswith("error: ")
    assert words.lower() in found.err.lower()
    assert "Traceback" not in found.err
    assert "audit" not in world.names()


def test_no_command_shows_help_and_is_wrong_usage(shell: Callable[..., Any]) -> None:
    found = shell()
    assert found.code == 4
    assert "Usage" in found.out
    assert "error" not in found.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("u"), 4), (InputError("i"), 2), (AccessError("a"), 2), (FormatError("f"), 2), (UnsafeFileError("s"), 5),
        (StoreError("d"), 2), (UnavailableError("n"), 2), (Undecided("w"), 3),
    ],
)  # fmt: skip
def test_errors_become_one_sentence_and_their_exit_code(error: Exception, code: int, shell: Callable[..., Any], world: Any) -> None:
    world.answers["dry_run"] = error
    found = shell("audit", "--dry-run", "--quiet")
    assert (found.code, found.out, found.err) == (code, "", f"{error}\n" if code == 3 else f"error: {error}\n")


def test_an_error_with_json_is_one_object_too(shell: Callable[..., Any], world: Any) -> None:
    world.answers["dry_run"] = UnsafeFileError("no \x1b[2J thanks")
    found = shell("audit", "--dry-run", "--json", "--quiet")
    assert found.code == 5
    told = json.loads(found.out)
    assert (told["schema"], told["version"], told["kind"], told["exit_code"]) == ("modelward/error", 1, "UnsafeFileError", 5)
    assert "\x1b" not in found.out + found.err
    assert json.loads(shell("audit", "--nonsense", "--json").out)["exit_code"] == 4


def test_a_bug_is_2_without_traceback_unless_asked(shell: Callable[..., Any], world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.answers["dry_run"] = ZeroDivisionError("division\nby zero")
    found = shell("audit", "--quiet")
    assert found.code == 2
    assert "error: ZeroDivisionError: division by zero\n" in found.err
    assert "this is a bug" in found.err
    assert "Traceback" not in found.err
    monkeypatch.setenv("MODELWARD_DEBUG", "1")
    assert "Traceback" in shell("audit", "--quiet").err


def test_the_disk_and_memory_are_not_bugs(shell: Callable[..., Any], world: Any) -> None:
    world.answers["dry_run"] = OSError(28, "No space left on device", "/full/report.html")
    found = shell("audit", "--quiet")
    assert (found.code, found.err) == (2, "error: no space left on device: /full/report.html\n")
    world.answers["dry_run"] = MemoryError()
    assert "not enough memory" in shell("audit", "--quiet").err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_interrupted_is_130_with_the_way_on(error: BaseException, shell: Callable[..., Any], world: Any) -> None:
    world.answers["audit"] = error
    found = shell("audit", "--quiet")
    assert (found.code, found.out, found.err) == (130, "", "stopped; run the same command again to go on\n")


def test_a_real_interrupt_is_130() -> None:
    code = (
        "import sys, types, time\n"
        "fake = types.ModuleType('modelward.cli.doctor')\n"
        "def checks():\n    sys.stderr.write('ready\\n'); sys.stderr.flush(); time.sleep(30); yield\n"
        "fake.checks = checks; sys.modules['modelward.cli.doctor'] = fake\n" + RUN
    )
    process = subprocess.Popen([sys.executable, "-c", code, "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "stopped; run the same command again to go on\n")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["doctor"], ["doctor", "--json"]])
def test_a_closed_pipe_is_quiet(arguments: list[str]) -> None:
    code = (
        "import sys, types\n"
        "fake = types.ModuleType('modelward.cli.doctor')\n"
        "from dataclasses import dataclass\n"
        "@dataclass\nclass Check:\n    name: str = 'n' * 99\n    status: str = 'ok'\n    text: str = 't' * 999\n    fix: str = ''\n"
        "fake.checks = lambda: [Check()] * 999; sys.modules['modelward.cli.doctor'] = fake\n" + RUN
    )
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        found = subprocess.run(
            [sys.executable, "-c", code, *arguments], stdout=pipe, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    assert found.stderr == ""
    assert found.returncode == 2


def test_a_narrow_encoding_is_no_reason_to_fail(tmp_path: Path) -> None:
    found = python(RUN, "verify", str(tmp_path / "mödél-模型.safetensors"), "--key", "k", PYTHONIOENCODING="ascii")
    assert found.returncode == 4
    assert "there is no file" in found.stderr


def test_warnings_are_one_line(shell: Callable[..., Any], world: Any) -> None:
    def warning(*_: object, **__: object) -> None:
        with warnings.catch_warnings(record=False):
            warnings.simplefilter("always")
            warnings.warn("a method\ncannot be imported", stacklevel=1)
        raise Undecided("enough")

    world.answers["dry_run"] = warning
    found = shell("audit", "--quiet")
    assert found.err == "warning: a method cannot be imported\nenough\n"


def test_completion_knows_the_commands() -> None:
    found = python(RUN, _MODELWARD_COMPLETE="complete_bash", COMP_WORDS="modelward pro", COMP_CWORD="1")
    assert found.stdout.split() == ["protect", "probes"]


def test_only_what_is_an_error_of_usage_is_mapped() -> None:
    assert issubclass(typer.BadParameter, door._usage_error)
    assert not issubclass(typer.Abort, door._usage_error)
