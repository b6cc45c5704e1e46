"""The command ``modelward``: its commands, and how an error becomes one sentence and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

import typer

from modelward._version import __version__
from modelward.cli.attack_commands import attack, steal
from modelward.cli.audit_commands import audit, reproduce
from modelward.cli.doctor_command import doctor
from modelward.cli.evidence_commands import commit, evidence_check, evidence_keygen
from modelward.cli.key_commands import key_show, probes
from modelward.cli.list_commands import data_list, methods, models_list
from modelward.cli.lock_commands import lock, unlock
from modelward.cli.master_commands import backup, new_master, rotate
from modelward.cli.matrix_command import matrix
from modelward.cli.model_commands import models_get
from modelward.cli.options import FLAG, invoked, with_options
from modelward.cli.output import clean, emit, warn
from modelward.cli.protect_command import protect
from modelward.cli.scan_command import scan
from modelward.cli.store_commands import convert, store_clear, store_list
from modelward.cli.trace_command import trace
from modelward.cli.user_commands import issue, pardon, revoke
from modelward.cli.verify_command import verify
from modelward.core.errors import ModelwardError

STOPPED = 130
TOOL_ERROR = 2
UNDECIDED = 3
USAGE = 4
_usage_error: type[BaseException] = typer.BadParameter.__bases__[0]  # the UsageError of whichever click typer carries


def _group(help_text: str) -> typer.Typer:
    """Return an empty command group."""
    return typer.Typer(help=help_text, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")


app = _group(
    "Prove what is yours, lock it, and measure how well that holds.\n\n"
    "Exit codes: 0 no finding, 1 finding, 2 tool error, 3 undecided or nothing to do, 4 usage, 5 refused for safety, 130 interrupted."
)


def _show_version(asked: bool) -> None:
    """Print the version and stop."""
    if asked:
        typer.echo(f"modelward {__version__}")
        raise typer.Exit


@app.callback()
def modelward(
    *,
    version: Annotated[
        bool, typer.Option("--version", metavar=FLAG, callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take the options before the command."""
    del version


def _register() -> None:
    """Put every command in its place, in the order of the help page."""
    measure, proof, around = "Measure", "Protect and prove", "Look around"
    whole: tuple[tuple[str, Callable[..., int]], ...] = (
        (measure, audit), (measure, attack), (measure, steal), (measure, scan), (measure, reproduce), (measure, matrix),
        (proof, protect), (proof, verify), (proof, probes), (proof, commit), (proof, lock), (proof, unlock), (proof, issue), (proof, revoke),
        (proof, trace), (proof, pardon),
        (around, methods), (around, convert), (around, doctor),
    )  # fmt: skip
    for panel, command in whole:
        app.command(rich_help_panel=panel)(with_options(command))
    groups: tuple[tuple[str, str, str, dict[str, Callable[..., int]]], ...] = (
        (
            proof,
            "key",
            "Key files, and the master secret of many users.",
            {"show": key_show, "new-master": new_master, "rotate": rotate, "backup": backup},
        ),
        (proof, "evidence", "Evidence that a third party can check.", {"keygen": evidence_keygen, "check": evidence_check}),
        (around, "data", "Image sets that have a name.", {"list": data_list}),
        (around, "models", "Architectures that have a name, and trained networks.", {"list": models_list, "get": models_get}),
        (around, "store", "Finished work that is never done twice.", {"list": store_list, "clear": store_clear}),
    )
    for panel, name, about, inner in groups:
        group = _group(about)
        for inner_name, function in inner.items():
            group.command(inner_name)(with_options(function))
        app.add_typer(group, name=name, rich_help_panel=panel)


_register()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    arguments
        without the program's name; ``None`` takes those of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    with invoked(given), _plain_warnings():
        try:
            code = _run(given)
            sys.stdout.flush()
        except SystemExit as stop:  # shell completion and rich end this way
            return _silenced() if isinstance(stop.__context__, BrokenPipeError) else _code(stop.code)
        except BrokenPipeError:
            return _silenced()
    return code


def _run(given: list[str]) -> int:
    """Run one command; an error becomes a sentence and a code."""
    try:
        code = _code(typer.main.get_command(app).main(args=given, prog_name="modelward", standalone_mode=False))
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, typer.Abort):
        code = STOPPED
    except Exception as error:  # noqa: BLE001  # the last door: whatever comes is told in one sentence
        return _report(error, as_json="--json" in given)
    if code == STOPPED:
        if sys.stderr.isatty():
            sys.stderr.write("\n")  # the terminal has echoed ^C
        _tell("stopped; run the same command again to go on", style="bold yellow")
    return code


def _code(code: Any) -> int:
    """Return an exit code as a number."""
    return code if isinstance(code, int) else 0 if code is None else TOOL_ERROR


def _report(error: Exception, *, as_json: bool) -> int:
    """Tell an error in one sentence and return its exit code."""
    code, message, hint = _explain(error)
    if os.environ.get("MODELWARD_DEBUG") == "1":
        traceback.print_exception(error, file=sys.stderr)
    if message:  # help shown for want of arguments is its own message
        _tell(message if code == UNDECIDED else f"error: {message}", style="bold yellow" if code == UNDECIDED else "bold red")
    if hint:
        _tell(hint, style="dim")
    if as_json and message:
        emit("error", {"error": message, "kind": type(error).__name__, "exit_code": code})
    return code


def _explain(error: Exception) -> tuple[int, str, str]:
    """Return exit code, message and hint of an error."""
    if isinstance(error, ModelwardError):
        return error.exit_code, str(error), ""
    if isinstance(error, _usage_error):
        known: Any = error
        path = known.ctx.command_path if known.ctx else "modelward"
        message = known.format_message().strip()
        return USAGE, message[:1].lower() + message[1:], f"`{path} --help` shows what it takes" if message else ""
    if isinstance(error, MemoryError):
        return TOOL_ERROR, "there is not enough memory; try fewer --jobs or a smaller set", ""
    if isinstance(error, OSError) and error.strerror:
        return TOOL_ERROR, error.strerror.lower() + (f": {error.filename}" if error.filename else ""), ""
    text = " ".join(str(error).split()) or "no message"
    return TOOL_ERROR, f"{type(error).__name__}: {text}", "this is a bug in modelward; MODELWARD_DEBUG=1 shows the traceback to report"


def _tell(text: str, *, style: str) -> None:
    """Print a line to stderr; a closed stderr is no reason to fail."""
    from rich.text import Text

    from modelward.cli.output import console

    head, colon, rest = text.partition(": ") if text.startswith("error: ") else (text, "", "")
    with contextlib.suppress(OSError, SystemExit):
        console(stderr=True).print(Text.assemble((clean(head) + colon, style), clean(rest)), soft_wrap=True)


def _silenced() -> int:
    """Keep the interpreter from flushing into a pipe that nobody reads any more."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return TOOL_ERROR


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print warnings as one line without source code; characters a terminal cannot show become question marks."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: warn(" ".join(str(message).split()))
        yield
