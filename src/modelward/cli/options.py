"""The options that every command has, built once; and what they set in motion."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Concatenate, Literal, ParamSpec

import typer

from modelward.cli.intake_options import PARAMETERS, parse_convention
from modelward.core.errors import UsageError

P = ParamSpec("P")
Profile = Literal["smoke", "quick", "full", "paper"]
Precision = Literal["fp32", "bf16"]
EngineName = Literal["process", "ray"]
FLAG = " "  # a flag takes no value: no type is shown for it
_PANEL = "Options of every command"
_invocation: ContextVar[tuple[str, ...] | None] = ContextVar("modelward_invocation", default=None)


@dataclass(frozen=True)
class Options:
    """What every command may be told.

    Parameters
    ----------
    as_json
        print one JSON object on stdout instead of text.
    seed
        root of all randomness, >= 0.
    device, precision
        where and in which arithmetic models are evaluated.
    threads
        torch threads of one process, >= 1; results depend on it, so it is part of every cell.
    profile
        effort.
    out
        file or folder of the result; ``None`` takes the command's own.
    quiet
        no progress and no remarks.
    engine, ray_address
        of commands that run cells: worker processes of this machine, or a Ray cluster, and which.
    """

    as_json: bool = False
    seed: int = 0
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    profile: str = "quick"
    out: Path | None = None
    quiet: bool = False
    engine: str = "process"
    ray_address: str | None = None


_COMMON: dict[str, Any] = {
    "as_json": Annotated[
        bool, typer.Option("--json", metavar=FLAG, help="One JSON object on stdout, everything else on stderr.", rich_help_panel=_PANEL)
    ],
    "seed": Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Root of all randomness.", rich_help_panel=_PANEL)],
    "device": Annotated[
        str, typer.Option("--device", metavar="DEVICE", help="cpu, or a CUDA device where torch has one.", rich_help_panel=_PANEL)
    ],
    "precision": Annotated[Precision, typer.Option("--precision", help="Arithmetic of the evaluation.", rich_help_panel=_PANEL)],
    "threads": Annotated[int, typer.Option("--threads", min=1, metavar="N", help="Torch threads of one process.", rich_help_panel=_PANEL)],
    "profile": Annotated[
        Profile, typer.Option("--profile", help="Effort: smoke is no evidence, full takes hours.", rich_help_panel=_PANEL)
    ],
    "out": Annotated[Path | None, typer.Option("--out", metavar="PATH", help="File or folder of the result.", rich_help_panel=_PANEL)],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", metavar=FLAG, help="No progress, no remarks.", rich_help_panel=_PANEL)],
}


_ENGINE: dict[str, Any] = {  # of commands with --jobs
    "engine": Annotated[EngineName, typer.Option("--engine", help="Worker processes here, or workers of a Ray cluster.")],
    "ray_address": Annotated[
        str | None,
        typer.Option("--ray-address", metavar="HOST:PORT", help="Ray cluster to use; without it one is started here.", show_default=False),
    ],
}


def with_options(command: Callable[Concatenate[Options, P], int]) -> Callable[..., int]:
    """Give a command the common options after its own; it receives them as its first argument.

    A command with a parameter ``convention`` gets the options of `intake_options` in its place, and what they say together.

    >>> @with_options
    ... def greet(options: Options, name: str) -> int:
    ...     return options.seed + len(name)
    >>> list(inspect.signature(greet).parameters)[:3], greet(name="ab", seed=3)
    (['name', 'as_json', 'seed'], 5)
    """
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    takes_model = any(parameter.name == "convention" for parameter in own)
    own = [parameter for parameter in own if parameter.name != "convention"] + PARAMETERS * takes_model
    defaults = Options()
    offered = {**(_ENGINE if any(parameter.name == "jobs" for parameter in own) else {}), **_COMMON}
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=getattr(defaults, name), annotation=annotation)
        for name, annotation in offered.items()
    ]

    @functools.wraps(command)
    def run(**given: Any) -> int:
        options = Options(**{name: given.pop(name) for name in offered if name in given})
        _require_device(options.device)
        if takes_model:
            given["convention"] = parse_convention({parameter.name: given.pop(parameter.name, None) for parameter in PARAMETERS})
        bound: Any = command
        return int(bound(options, **given) or 0)

    run.__dict__["__signature__"] = inspect.Signature([*own, *common], return_annotation=int)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *common)} | {"return": int}
    return run


def _require_device(device: str) -> None:
    """Raise `UsageError` unless ``device`` can be had."""
    if device == "cpu":
        return
    import torch

    if not torch.cuda.is_available():
        message = f"--device {device}: torch {torch.__version__} finds no CUDA device here; leave --device out to work on the CPU"
        raise UsageError(message)
    try:
        known = torch.device(device).type == "cuda"
    except RuntimeError:
        known = False
    if not known:
        message = f"--device {device}: a device is cpu, cuda or cuda:0, cuda:1, ..."
        raise UsageError(message)


@contextlib.contextmanager
def working(options: Options) -> Iterator[None]:
    """Run a block that computes: cells where the options say, progress on stderr, torch on the asked number of threads, stdout for the result."""
    if options.precision != "fp32":
        raise UsageError("models are evaluated in fp32: bf16 changes answers near a decision; leave --precision out")
    import torch

    from modelward.cli.display import progress_shown
    from modelward.core.devices import computing
    from modelward.evaluation.place import Place, placed

    place = Place(options.engine, options.ray_address, options.device)
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        with placed(place), computing(options.device), progress_shown(quiet=options.quiet), contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def invoked(arguments: Sequence[str]) -> Iterator[None]:
    """Remember the arguments of this run, for `command_line`."""
    token = _invocation.set(tuple(arguments))
    try:
        yield
    finally:
        _invocation.reset(token)


def command_line() -> str:
    """Return the shell command of this run, for reports: without --out, as where a report went does not change what it says.

    >>> with invoked(["audit", "--data", "my set", "--out", "here"]):
    ...     command_line()
    "modelward audit --data 'my set'"
    """
    arguments = _invocation.get()
    given = sys.argv[1:] if arguments is None else arguments
    kept = [
        word for before, word in itertools.pairwise(["", *given]) if before != "--out" and word != "--out" and not word.startswith("--out=")
    ]
    return shlex.join(["modelward", *kept])
