"""The matrix from the shell: every cell runs, a second call does nothing twice, the page comes back from the rows, bad input is told."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelward.cli.main import main
from modelward.core.canonical import digest_of

ASKED = ["matrix", "--profile", "smoke", "--arch", "mlp:width=24", "--method", "sac", "--method", "uchida", "--jobs", "1", "--quiet"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("matrix")
    assert main([*ASKED, "--out", str(folder)]) == 0
    return folder


def test_every_cell_is_there_and_says_it_is_no_evidence(shown: Path) -> None:
    document = json.loads((shown / "matrix.json").read_text())
    names = [row["name"] for row in document["matrix"]["rows"]]
    assert names == ["sac, hardened", "uchida, hardened"]
    states = {row["name"]: {a: c["state"] for a, c in row["cells"].items()} for row in document["matrix"]["rows"]}
    assert not document["failed"]["sac, hardened"]
    assert not document["failed"]["uchida, hardened"]
    assert "smoke: not evidence" in document["sentences"][0]
    assert states["sac, hardened"]["overwrite"] == "not tested"  # no rule asks for it against an intrinsic fingerprint
    assert states["uchida, hardened"]["overwrite"] != "not tested"
    assert states["uchida, hardened"]["permute"] != "not tested"
    assert states["uchida, hardened"]["extract-p"] == "not tested"
    table = list(csv.reader((shown / "matrix.csv").read_text().splitlines()))
    assert [line[0] for line in table[1:]] == names


def test_the_thresholds_are_those_of_before(shown: Path) -> None:
    document = json.loads((shown / "matrix.json").read_text())
    assert digest_of(document["thresholds"]) == document["frozen"]
    for row in document["rows"]:
        if row["metric"] == "after_attack" and row["value"] is not None:
            assert row["extra"]["threshold"] == document["thresholds"][f"{row['method']}, {row['variant']}"]["threshold"]
            assert row["extra"]["matches"] == (row["value"] <= row["extra"]["threshold"])


@pytest.mark.usefixtures("shown")
def test_thieves_of_what_is_not_changed_are_the_same_for_all_who_hold_a_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*ASKED, "--method", "sac-jc", "--out", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    models = {(row["attack"], row["budget"], row["method"]): row["model"] for row in document["rows"] if row["metric"] == "after_attack"}
    shared = [(attack, budget) for attack, budget, method in models if method == "sac-jc"]
    assert shared
    assert all(
        models[attack, budget, "sac"] == models[attack, budget, "sac-jc"] for attack, budget in shared if (attack, budget, "sac") in models
    )


def test_a_page_is_made_again_from_its_rows_alone(shown: Path, tmp_path: Path) -> None:
    assert main(["matrix", "--from", str(shown / "matrix.json"), "--out", str(tmp_path), "--quiet"]) == 0
    for ending in ("html", "csv"):
        assert (tmp_path / f"matrix.{ending}").read_bytes() == (shown / f"matrix.{ending}").read_bytes()


def test_a_dry_run_does_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*ASKED, "--seed", "77", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"] > 20
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: {**d, "version": 2}, "newer modelward"),
        (lambda d: {**d, "schema": "modelward/report"}, "its schema is not modelward/matrix"),
        (lambda d: {**d, "rows": [{}]}, "damaged"),
        (lambda d: {**d, "rows": 3}, "damaged"),
        (lambda d: {k: v for k, v in d.items() if k != "matrix"}, "damaged"),
    ],
)
def test_a_document_that_is_none_is_refused(
    shown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    path = tmp_path / "other.json"
    path.write_text(json.dumps(change(json.loads((shown / "matrix.json").read_text()))))
    assert main(["matrix", "--from", str(path), "--quiet"]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "uchda"], "did you mean 'uchida'"),
        (["--variant", "best"], "variant is hardened or paper"),
        (["--method", "ftal"], "is no ownership method"),
        (["--arch", "lenet6"], "did you mean 'lenet5'"),
    ],
)
def test_wrong_words_are_told(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert main(["matrix", "--profile", "smoke", "--quiet", *arguments]) == 4
    assert words in " ".join(capsys.readouterr().err.split())
