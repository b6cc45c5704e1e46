"""The survey of locks is made of rows and cards and of nothing else."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from modelward.audit.active_survey import active_survey, lockings, read_survey
from modelward.cli.main import main
from modelward.core.errors import FormatError, UsageError
from modelward.evaluation.store import Store
from modelward.report.active_survey import REQUIREMENTS, render_survey, summary, write_survey

CARD = {"m": {"carrier": "a key", "identity": "by name", "revocable": "at once", "black_box": "yes", "granularity": "", "overhead": ""}}

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"


def row(metric: str, value: float, *, attack: str = "", unit: str = "fraction", n: int = 100, **extra: Any) -> dict[str, Any]:
    return {
        "method": "m", "variant": "hardened", "metric": metric, "value": value, "n": n, "unit": unit, "attack": attack, "budget": "", "flags": [],
        "ci_low": value, "ci_high": value, "extra": {"chance": 0.1, **extra},
    }  # fmt: skip


def judged(*rows: dict[str, Any]) -> dict[str, bool | None]:
    whole = [row("original", 0.8), row("authorised", 0.8), row("unauthorised", 0.12)]
    kept = [first for first in whole if first["metric"] not in {other["metric"] for other in rows}]
    return {name: found["passes"] for name, found in summary([*kept, *rows], CARD)["rows"][0]["requirements"].items()}


def test_nothing_is_claimed_without_a_row() -> None:
    made = summary([], CARD, {"m, hardened": "no images"})["rows"][0]
    assert made["why"] == "no images"
    assert all(found["passes"] is None for found in made["requirements"].values())
    assert [name for name, found in made["requirements"].items() if found["text"]] == ["revocability", "black-box feasibility"]


@pytest.mark.parametrize(
    ("requirement", "good", "bad"),
    [
        ("effectiveness", row("authorised", 0.781), row("authorised", 0.779)),
        ("denial", row("unauthorised", 0.149), row("unauthorised", 0.151)),
        ("denial", row("unauthorised", 0.49, ceiling=0.5), row("unauthorised", 0.51, ceiling=0.5)),
        ("security", row("guessed_keys_open", 0.0, n=20), row("guessed_keys_open", 0.05, n=20)),
        ("uniqueness", row("users_named", 1.0, n=3), row("users_named", 2 / 3, n=3)),
        ("fidelity", row("fidelity_drop", 0.019), row("fidelity_drop", 0.021)),
        ("robustness", row("recovered", 0.249, attack="prune", from_scratch=None), row("recovered", 0.251, attack="prune", from_scratch=None)),
        ("robustness", row("recovered", 0.5, attack="ftal", from_scratch=0.48, from_scratch_ci=[0.46, 0.51]),
                       row("recovered", 0.52, attack="ftal", from_scratch=0.48, from_scratch_ci=[0.46, 0.51])),
    ],
)  # fmt: skip
def test_every_gate_has_two_sides(requirement: str, good: dict[str, Any], bad: dict[str, Any]) -> None:
    assert judged(good)[requirement] is True
    assert judged(bad)[requirement] is False


def test_a_lock_that_can_be_cut_out_is_not_secure() -> None:
    assert judged(row("guessed_keys_open", 0.0, n=20), row("stripped", 0.14))["security"] is True
    assert judged(row("guessed_keys_open", 0.0, n=20), row("stripped", 0.8))["security"] is False


def test_a_lock_that_another_builds_key_opens_is_not_secure() -> None:
    assert judged(row("guessed_keys_open", 0.0, n=20), row("foreign_keys_open", 0.0, n=8))["security"] is True
    assert judged(row("guessed_keys_open", 0.0, n=20), row("foreign_keys_open", 0.125, n=8))["security"] is False


def test_one_attempt_that_works_decides_however_many_fail() -> None:
    tried = [row("recovered", 0.1, attack=f"a{i}", from_scratch=None) for i in range(9)] + [
        row("recovered", 0.6, attack="b", from_scratch=None)
    ]
    line = summary([row("original", 0.8), *tried], CARD)["rows"][0]
    assert line["requirements"]["robustness"] == {"text": "0.600 [0.60, 0.60] by b", "passes": False}
    assert line["attempts"][0]["attack"] == "b"


class Tags(HTMLParser):
    """Count cells and links that load something."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.loads = 0, 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.cells += tag == "td"
        self.loads += any(name in {"src", "href"} and not (value or "").startswith("#") for name, value in attrs)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    store = Store(tmp_path_factory.mktemp("survey"))
    return active_survey(
        arch="mlp:width=16", profile="smoke", methods=("advparams", "dataset-lock"), store=store, jobs=1, command="modelward matrix"
    )


def test_the_smoke_survey_runs_and_its_page_stands_alone(document: dict[str, Any], tmp_path: Path) -> None:
    assert [line["name"] for line in document["survey"]["rows"]] == ["advparams, hardened", "dataset-lock, hardened"]
    assert not document["unmade"]
    page, table, rows = write_survey(document, tmp_path)
    tags = Tags()
    tags.feed(page.read_text())
    assert tags.cells >= 2 * len(REQUIREMENTS)
    assert tags.loads == 0
    assert [line[0] for line in csv.reader(table.read_text().splitlines())] == ["lock", "advparams, hardened", "dataset-lock, hardened"]
    again = read_survey(rows)
    assert again["survey"] == document["survey"]
    assert render_survey(again) == page.read_text()
    metrics = {found["metric"] for found in document["rows"] if found["method"] == "dataset-lock"}
    assert metrics >= {
        "original",
        "authorised",
        "unauthorised",
        "equal_noise",
        "recovered",
        "restored",
        "users_named",
        "stealth",
        "issue_seconds",
    }
    tried = {found["attack"]: found["extra"] for found in document["rows"] if found["metric"] == "recovered"}
    assert {"labels renamed", "adversarial training", "autoencoder", "median filter", "10% clean images beside"} <= set(tried)
    for attack in ("labels renamed", "autoencoder", "undo-gradient", "reverse-lock", "fill-outliers"):
        assert tried[attack]["from_scratch"] is not None, attack
    assert all("of another build" in line["requirements"]["security"]["text"] for line in document["survey"]["rows"])
    assert all(line["requirements"]["scalability"]["text"] for line in document["survey"]["rows"])


def test_the_shell_writes_the_page_of_a_survey_again(document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_survey(document, tmp_path / "first")[2]
    words = ["matrix", "--view", "active-survey", "--from", str(source), "--out", str(tmp_path / "second")]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert document["headline"] in " ".join(told.split())
    assert "advparams, hardened" in told
    assert (tmp_path / "second" / "active-survey.html").read_bytes() == (tmp_path / "first" / "active-survey.html").read_bytes()
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["schema"], said["survey"]) == ("modelward/active-survey", document["survey"])
    assert main(["matrix", "--view", "active-survey", "--profile", "smoke", "--dry-run", "--method", "advparam"]) == 4
    assert "did you mean" in capsys.readouterr().err


def test_documents_of_others_and_unknown_locks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"schema": "modelward/matrix", "version": 1}')
    with pytest.raises(FormatError):
        read_survey(tmp_path / "x.json")
    for arguments, words in ((((["advparam"]), ["hardened"], "quick"), "did you mean"), ((["sac"], ["hardened"], "quick"), "no lock"),
                             (([], ["best"], "quick"), "variant is"), (([], ["paper"], "quik"), "profile is")):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            lockings(*arguments)


def test_the_committed_survey_is_made_of_its_rows() -> None:
    again = read_survey(RESULTS / "active-survey.json")
    assert {line["name"].partition(",")[0] for line in again["survey"]["rows"]} == {
        "activeguard",
        "advparams",
        "dataset-lock",
        "sample-lock",
    }
    assert render_survey(again) == (RESULTS / "active-survey.html").read_text()
