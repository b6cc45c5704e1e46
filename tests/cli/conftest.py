"""Stand-ins for the floors below the doors: what they are called with is kept, what they return is fixed."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

import modelward.audit.calibrating  # noqa: F401  # as it is: what it refuses, the commands refuse
from modelward.cli.main import main
from modelward.core import progress
from modelward.core.key import Key
from modelward.core.verdict import Decision, Misses, Verdict


@dataclass(frozen=True)
class Estimate:
    cells: int
    cached: int
    seconds: float
    memory_bytes: int
    lines: list[tuple[str, int, float]]


@dataclass(frozen=True)
class Question:
    model: Path | None = None
    arch: str | None = None
    data: str = "fashion-mini"
    profile: str = "quick"
    seed: int = 0
    trained_on: str | None = None
    threads: int = 1
    size: tuple[int, int] | None = None
    convention: Any = None


@dataclass(frozen=True)
class Made:
    key: Key
    model: Any = None
    changed: bool = False


ESTIMATE = Estimate(35, 12, 81.0, 900 * 2**20, [("null models", 20, 61.0), ("thefts", 15, 20.0)])
DOCUMENT: dict[str, Any] = {
    "schema": "modelward/report", "version": 1, "title": "Audit of embedded lenet5", "command": "modelward audit",
    "verdict": {
        "headline": "This model needs attention: evasion.", "status": "failed",
        "sentences": ["Thieves are recognised: AUC .99.", "[red] \x1b[31m"],
    },
    "sections": [
        {"id": "clean", "title": "Clean accuracy", "status": "passed", "rows": [1, 2], "flags": [], "not_tested": ["drift"]},
        {"id": "evasion", "title": "Evasion", "status": "failed", "rows": [1] * 40, "flags": ["blind"], "not_tested": []},
    ],
    "cost": {"seconds": 83.0, "cells": 35, "cached": 12, "nothing": float("nan")},
}  # fmt: skip


def verdict(decision: str = "stolen", **changes: Any) -> Verdict:
    """Return a verdict with plausible figures."""
    given: dict[str, Any] = {
        "decision": Decision(decision), "method": "sac-jc", "variant": "hardened", "statistic_name": "deviation not shared (temp)",
        "statistic": 0.01234, "threshold": 0.0456, "p_value": 1 / 20, "draws": 19, "draws_of": "siblings of the owner's model", "queries": 1234,
        "access": "weights", "strength": "weak" if decision in {"stolen", "related"} else "", "misses": Misses(1, 20), "nulls": 20, "false_claims": 2,
        "headlines": ("By the owner's word training began at weights drawn anew, which nobody else has.",),
        "caveats": ("It does not prove how the suspect was made.",),
    }  # fmt: skip
    return Verdict(**(given | changes))


def key(*, calibrated: bool = True) -> Key:
    """Return a key whose arrays hold a number that must never be shown."""
    facts = {
        "calibrated": calibrated,
        "settings": {"count": 800, "view": None},
        "scores": {"temp": {"nulls": [0.1, 0.2, 0.3, 0.4]}},
        "classes": ["a", "b"],
    }
    return Key("sac-jc", "hardened", "ab" * 32, facts, {"probes": torch.full((800, 1, 28, 28), 77, dtype=torch.uint8)})


@dataclass
class World:
    """What the stand-ins were asked, and what they answer."""

    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)

    def fake(self, name: str) -> Callable[..., Any]:
        """Return a function that notes its call and gives the answer called ``name``; an exception is raised, a function called."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            answer = self.answers.get(name)
            if isinstance(answer, BaseException):
                raise answer
            return answer(*args, **kwargs) if callable(answer) else answer

        return run

    def called(self, name: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of the last call of ``name``."""
        return next((args, kwargs) for called, args, kwargs in reversed(self.calls) if called == name)

    def names(self) -> list[str]:
        """Return what was called, in order."""
        return [name for name, _, _ in self.calls]


class FakeStore:
    """A store in memory."""

    folder = Path("/nowhere/store")
    cells: tuple[dict[str, Any], ...] = ()

    def listing(self) -> Iterator[dict[str, Any]]:
        yield from self.cells

    def count(self) -> int:
        return len(self.cells)

    def clear(self) -> int:
        count, type(self).cells = len(self.cells), ()
        return count


def _run_audit(question: Question, store: FakeStore, *, jobs: int | None, command: str) -> dict[str, Any]:
    """Report progress, chatter on stdout as libraries do, and return a document."""
    del question, store, jobs
    progress.advance("audit", 10, 35, "12/35 cells null 3")
    sys.stdout.write("chatter\n")
    return DOCUMENT | {"command": command}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Put the stand-ins in place of the floors below."""
    made = World()
    modules: dict[str, dict[str, Any]] = {
        "modelward.audit": {
            "Question": Question, "Estimate": Estimate,
            **{name: made.fake(name) for name in ("audit", "dry_run", "dry_run_enrol", "enrol", "judge", "write_probes")},
        },
        "modelward.report": {"ready": lambda folder: folder, "write": made.fake("write")},
        "modelward.keys": {"read_key": made.fake("read_key"), "write_key": made.fake("write_key")},
        "modelward.reproduce": {"RECIPES": {"sac-jc": None, "sac": None}, "reproduce": made.fake("reproduce")},
        "modelward.io.age": {"read_secret": made.fake("read_secret")},
        "modelward.io.legacy": {"convert_pt": made.fake("convert_pt")},
        "modelward.evaluation.store": {"Store": FakeStore},
        "modelward.core.catalogue": {"find": made.fake("find"), "catalogue": made.fake("catalogue")},
        "modelward.data": {"list_data": made.fake("list_data")},
    }  # fmt: skip
    for name, content in modules.items():
        module = types.ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    made.answers = {
        "dry_run": ESTIMATE, "dry_run_enrol": ESTIMATE, "audit": _run_audit, "enrol": Made(key()), "judge": verdict(), "read_key": key(),
        "write_probes": 800, "find": types.SimpleNamespace(configured=made.fake("configured")),
        "write": lambda _document, folder: (folder / "report.html", folder / "report.json"),
    }  # fmt: skip
    monkeypatch.setenv("COLUMNS", "120")
    return made


@pytest.fixture
def make_verdict() -> Callable[..., Verdict]:
    """Return the maker of verdicts."""
    return verdict


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Return a function that runs a command line in this process."""

    def run(*arguments: object) -> Outcome:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
