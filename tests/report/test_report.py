"""The page: complete, small, self-contained, escaped, and readable by a machine too."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.core.errors import StoreError
from modelward.report import figures, render, write
from modelward.report.axes import Axes, nice_ticks
from modelward.report.page import CAP, row_groups
from modelward.report.words import interval, number, seconds

CURVE = {
    "kind": "curve", "title": "Accuracy over eps", "x_label": "eps", "y_label": "accuracy", "note": "bands are intervals",
    "series": [
        {"name": "PGD", "role": "main", "x": [0.0, 1.0, 2.0], "y": [0.9, 0.5, 0.1], "low": [0.8, 0.4, 0.0], "high": [1.0, 0.6, 0.2]},
        {"name": "noise", "role": "control", "x": [0.0, 1.0, 2.0], "y": [0.9, 0.9, 0.8], "low": [0.8, 0.8, 0.7], "high": [1.0, 1.0, 0.9]},
    ],
}  # fmt: skip
GROUPS = [{"name": "FTAL", "side": "stolen", "values": [0.1, 0.2]}, {"name": "reseeds", "side": "independent", "values": [0.8, 0.9]}]
PLOTS = [
    CURVE,
    {"kind": "strip", "title": "Distances", "x_label": "statistic", "threshold": 0.5, "groups": GROUPS},
    {"kind": "histogram", "title": "Distances", "x_label": "statistic", "threshold": 0.5, "groups": GROUPS},
    {"kind": "roc", "title": "ROC", "fpr": [0.0, 0.0, 1.0], "tpr": [0.0, 1.0, 1.0], "auc": 1.0, "low": 0.9, "high": 1.0, "n_pos": 2, "n_neg": 2},
    {"kind": "reliability", "title": "Confidence", "ece": 0.07, "bins": [{"accuracy": 0.4, "confidence": 0.5, "n": 10}]},
    {"kind": "bars", "title": "Thieves", "x_label": "accuracy", "items": [{"name": "FTAL", "value": 0.8, "low": 0.7, "high": 0.9, "reference": 0.6}]},
]  # fmt: skip
GALLERY = {
    "kind": "gallery",
    "title": "Errors",
    "items": [{"caption": "cat, is dog", "images": [{"label": "clean", "png": "iVBORw0KGgo="}]}],
}


def row(**changes):
    """Return one result row."""
    base = {
        "metric": "accuracy", "value": 0.8, "n": 100, "ci_low": 0.7, "ci_high": 0.87, "unit": "fraction", "method": "", "variant": "", "profile": "smoke",
        "attack": "pgd", "budget": "linf 8/255", "model": "m", "data": "toy", "seed": 7, "threads": 1, "precision": "fp32", "seconds": 0.1, "flags": [],
        "command": "modelward audit", "extra": {},
    }  # fmt: skip
    return base | changes


def document(**changes):
    """Return a small report with one section that has everything."""
    part = {
        "id": "evasion", "title": "Evasion", "status": "flagged", "lead": "Small changes deceive it.", "plots": [*PLOTS, GALLERY], "flags": ["zero gradient"],
        "rows": [row(), row(attack="noise", flags=["saturated"], extra={"group": "control", "from_scratch": 0.4})], "not_tested": ["Patches."],
        "checks": [{"name": "randomised", "status": "flagged", "text": "answers differ", "fix": "average them"}],
    }  # fmt: skip
    base = {
        "schema": "modelward/report", "version": 1, "modelward": "0.1.0", "command": "modelward audit --seed 3", "profile": "smoke", "title": "Audit of toy",
        "created": "2026-01-01T00:00:00+00:00", "environment": {"python": "3.11"}, "cost": {"cells": 3, "cached": 1, "seconds": 4.2},
        "subject": {"model": "toy", "arch": "cnn", "parameters": 12, "digest": "ab" * 32, "data": "toy", "classes": ["cat", "dog"],
                    "parts": {"test": {"n": 5, "digest": "cd" * 32}}},
        "verdict": {"headline": "Look at evasion.", "status": "flagged", "sentences": ["It was handed over in working order."]}, "sections": [part],
    }  # fmt: skip
    return base | changes


class Outside(HTMLParser):
    """Collects what a page would load, and whether its tags are balanced."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr", "circle", "rect", "path", "polyline", "polygon", "line"})

    def __init__(self):
        super().__init__()
        self.loads, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.loads += [value for name, value in attrs if name in {"src", "href", "data", "action"} and not value.startswith(("#", "data:"))]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        pass


def test_a_page_is_complete_and_loads_nothing():
    page = render(document())
    reader = Outside()
    reader.feed(page)
    assert not reader.loads
    assert not reader.open
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert "url(" not in page
    assert "<script" not in page
    for text in (
        "Look at evasion.",
        "Not tested here",
        "Patches.",
        "average them",
        "modelward audit --seed 3",
        "[70.0 %, 87.0 %]",
        "zero gradient",
    ):
        assert text in page
    assert page.count("<svg") == len(PLOTS)
    assert page.index("Look at evasion.") < page.index("What was looked at")


def test_what_a_file_says_of_itself_cannot_become_code():
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'
    hostile = document(title=evil, command=evil)
    hostile["subject"]["classes"] = [evil]
    hostile["verdict"]["sentences"] = [evil]
    part = hostile["sections"][0]
    part["rows"] = [row(attack=evil, budget=evil, flags=[evil])]
    part["plots"] = [dict(CURVE, title=evil, x_label=evil, series=[dict(CURVE["series"][0], name=evil)] * 2)]
    page = render(hostile)
    assert "<script>" not in page
    assert "<img src=x" not in page


def test_a_page_too_large_drops_its_gallery_and_says_so():
    big = document()
    image = {"caption": "c", "images": [{"label": "l", "png": "A" * (CAP // 4)}]}
    big["sections"][0]["plots"] = [dict(GALLERY, items=[image] * 6)]
    page = render(big)
    assert len(page.encode()) <= CAP
    assert "Left out to keep this page under 5 MB" in page


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot["kind"])
def test_every_figure_is_well_formed_and_says_what_it_shows(plot):
    svg = ET.fromstring(figures.draw(plot))  # noqa: S314  # drawn here
    names = [child.tag.rpartition("}")[2] for child in svg]
    assert names[:2] == ["title", "desc"]
    assert svg[1].text
    width, height = (float(value) for value in svg.attrib["viewBox"].split()[2:])
    for mark in svg.iter():
        if mark.tag.endswith("circle"):
            assert 0 <= float(mark.attrib["cx"]) <= width
            assert 0 <= float(mark.attrib["cy"]) <= height


@pytest.mark.parametrize("plot", [
    dict(CURVE, series=[]), {"kind": "strip", "title": "", "x_label": "", "groups": []}, {"kind": "histogram", "title": "", "x_label": "", "groups": []},
    {"kind": "bars", "title": "", "x_label": "", "items": []}, {"kind": "unknown"},
])  # fmt: skip
def test_a_figure_without_data_is_left_out(plot):
    assert figures.draw(plot) == ""


def test_a_figure_of_one_value_still_has_axes():
    one = {"kind": "strip", "title": "t", "x_label": "x", "groups": [{"name": "a", "side": "stolen", "values": [0.5]}]}
    assert "<circle" in figures.draw(one) or "<path" in figures.draw(one)


def test_legends_tell_series_apart_by_shape_as_well_as_colour():
    named = figures.legend(CURVE)
    assert len({colour for _, colour, _ in named}) == len({shape for _, _, shape in named}) == 2


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_are_round_and_inside(low, span):
    high = low + span
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 11
    assert all(low - 1e-6 * span <= tick <= high + 1e-6 * span for tick in ticks)
    assert ticks == sorted(set(ticks))


@given(st.floats(-100, 100))
def test_axes_map_their_range_on_the_plot_area(value):
    axes = Axes((-100, 100), (0, 1), title="t")
    assert axes.px(-100) <= axes.px(value) <= axes.px(100)


def test_figures_in_words():
    assert number(None, "fraction") == "not measured"
    assert number(0.5, "fraction") == "50.0 %"
    assert interval(row(ci_low=None)) == "\u2013"
    assert seconds(None) == "not measured"
    assert [name for name, _ in row_groups([row(), row(metric="auc_all"), row()])] == ["accuracy", "auc all"]


def test_write_leaves_two_files_and_the_json_is_the_document(tmp_path):
    html, data = write(document(), tmp_path / "deep" / "out")
    assert json.loads(data.read_text()) == document()
    assert html.read_text().startswith("<!doctype html>")
    assert sorted(p.name for p in html.parent.iterdir()) == ["report.html", "report.json"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="--out"):
        write(document(), tmp_path / "file" / "out")
