"""The survey's table: attributes from cards, every figure from a row, and nothing where there is none."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from modelward.cli.main import main
from modelward.core.card import Taxonomy
from modelward.core.catalogue import catalogue
from modelward.core.claims import Claim
from modelward.core.errors import UsageError
from modelward.core.families import OwnershipMethod
from modelward.report.matrix import summary
from modelward.report.measures import UNTESTED
from modelward.report.survey_page import ATTRIBUTES, BASIC, CUSTOMISED, NOBODY, RESISTANCE, attributes, render_survey, survey, survey_csv
from modelward.report.views import VIEWS, view_named

COMMITTED = Path(__file__).parents[2] / "docs" / "results" / "matrix.json"


def row(metric: str, value: float, *, method: str = "zhang", attack: str = "", seconds: float = 1.0, **extra: Any) -> dict[str, Any]:
    """Return a row of the matrix."""
    return {
        "method": method, "variant": "hardened", "metric": metric, "value": value, "n": 10, "attack": attack, "budget": "", "extra": extra, "flags": [],
        "seconds": seconds,
    }  # fmt: skip


def stolen(attack: str, *, matches: bool, seconds: float = 1.0) -> dict[str, Any]:
    return row("after_attack", 0.5, attack=attack, seconds=seconds, matches=matches, useful=True, drop=0.01, accuracy=0.8)


def whole() -> list[dict[str, Any]]:
    return [
        row("verification", 0.0, seconds=0.25, matches=True, p=0.04, needs="label", forgeable=True), row("queries", 100.0), row("fidelity_drop", 0.012),
        row("forged_key_fits", 1.0), stolen("ftal", matches=True), stolen("prune", matches=False, seconds=7), stolen("wrap-jpeg", matches=True),
        stolen("overwrite", matches=False, seconds=3), row("verification", 0.0, method="nobody's", matches=True),
    ]  # fmt: skip


def test_every_figure_comes_from_a_row_and_what_has_none_was_not_tested() -> None:
    claims = {"zhang": [Claim("survives pruning", attack="prune"), Claim("survives distilling", attack="distil")]}
    line, bare = survey(summary(whole(), claims=claims))
    assert line["basic"]["points of accuracy lost"] == "1.2"
    assert line["basic"]["verifies"] == "yes, p 0.04"
    assert list(line["resistance"].values()) == ["1 of 2", "1 of 1", "0 of 1", "3.0 s, overwrite", "yes", NOBODY]
    assert list(line["customised"].values()) == ["label, 100 queries", "a dated commitment", NOBODY, "0.25", UNTESTED]
    assert [claim["verdict"] for claim in line["claims"]] == ["violated", "not tested"]
    assert set(bare["resistance"].values()) == {UNTESTED}
    assert set(bare["attributes"].values()) == {"not known here"}
    empty = survey(summary([]) | {"rows": summary([], unmade={"passport, hardened": "no gates"})["rows"]})[0]
    assert {*empty["basic"].values(), *empty["resistance"].values(), *empty["customised"].values()} == {UNTESTED, NOBODY}
    assert empty["why"] == "no gates"


def test_the_six_attributes_are_those_of_every_card() -> None:
    for name, kind in catalogue().items():
        if issubclass(kind, OwnershipMethod):
            assert isinstance(kind.card.taxonomy, Taxonomy)
            assert list(attributes(name)) == list(ATTRIBUTES)
            assert "not known here" not in attributes(name).values()


def test_the_page_and_the_table_hold_the_same(tmp_path: Path) -> None:
    assert main(["matrix", "--from", str(COMMITTED), "--view", "ip-survey", "--out", str(tmp_path), "--quiet"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"matrix.html", "matrix.csv", "matrix.json", "ip-survey.html", "ip-survey.csv"}
    lines = list(csv.reader(io.StringIO((tmp_path / "ip-survey.csv").read_text())))
    names = [line["name"] for line in json.loads(COMMITTED.read_text())["matrix"]["rows"]]
    assert [line[0] for line in lines[1:]] == names
    assert all(len(line) == 2 + len(ATTRIBUTES) + len(BASIC) + len(RESISTANCE) + len(CUSTOMISED) for line in lines)
    page = (tmp_path / "ip-survey.html").read_text()
    assert all(f">{name}</th>" in page for name in names)
    assert "http" not in page


def test_what_a_row_says_is_shown_as_text() -> None:
    made = summary(whole(), unmade={"uchida, hardened": "no <layer>"})
    facts = dict.fromkeys(("title", "headline", "command", "frozen", "modelward", "profile", "created", "data", "arch"), "x")
    page = render_survey({**facts, "sentences": [], "accuracy": 0.9, "matrix": made})
    assert "no &lt;layer&gt;" in page
    assert "no <layer>" not in page
    assert survey_csv(survey(made)).count("\n") == 1 + len(made["rows"])


def test_a_view_that_there_is_not_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "ip-survey" in VIEWS
    with pytest.raises(UsageError, match="did you mean 'ip-survey'"):
        view_named("ip-servey")
    assert main(["matrix", "--view", "ip-servey", "--profile", "smoke", "--quiet"]) == 4  # before anything is measured
    assert "did you mean" in capsys.readouterr().err
