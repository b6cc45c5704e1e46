"""Conditions to fail on, and JUnit."""

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.core.errors import UsageError
from modelward.report.conditions import NAMES, Condition, condition_checks
from modelward.report.junit import junit_bytes


def row(metric="accuracy", value=0.5, attack="pgd", budget="linf 8/255", **rest):
    return {"metric": metric, "value": value, "ci_low": 0.4, "ci_high": 0.6, "attack": attack, "budget": budget, **rest}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("robust_acc < .4", "passed"), ("robust_acc < .51", "failed"), ("robust_acc<=50%", "failed"), ("robust_acc < 1/2", "passed"),
        ("robust_acc > 0.49", "failed"),
        ("robust_acc.low < .45", "failed"), ("robust_acc.high < .45", "passed"), ("robust_acc[l2 0.5] < .9", "not tested"), ("clean_acc < .99", "not tested"),
        ("accuracy[pgd, linf 8/255] >= .5", "failed"), ("auc < .9", "not tested"), ("accuracy[sac-jc] < 1", "not tested"),
    ],
)  # fmt: skip
def test_a_condition_on_one_row(text, status):
    (check,) = condition_checks([text], [{"rows": [row()]}])
    assert check["status"] == status
    assert check["name"] == text


def test_any_of_several_figures_is_enough_and_is_shown():
    rows = [row("auc", 0.99, "FTAL", ""), row("auc", 0.7, "extract-L", ""), row("auc", None, "prune", "")]
    (check,) = condition_checks(["auc < .8"], [{"rows": rows[:1]}, {"rows": rows[1:]}])
    assert check["status"] == "failed"
    assert "0.7 (extract-L)" in check["text"]
    assert check["fix"] == "1 of 2 figures meet the condition"


def test_a_figure_that_was_not_measured_is_no_pass():
    (check,) = condition_checks(["robust_acc < .4"], [{"rows": [row(value=None)]}])
    assert check["status"] == "not tested"


@pytest.mark.parametrize(
    "text", ["", "robust_acc", "robust_acc = .4", "robust_ac < .4", "robust_acc < lots", "robust_acc < nan",
     "robust_acc < inf", "robust_acc.mid < 1", "robust_acc < 1/0", "< 4", "a < b < c"]
)  # fmt: skip
def test_what_is_no_condition_is_refused_in_one_sentence(text):
    with pytest.raises(UsageError) as caught:
        Condition.parse(text)
    assert "\n" not in str(caught.value)


@given(st.sampled_from(sorted(NAMES)), st.sampled_from(["<", "<=", ">", ">="]), st.floats(0, 1).map(lambda v: f"{v:.6f}"))
def test_every_name_parses_with_every_operator(name, op, limit):
    found = Condition.parse(f"{name} {op} {limit}")
    assert (found.op, found.limit) == (op, float(limit))


def test_junit_counts_and_survives_any_text():
    parts = [
        {"id": "a", "title": "A \x00<&", "status": "flagged", "lead": "x", "checks": [
            {"name": "one", "status": "passed", "text": ""}, {"name": "two\x1b", "status": "failed", "text": "\ud800 bad", "fix": "mend"},
            {"name": "three", "status": "not tested", "text": "why"}]},
        {"id": "b", "title": "B", "status": "not tested", "lead": "nothing", "checks": []},
    ]  # fmt: skip
    root = ET.fromstring(junit_bytes({"title": "Audit of \x07", "sections": parts}))  # noqa: S314  # our own
    assert dict(root.attrib) == {"name": "Audit of ?", "tests": "4", "failures": "1", "skipped": "2"}
    assert [suite.attrib["tests"] for suite in root] == ["3", "1"]
    assert root.find(".//failure").attrib["message"] == "? bad. mend"
