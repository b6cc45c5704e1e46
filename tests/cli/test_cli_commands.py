"""Every command against stand-ins: what it asks of the floors below, what it prints, its exit code, its JSON."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelward.audit.calibrating import Calibrating
from modelward.core.verdict import Misses
from modelward.models import Convention


def told(text: str) -> dict[str, Any]:
    """Return the one JSON object of stdout."""
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert list(document)[:2] == ["schema", "version"]
    assert document["schema"].startswith("modelward/")
    return dict(document)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--mean", "a,b"), "--mean takes numbers"),
        (("--range", "0"), "two different numbers"),
        (("--std", "0"), "std not 0"),
        (("--channels", "gbr"), "'rgb', 'bgr'"),
    ],
)
def test_conventions_that_make_no_sense_are_usage_errors(
    arguments: tuple[str, ...], words: str, shell: Callable[..., Any], world: Any
) -> None:
    del world
    found = shell("audit", "--model", "m.safetensors", *arguments)
    assert found.code == 4
    assert words in found.err


def test_audit_asks_what_it_was_told(shell: Callable[..., Any], world: Any, tmp_path: Path) -> None:
    found = shell(
        "audit", "--model", "m.safetensors", "--arch", "cnn", "--data", "d", "--trained-on", "train", "--size", "32,28", "--jobs", "2",
        "--profile", "smoke", "--seed", "7", "--threads", "2", "--out", tmp_path, "--quiet",
        "--range", "-1,1", "--std", "1/2,0.25,1", "--channels", "bgr",
    )  # fmt: skip
    assert found.code == 1  # the report fails the model
    (question, _), options = world.called("audit")
    assert vars(question) == {
        "model": Path("m.safetensors"), "arch": "cnn", "data": "d", "profile": "smoke", "seed": 7, "trained_on": "train",
        "threads": 2, "size": (32, 28), "convention": Convention(range=(-1, 1), std=(0.5, 0.25, 1), channels="bgr"),
    }  # fmt: skip
    assert options["jobs"] == 2
    assert options["command"].startswith("modelward audit --model m.safetensors --arch cnn")
    assert world.called("write")[0][1] == tmp_path


def test_audit_prints_the_verdict_first_and_the_report_last(shell: Callable[..., Any], world: Any) -> None:
    del world
    found = shell("audit")
    lines = found.out.splitlines()
    assert lines[0] == "This model needs attention: evasion."
    assert lines[1] == "Thieves are recognised: AUC .99."
    assert lines[2] == "[red] \\x1b[31m"
    assert lines[-1] == "report: modelward-report/report.html"
    assert "✓ passed" in found.out
    assert "✗ failed" in found.out
    assert "chatter" not in found.out
    assert "23 of 35 cells to do, about 1 min 21 s" in found.err
    assert "chatter" in found.err
    assert "audit 28 % 12/35 cells null 3" in found.err


def test_audit_json_is_the_report(shell: Callable[..., Any], world: Any) -> None:
    del world
    found = shell("audit", "--json", "--quiet")
    document = told(found.out)
    assert document["schema"] == "modelward/report"
    assert document["files"] == {"html": "modelward-report/report.html", "json": "modelward-report/report.json"}
    assert document["cost"]["nothing"] is None
    assert document["command"] == "modelward audit --json --quiet"
    assert found.err == "chatter\n"


def test_dry_run_runs_nothing(shell: Callable[..., Any], world: Any) -> None:
    found = shell("audit", "--dry-run")
    assert found.code == 0
    assert "audit" not in world.names()
    assert "23 of 35 cells to do, about 1 min 21 s, up to 900.0 MiB of memory. Nothing was run." in found.out
    assert told(shell("audit", "--dry-run", "--json").out)["lines"][0] == {"work": "null models", "cells": 20, "seconds": 61.0}


def test_protect_enrols_and_writes_the_key(shell: Callable[..., Any], world: Any, tmp_path: Path) -> None:
    out = tmp_path / "k.mw"
    world.answers |= {"read_secret": "hunter2"}
    found = shell(
        "protect", "sac-jc", "--out-key", out, "--calibrate", "quick", "--set", "count=400", "--set", "eps=1/4", "--variant", "paper",
        "--jobs", "1",
        "--passphrase-file", "p",
    )  # fmt: skip
    assert found.code == 0
    (method, settings, question), options = world.called("enrol")
    assert (method, settings, question.data) == ("sac-jc", {"count": 400, "eps": 0.25, "variant": "paper"}, "fashion-mini")
    assert (options["calibrating"], options["nulls"], options["jobs"]) == (Calibrating(profile="quick"), None, 1)
    assert world.called("dry_run_enrol")[0][3] == Calibrating(profile="quick")
    assert world.names().index("dry_run_enrol") < world.names().index("enrol")
    assert world.called("write_key")[0][0] == out
    assert world.called("write_key")[1] == {"passphrase": "hunter2"}
    assert f"key: {out} (encrypted)" in found.out
    assert "hunter2" not in found.out + found.err
    assert "about 1 min 21 s" in found.err


def test_an_uncalibrated_key_is_warned_of(shell: Callable[..., Any], world: Any, tmp_path: Path) -> None:
    from modelward.core.key import Key

    world.answers["enrol"] = types.SimpleNamespace(model=None, changed=False, key=Key("sac-jc", "hardened", "00", {"calibrated": False}))
    found = shell("protect", "sac-jc", "--out-key", tmp_path / "k.mw", "--json")
    assert "the key has no siblings: every verdict will be undecided" in found.err
    assert "--calibrate quick" in found.err
    assert "--train package.module:function --siblings 19" in found.err
    assert "dry_run_enrol" not in world.names()
    assert told(found.out) | {"calibrated": False, "encrypted": False} == told(found.out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--calibrate", "quick", "--train", "m:f"], "--calibrate and --train are different ways to siblings; pass one"),
        (["--calibrate", "quick", "--sibling-models", "d"], "--calibrate and --sibling-models are different ways"),
        (["--train", "m:f", "--recipe", "matched"], "--train and --recipe matched are different ways"),
        (["--calibrate", "quick", "--base", "b", "--start", "s"], "both say where training began; pass one"),
        (["--train", "m:f", "--siblings", "20"], "--siblings is 19, 39, 59, 99 (other numbers make the test coarser for nothing), not 20"),
        (["--siblings", "0"], "not 0"),
        (["--calibrate", "slow"], "'smoke', 'quick', 'full'"),
        (["--recipe", "own"], "'matched'"),
        (["--set", "count"], "name=value"),
        (["--set", "a=1", "--set", "a=2"], "twice"),
        (["--set", "variant=paper", "--variant", "hardened"], "one of the two"),
    ],
)
def test_protect_refuses_what_contradicts_itself(
    arguments: list[str], words: str, shell: Callable[..., Any], world: Any, tmp_path: Path
) -> None:
    found = shell("protect", "sac-jc", "--out-key", tmp_path / "k.mw", *arguments)
    assert found.code == 4
    assert words in found.err
    assert "enrol" not in world.names()


def test_a_key_is_never_overwritten_and_its_folder_is_looked_for_first(shell: Callable[..., Any], world: Any, tmp_path: Path) -> None:
    (tmp_path / "k.mw").write_bytes(b"old")
    assert "never overwritten" in shell("protect", "sac-jc", "--out-key", tmp_path / "k.mw").err
    assert "does not exist" in shell("protect", "sac-jc", "--out-key", tmp_path / "absent" / "k.mw").err
    assert world.names() == []


def test_protect_dry_run_writes_nothing(shell: Callable[..., Any], world: Any, tmp_path: Path) -> None:
    found = shell("protect", "sac-jc", "--out-key", tmp_path / "k.mw", "--calibrate", "full", "--dry-run")
    assert (found.code, world.called("dry_run_enrol")[0][3]) == (0, Calibrating(profile="full"))
    assert "enrol" not in world.names()
    assert "Nothing was run" in shell("protect", "sac-jc", "--out-key", tmp_path / "k.mw", "--dry-run").out


def test_protect_asks_for_the_siblings_it_was_told_of(shell: Callable[..., Any], world: Any, tmp_path: Path) -> None:
    out = tmp_path / "k.mw"
    told_of = ("--train", "mine.code:train", "--siblings", "39", "--base", "b.safetensors", "--trained-on", "images", "--no-thieves")
    assert shell("protect", "sac", "--out-key", out, *told_of).code == 0
    asked = Calibrating(train="mine.code:train", count=39, base="b.safetensors", trained_on="images", thieves=False)
    (_, _, question), options = world.called("enrol")
    assert options["calibrating"] == asked
    assert asked.wanted
    assert question.trained_on is None  # a set of its own, no part of --data
    assert (
        shell("protect", "sac", "--out-key", out, "--sibling-models", "d", "--start", "s", "--trained-on", "owner", "--nulls", "n").code
        == 0
    )
    (_, _, question), options = world.called("enrol")
    assert (options["calibrating"].models, options["calibrating"].start, options["nulls"]) == (Path("d"), Path("s"), Path("n"))
    assert question.trained_on == "owner"
    assert shell("protect", "sac", "--out-key", out, "--recipe", "matched", "--base", "none").code == 0
    assert world.called("enrol")[1]["calibrating"] == Calibrating(matched=True, base="none")


@pytest.mark.parametrize(("decision", "code"), [("stolen", 1), ("related", 1), ("not stolen", 0), ("undecided", 3)])
def test_verify_exit_codes(
    decision: str, code: int, shell: Callable[..., Any], world: Any, tmp_path: Path, make_verdict: Callable[..., Any]
) -> None:
    suspect = tmp_path / "s.safetensors"
    suspect.write_bytes(b"")
    world.answers["judge"] = make_verdict(decision)
    found = shell("verify", suspect, "--key", "k.mw", "--arch", "cnn")
    assert found.code == code
    assert found.out.startswith(f"{decision.upper()}{' (weak evidence)' if code == 1 else ''}: ")
    assert (world.called("judge")[0][0], world.called("judge")[0][2]) == (suspect, "cnn")
    document = told(shell("verify", suspect, "--key", "k.mw", "--json").out)
    assert (document["schema"], document["version"], document["decision"], document["exit_code"]) == (
        "modelward/verdict",
        2,
        decision,
        code,
    )
    assert document["misses"] == {"missed": 1, "tried": 20}
    quiet = shell("verify", suspect, "--key", "k.mw", "--quiet").out.splitlines()
    assert len(quiet) >= 2  # what a reader has to know first is never left out
    assert quiet[-1].startswith("By the owner's word training began")


def test_a_verdict_tells_every_figure(shell: Callable[..., Any], world: Any, tmp_path: Path) -> None:
    del world
    suspect = tmp_path / "answers.csv"
    suspect.write_text("file,label\n", encoding="utf-8")
    words = " ".join(shell("verify", suspect, "--key", "k.mw").out.split())
    for piece in (
        "STOLEN (weak evidence): answers.csv has what the model behind k.mw has of its own", "By the owner's word training began",
        "0.0123 deviation not shared (temp)", "0.0456, where p is at most 0.05", "0.05: none of 19 siblings of the owner's model is as close",
        "1 of 20 thefts tried at enrolment would be missed, at most 22 % with 95 % confidence",
        "2 of 20 independent models that were asked at enrolment would be accused", "1,234 images, access: weights", "Why, and what this does not show",
        "does not prove how the suspect was made",
    ):  # fmt: skip
        assert piece in words


def test_an_uncalibrated_verdict_says_not_measured(
    shell: Callable[..., Any], world: Any, tmp_path: Path, make_verdict: Callable[..., Any]
) -> None:
    suspect = tmp_path / "s.safetensors"
    suspect.write_bytes(b"")
    nothing = {"threshold": None, "p_value": None, "draws": 0, "nulls": 0, "false_claims": 0, "misses": Misses()}
    world.answers["judge"] = make_verdict("undecided", **nothing)
    text = shell("verify", suspect, "--key", "k.mw").out
    assert "none: too few draws stand behind the key" in text
    assert "not known: no thefts were tried at enrolment" in text
    assert "no independent models were asked at enrolment" in text
    assert told(shell("verify", suspect, "--key", "k.mw", "--json").out)["p_value"] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"p_value": 0.1}, "0.1: 1 of 19 siblings of the owner's model is as close"),
        ({"p_value": 0.5, "decision": "not stolen"}, "0.5: 9 of 19 siblings of the owner's model are as close"),
        ({"p_value": 1.0}, "1: 19 of 19 siblings of the owner's model are as close"),
        ({"p_value": 1 / 200, "draws": 199, "draws_of": "other secrets"}, "0.005: none of 199 other secrets is as close"),
        (
            {"p_value": 2e-9, "draws": 499_999_999, "draws_of": "exact distribution"},
            "2e-09: the chance of such a match by luck, counted exactly",
        ),
        (
            {"decision": "related"},
            "RELATED (weak evidence): s.safetensors and the model behind k.mw: one was made from the other, or both from a third.",
        ),
        ({"decision": "not stolen"}, "and few thieves would be missed."),
        ({"decision": "undecided"}, "UNDECIDED: nothing can be concluded about s.safetensors with k.mw."),
    ],
)
def test_verdicts_in_words(
    changes: dict[str, Any], words: str, shell: Callable[..., Any], world: Any, tmp_path: Path, make_verdict: Callable[..., Any]
) -> None:
    suspect = tmp_path / "s.safetensors"
    suspect.write_bytes(b"")
    world.answers["judge"] = make_verdict(**changes)
    assert words in " ".join(shell("verify", suspect, "--key", "k.mw").out.split())


def test_an_absent_suspect_names_the_nearest_file(shell: Callable[..., Any], world: Any, tmp_path: Path) -> None:
    (tmp_path / "suspect.safetensors").write_bytes(b"")
    found = shell("verify", tmp_path / "suspct.safetensors", "--key", "k.mw")
    assert (found.code, world.names()) == (4, [])
    assert "did you mean 'suspect.safetensors'" in found.err


def test_probes_tells_what_to_do_next(shell: Callable[..., Any], world: Any, tmp_path: Path) -> None:
    found = shell("probes", "my key.mw", "--out", tmp_path / "p")
    assert found.code == 0
    assert world.called("write_probes")[0][1] == tmp_path / "p"
    assert "modelward verify answers.csv --key 'my key.mw'" in found.out
    assert told(shell("probes", "k.mw", "--out", tmp_path, "--json").out)["images"] == 800


def test_key_show_shows_no_array(shell: Callable[..., Any], world: Any) -> None:
    del world
    found = shell("key", "show", "k.mw")
    assert found.code == 0
    assert "800x1x28x28 uint8, not shown" in found.out
    assert "4 values, 0.1 to 0.4" in found.out
    document = told(shell("key", "show", "k.mw", "--json").out)
    assert document["arrays"] == {"probes": {"type": "uint8", "shape": [800, 1, 28, 28]}}
    assert "77" not in found.out + json.dumps(document)


def test_reproduce(shell: Callable[..., Any], world: Any, tmp_path: Path) -> None:
    world.answers["reproduce"] = {
        "verdict": {"sentences": ["All gates passed."]}, "files": [str(tmp_path / "sac-jc.json"), str(tmp_path / "sac-jc.md")],
    }  # fmt: skip
    found = shell("reproduce", "sac-jc", "--profile", "full", "--seed", "3", "--out", tmp_path, "--jobs", "2")
    assert found.code == 0
    (name,), options = world.called("reproduce")
    assert name == "sac-jc"
    assert {k: v for k, v in options.items() if k != "store"} == {"profile": "full", "seed": 3, "jobs": 2, "out": tmp_path}
    assert found.out == f"All gates passed.\nresults: {tmp_path / 'sac-jc.json'} and {tmp_path / 'sac-jc.md'}\n"
    assert told(shell("reproduce", "sac-jc", "--json").out)["schema"] == "modelward/reproduction"
    assert shell("reproduce").out == "recipes: sac, sac-jc\n"
    unknown = shell("reproduce", "sac-jx")
    assert unknown.code == 4
    assert "did you mean 'sac-jc'" in unknown.err
    assert "known: sac, sac-jc" in unknown.err


def test_convert(shell: Callable[..., Any], world: Any, tmp_path: Path) -> None:
    world.answers["convert_pt"] = lambda _source, target: target.write_bytes(b"12345")
    found = shell("convert", "a.pt", tmp_path / "b.safetensors")
    assert (found.code, found.out) == (0, f"{tmp_path / 'b.safetensors'}, 5 B\n")
    assert world.called("convert_pt")[0] == (Path("a.pt"), tmp_path / "b.safetensors")
    assert told(shell("convert", "a.pt", tmp_path / "b.safetensors", "--json").out)["bytes"] == 5


@pytest.fixture
def full_store(world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    from modelward.evaluation.store import Store

    cell = {
        "key": "k",
        "label": "null lenet5 #1",
        "work": "w",
        "seed": 1,
        "seconds": 80.0,
        "finished": "2026-01-02T03:04:05+00:00",
        "version": "0",
        "bytes": 2048,
    }
    monkeypatch.setattr(Store, "cells", (cell, cell))
    return world


def test_store_list(shell: Callable[..., Any], full_store: Any) -> None:
    del full_store
    found = shell("store", "list")
    assert "null lenet5 #1" in found.out
    assert "2026-01-02 03:04" in found.out
    assert found.out.endswith("2 finished cells, 4.0 KiB, in /nowhere/store\n")
    assert len(told(shell("store", "list", "--json").out)["cells"]) == 2


def test_store_clear_asks_first(shell: Callable[..., Any], full_store: Any) -> None:
    del full_store
    refused = shell("store", "clear")
    assert refused.code == 4
    assert "--yes" in refused.err
    assert shell("store", "clear", "--yes").out == "2 finished cells forgotten\n"
    assert told(shell("store", "clear", "--json").out)["forgotten"] == 0


def test_a_declined_question_is_nothing_to_do(shell: Callable[..., Any], full_store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    del full_store
    monkeypatch.setattr("modelward.cli.store_commands._can_ask", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert shell("store", "clear").code == 3
    monkeypatch.setattr("typer.confirm", lambda *_, **__: True)
    assert shell("store", "clear").out == "2 finished cells forgotten\n"
