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
            assert document["thresholds"][f"{row['method']}, {row['variant']}"]["key"]
            assert not row["extra"]["matches"] or row["extra"]["p"] <= 0.05 + 1e-12


def test_every_row_says_what_data_and_which_model_and_budgets_are_words(shown: Path) -> None:
    document = json.loads((shown / "matrix.json").read_text())
    assert {row["data"] for row in document["rows"]} == {"fashion-mini"}
    assert all(row["model"] for row in document["rows"])
    protected = {row["model"] for row in document["rows"] if row["protection"] == "uchida, hardened" and row["metric"] != "after_attack"}
    assert protected == {document["thresholds"]["uchida, hardened"]["model"]}
    assert not [row["budget"] for row in document["rows"] if set(row["budget"]) & set("[]{}")]
    assert all(", then " in row["budget"] for row in document["rows"] if row["attack"] == "combined")


def test_bits_neighbours_and_forgeries_are_measured_or_the_reason_is_told(shown: Path) -> None:
    document = json.loads((shown / "matrix.json").read_text())
    measures = {row["name"]: row["measures"] for row in document["matrix"]["rows"]}
    own, fingerprint = measures["uchida, hardened"], measures["sac, hardened"]
    assert own["capacity_bits"]["extra"]["payload"] >= own["capacity_bits"]["value"] > 0
    assert set(own["key_specificity"]["extra"]["kinds"]) == {"random secret", "other user", "secret with one bit changed"}
    assert own["forged_key_fits"]["n"] == 2
    assert own["verify_seconds"]["value"] > 0
    assert fingerprint["capacity_bits"]["value"] is None
    assert fingerprint["forged_key_fits"]["flags"]
    table = [dict(line) for line in csv.DictReader((shown / "matrix.csv").read_text().splitlines())]
    assert next((line["protection"], line["bits"]) for line in table) == ("sac, hardened", "-")
    assert table[0]["forged key fits"] == "not tested"


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


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    asked = ["--arch", "mlp:width=24", "--arch", "mlp:width=16", "--seeds", "2", "--method", "sac", "--method", "passport"]
    assert main(["matrix", "--profile", "smoke", "--jobs", "1", "--quiet", *asked, "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_architectures_have_rows_of_their_own_and_seeds_share_one(several: Path) -> None:
    document = json.loads((several / "matrix.json").read_text())
    made, unmade = ([f"{name}, hardened, mlp:width={width}" for width in (24, 16)] for name in ("sac", "passport"))
    assert [row["name"] for row in document["matrix"]["rows"]] == [*made, *sorted(unmade)]
    assert set(document["unmade"]) == set(unmade)
    assert [(s["arch"], s["seed"]) for s in document["sources"]] == [(f"mlp:width={width}", seed) for width in (24, 16) for seed in (0, 1)]
    assert "mlp:width=24 and mlp:width=16, 2 seeds each, on fashion-mini" in document["sentences"][1]
    assert digest_of(document["thresholds"]) == document["frozen"]
    assert set(document["thresholds"]) == {f"{name}, seed {seed}" for name in (*made, *unmade) for seed in (0, 1)}
    for line in document["matrix"]["rows"][:2]:
        assert {cell["seeds"] for cell in line["cells"].values() if cell["points"]} == {2}
        own = [row for row in document["rows"] if row["protection"] == line["name"] and row["metric"] == "fidelity_drop"]
        assert [row["repeat"] for row in own] == [0, 1]
    thieves = [row["model"] for row in document["rows"] if row["metric"] == "after_attack" and row["attack"] == "ftal"]
    assert len(set(thieves)) == 4  # nobody's thief is another's


@pytest.mark.slow
def test_a_page_of_several_sources_names_them_and_is_made_again_from_rows(several: Path, tmp_path: Path) -> None:
    page = (several / "matrix.html").read_text()
    assert all(f"mlp:width={width}, seed {seed}, accuracy" in page for width in (24, 16) for seed in (0, 1))
    again = ["matrix", "--from", str(several / "matrix.json"), "--view", "ip-survey", "--out", str(tmp_path), "--quiet"]
    assert main(again) == 0
    for ending in ("html", "csv"):
        assert (tmp_path / f"matrix.{ending}").read_bytes() == (several / f"matrix.{ending}").read_bytes()
    assert "mlp:width=16, seed 1" in (tmp_path / "ip-survey.html").read_text()


def test_a_full_matrix_has_two_architectures_three_seeds_and_both_variants(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["matrix", "--profile", "full", "--method", "uchida", "--dry-run", "--json"]) == 0
    protections = [work for work in json.loads(capsys.readouterr().out)["lines"] if "protect" in work["work"]]
    assert [work["cells"] for work in protections] == [2 * 3 * 2]


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
        (["--method", "advparams"], "the locks are measured by --view active-survey"),
        (["--view", "active-survey", "--method", "zhang"], "marks and fingerprints are measured without --view"),
        (["--arch", "mlp", "--arch", "mlp"], "each architecture once"),
        (["--view", "active-survey", "--arch", "mlp", "--arch", "lenet5"], "say --arch once"),
        (["--view", "active-survey", "--seeds", "2"], "leave out --seeds"),
    ],
)
def test_wrong_words_are_told(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert main(["matrix", "--profile", "smoke", "--quiet", *arguments]) == 4
    assert words in " ".join(capsys.readouterr().err.split())
