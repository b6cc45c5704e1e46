"""Lists, cards and the doctor: against the real method classes where they are there, and hand-made cases."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.cli import doctor
from modelward.cli.method_card import card_facts, parameter_docs
from modelward.cli.output import clean, human_bytes, human_seconds
from modelward.cli.values import parse_settings, parse_size, parse_value
from modelward.core.card import Card, Mechanism, Scenario, Taxonomy
from modelward.core.errors import StoreError, UsageError
from modelward.core.method import Method


@dataclass(frozen=True, kw_only=True)
class Parent(Method):
    """A parent.

    Parameters
    ----------
    eps
        radius of the ball.
    steps : int
        of the parent.

    Raises
    ------
    UsageError
        never.
    """

    family: ClassVar[str] = "evasion"
    eps: float = 8 / 255
    steps: int = 3


@dataclass(frozen=True, kw_only=True)
class Child(Parent):
    """A child.

    Parameters
    ----------
    steps
        of the child, in words that are so long that they do not fit on any line of a terminal that
        people use, so that they have to be folded.
    """

    card: ClassVar[Card] = Card(
        "toy", "a toy [method]", "Nobody: Nothing, 2026", Taxonomy(Scenario.WHITE_BOX, Mechanism.QUERY), claims=("wins",), limits=("all",)
    )
    steps: int = 5
    flag: bool = False


def test_the_words_of_the_nearest_class_win() -> None:
    docs = parameter_docs(Child)
    assert docs["eps"] == "radius of the ball."
    assert docs["steps"].startswith("of the child")
    assert set(docs) == {"eps", "steps"}


def test_card_facts_hold_every_setting() -> None:
    found = {setting["name"]: setting["default"] for setting in card_facts(Child)["settings"]}
    assert found == {"eps": 8 / 255, "steps": 5, "flag": False}


@pytest.mark.parametrize("columns", ["40", "80", "160"])
def test_methods(columns: str, shell: Callable[..., Any], world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    world.answers |= {"catalogue": {"toy": Child}, "find": lambda _: Child}
    table = shell("methods").out
    assert "toy" in table
    assert ("Nobody" in table) == (columns == "160")
    page = shell("methods", "toy").out
    for word in ("a toy [method]", "8/255", "white_box", "radius of the ball"):
        assert "".join(word.split()) in "".join(page.split())
    assert max(len(line) for line in (table + page).splitlines()) <= int(columns)
    document = json.loads(shell("methods", "toy", "--json").out)
    assert (document["schema"], document["taxonomy"]["scenario"]) == ("modelward/method", "white_box")
    assert len(json.loads(shell("methods", "--json").out)["methods"]) == 1


@dataclass(frozen=True)
class Info:
    name: str
    classes: int
    train: int
    test: int
    shape: tuple[int, int, int]
    licence: str
    present: bool
    note: str


def test_data_list(shell: Callable[..., Any], world: Any) -> None:
    world.answers["list_data"] = [
        Info("fashion-mini", 10, 6000, 2000, (1, 28, 28), "MIT", True, "n"),
        Info("x", 2, 1, 1, (3, 8, 8), "?", False, ""),
    ]
    found = shell("data", "list")
    assert "6,000" in found.out
    assert "1x28x28" in found.out
    assert "MODELWARD_DATA" in found.out
    assert json.loads(shell("data", "list", "--json").out)["data"][0]["shape"] == [1, 28, 28]


def test_models_list_counts_parameters(shell: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import nn

    def make(channels: int, size: tuple[int, int], classes: int) -> nn.Module:
        return nn.Linear(channels * size[0] * size[1], classes)

    models = types.ModuleType("modelward.models")
    models.__dict__["ARCHITECTURES"] = {"mlp": types.SimpleNamespace(defaults={"width": 4, "depth": 2}, make=make)}
    import modelward.models.pretrained  # noqa: F401  # what lists the trained networks is read before its package is replaced

    monkeypatch.setitem(sys.modules, "modelward.models", models)
    shown = shell("models", "list").out
    assert "7,850" in shown
    assert "width=4,depth=2" in shown
    found = json.loads(shell("models", "list", "--json").out)["architectures"]
    counts = {"1x28x28": 28 * 28 * 10 + 10, "3x32x32": 3 * 32 * 32 * 10 + 10}
    assert found == [{"name": "mlp", "arguments": {"width": 4, "depth": 2}, "parameters": counts}]


CHECKS = [
    doctor.Check("torch", "ok", "2.13.0, CPU build"),
    doctor.Check("memory", "warn", "0.5 GiB available", "close something"),
    doctor.Check("store", "fail", "[bold] not writable \x1b[2J", "set MODELWARD_HOME"),
]


def test_the_doctor_shows_state_and_fix(shell: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "checks", lambda: CHECKS)
    found = shell("doctor")
    assert found.code == 2
    assert "✗ fail  [bold] not writable \\x1b[2J" in found.out
    assert "→ set MODELWARD_HOME" in found.out
    assert "1 failed, 1 to look at" in found.out
    assert json.loads(shell("doctor", "--json").out)["failed"] == 1
    monkeypatch.setattr(doctor, "checks", lambda: CHECKS[:2])
    assert shell("doctor").code == 0


def test_the_real_checks_cover_what_matters(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelward.evaluation.store import Store

    monkeypatch.setattr(Store, "folder", tmp_path)
    world.answers["list_data"] = [Info("fashion-mini", 10, 6000, 2000, (1, 28, 28), "MIT", True, "n")]
    found = {check.name: check for check in doctor.checks()}
    assert set(found) == {
        "python",
        "packages",
        "torch",
        "processor",
        "threads",
        "foreign packages",
        "memory",
        "store",
        "disk",
        "sqlite",
        "data",
        "sandbox",
    }
    assert all(check.fix for check in found.values() if check.status != "ok")
    assert "journal mode delete" in found["sqlite"].text


@pytest.mark.parametrize(
    ("native", "words"),
    [(True, "bf16 native: training uses it"), (False, "bf16 not native: training in fp32, which is faster here")],
)
def test_the_doctor_says_what_training_uses(native: bool, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelward.core import devices

    monkeypatch.setattr(devices, "bf16_is_native", lambda: native)
    found = next(check for check in doctor.checks() if check.name == "processor")
    assert found.status == "ok"
    assert found.text.endswith(words)


def test_a_broken_store_is_one_failed_line(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelward.evaluation.store import Store

    def refuse(*_: object) -> None:
        raise StoreError("the store cannot be made; set $MODELWARD_HOME")

    monkeypatch.setattr(Store, "__init__", refuse)
    world.answers["list_data"] = RuntimeError("boom")
    failed = {check.name: check.text for check in doctor.checks() if check.status == "fail"}
    assert failed == {"store": "the store cannot be made; set $MODELWARD_HOME", "data": "RuntimeError: boom"}


@given(st.text())
def test_clean_text_drives_no_terminal(text: str) -> None:
    cleaned = clean(text)
    assert all(c.isprintable() or c in "\n\t" for c in cleaned)
    if text.isprintable():
        assert cleaned == text


@given(st.floats(0, 1e7))
def test_durations_are_right_within_their_smaller_unit(seconds: float) -> None:
    sizes = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
    words = human_seconds(seconds).split()
    pairs = [(float(words[i]), sizes[words[i + 1]]) for i in range(0, len(words), 2)]
    assert abs(sum(count * size for count, size in pairs) - seconds) <= (
        0.051 if seconds < 9.95 else {1: 0.5, 60: 60.5, 3600: 3600.5, 86_400: 3600.5}[min(s for _, s in pairs)]
    )


@given(st.integers(0, 2**45))
def test_sizes_are_right_within_rounding(count: int) -> None:
    value, unit = human_bytes(count).split()
    size = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}[unit]
    assert float(value) * size == pytest.approx(count, abs=0.051 * size)


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_settings_come_back_as_they_were(value: Any) -> None:
    found = parse_settings([f"a-name={json.dumps(value)}"])
    assert found == {"a_name": value}
    assert type(found["a_name"]) is type(value)


@given(st.text())
def test_any_value_of_a_setting_is_taken(text: str) -> None:
    assert parse_value(text) is None or isinstance(parse_value(text), bool | int | float | str)


@pytest.mark.parametrize("text", ["", "32", "32,", "32,0", "-1,3", "a,b", "1,2,3", "9999,1"])
def test_sizes_of_images_are_checked(text: str) -> None:
    with pytest.raises(UsageError, match="--size"):
        parse_size(text)
