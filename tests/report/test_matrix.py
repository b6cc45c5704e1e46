"""The matrix is made of rows and of nothing else: states, costs, claims, the page."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.core.catalogue import catalogue
from modelward.core.claims import Claim, all_claims, withstands
from modelward.core.families import OwnershipMethod
from modelward.report.key_words import key_words
from modelward.report.matrix import cell_of, csv_rows, held, leaders, summary
from modelward.report.matrix_page import render_matrix, settings_tried, write_matrix
from modelward.report.measures import METRICS, interval, passes, shown
from modelward.report.pooling import pooled_cell, pooled_measure

FACTS: dict[str, Any] = {
    "title": "Matrix", "headline": "One.", "sentences": ["Two."], "command": "modelward matrix", "frozen": "ab" * 32, "modelward": "0",
    "profile": "smoke", "created": "2026-01-01T00:00:00+00:00", "data": "toy", "arch": "mlp", "accuracy": 0.9, "seconds": 3.0, "environment": {"torch": "2"},
}  # fmt: skip


def before(method: str, metric: str, value: float | None, **extra: Any) -> dict[str, Any]:
    return {
        "method": method,
        "variant": "hardened",
        "metric": metric,
        "value": value,
        "n": 10,
        "attack": "",
        "extra": extra,
        "flags": [],
        "seconds": 1.0,
    }


def after(
    method: str, attack: str, *, matches: bool, drop: float = 0.01, seconds: float = 1.0, value: float | None = 0.5, budget: str = ""
) -> dict[str, Any]:
    extra = {
        "matches": matches,
        "useful": drop <= 0.05,
        "drop": drop,
        "accuracy": 0.9 - drop,
        "images": 100,
        "queries": 0,
        "threshold": 0.4,
    }
    return {**before(method, "after_attack", value), "attack": attack, "budget": budget, "seconds": seconds, "extra": extra}


def whole() -> list[dict[str, Any]]:
    return [
        before("a", "verification", 0.0, matches=True, p=0.04, threshold=0.4),
        before("a", "fidelity_drop", 0.012),
        before("b", "verification", 0.0, matches=True, p=None, threshold=0.4),
        after("a", "ftal", matches=True), after("a", "prune", matches=False, seconds=9.0, budget="sparsity 0.5"),
        after("a", "prune", matches=False, seconds=2.0, budget="sparsity 0.3"), after("b", "ftal", matches=True, drop=0.2),
    ]  # fmt: skip


def test_states_follow_from_the_points() -> None:
    assert cell_of([])["state"] == "not tested"
    assert cell_of([], "why")["state"] == "failed"
    assert cell_of([after("a", "x", matches=True)])["state"] == "robust"
    assert cell_of([after("a", "x", matches=False, drop=0.3)])["state"] == "useless"
    assert cell_of([after("a", "x", matches=True), after("a", "x", matches=False)])["state"] == "broken"
    assert cell_of([after("a", "x", matches=True)], fits=False)["state"] == "fragile"
    assert cell_of([after("a", "x", matches=False, value=None)])["state"] == "broken"  # what cannot be read does not fit


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 0.2), st.floats(0.1, 9)), min_size=1, max_size=6))
def test_one_useful_point_that_does_not_fit_breaks_and_the_cheapest_is_the_cost(points: list[tuple[bool, float, float]]) -> None:
    cell = cell_of([after("a", "x", matches=m, drop=d, seconds=s) for m, d, s in points])
    breaking = [s for m, d, s in points if not m and d <= 0.05]
    assert (cell["state"] == "broken") == bool(breaking)
    assert (cell["break_cost"] or {}).get("seconds") == (min(breaking) if breaking else None)


def test_the_order_of_rows_decides_nothing() -> None:
    first, second = summary(whole()), summary(whole()[::-1])
    assert {row["name"]: {a: c["state"] for a, c in row["cells"].items()} for row in first["rows"]} == {
        row["name"]: {a: c["state"] for a, c in row["cells"].items()} for row in second["rows"]
    }


def of_seeds(*seeds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "repeat": number} for number, rows in enumerate(seeds) for row in rows]


def test_an_attack_that_works_with_one_seed_works_and_says_with_how_many() -> None:
    good = [
        before("a", "verification", 0.1, matches=True, p=0.04),
        after("a", "ftal", matches=True),
        after("a", "prune", matches=True, drop=0.2),
    ]
    bad = [
        before("a", "verification", 0.2, matches=True, p=0.05), after("a", "ftal", matches=False, seconds=9.0), after("a", "prune", matches=True)
    ]  # fmt: skip
    made = summary(of_seeds(good, bad, good), failed={"a, hardened": {"distil": "too large"}})
    (line,) = made["rows"]
    told = {attack: (cell["state"], cell["alike"], cell["seeds"]) for attack, cell in line["cells"].items()}
    assert told == {"ftal": ("broken", 1, 3), "prune": ("robust", 1, 3), "distil": ("failed", 0, 0)}
    assert line["cells"]["ftal"]["break_cost"]["seconds"] == 9.0
    assert line["measures"]["verification"]["extra"]["p"] == 0.05
    page = render_matrix({**FACTS, "matrix": made})
    assert "broken with 1 of 3 seeds" in page
    assert "<small>1/3</small>" in page


def test_a_mark_that_does_not_fit_with_one_seed_is_fragile() -> None:
    rows = of_seeds(*([before("a", "verification", 0.1, matches=fits), after("a", "ftal", matches=True)] for fits in (True, False)))
    (line,) = summary(rows)["rows"]
    assert line["cells"]["ftal"]["state"] == "fragile"
    assert shown("verification", line["measures"]["verification"]) == "no"


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=5))
def test_counts_of_all_seeds_are_added(counts: list[tuple[int, int]]) -> None:
    tried = [(min(hits, n), n) for hits, n in counts]
    row = pooled_measure("strangers_accused", [{**before("a", "strangers_accused", hits / n), "n": n} for hits, n in tried])
    assert row is not None
    assert (row["value"] * row["n"], row["n"]) == pytest.approx((sum(hits for hits, _ in tried), sum(n for _, n in tried)))


def test_losses_are_averaged_with_a_narrower_interval_and_what_was_not_measured_is_left_out() -> None:
    rows = [{**before("a", "fidelity_drop", value), "ci_low": value - 0.02, "ci_high": value + 0.02} for value in (0.01, 0.03, 0.02, 0.02)]
    row = pooled_measure("fidelity_drop", [*rows, None, {**rows[0], "value": None, "n": 0}])
    assert row is not None
    assert (row["value"], row["n"]) == (pytest.approx(0.02), 40)
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((0.01, 0.03))
    assert pooled_measure("fidelity_drop", [None, None]) is None
    assert pooled_measure("forged_key_fits", [before("a", "forged_key_fits", fits) for fits in (0.0, 1.0)])["value"] == 1.0  # type: ignore[index]


def test_of_a_mark_that_stands_out_the_seed_where_it_does_most_is_said() -> None:
    aucs = [{**before("a", "key_image_auc", value), "unit": "auc"} for value in (0.6, 0.2, 0.7)]
    assert pooled_measure("stealth", aucs)["value"] == 0.2  # type: ignore[index]
    ranks = [{**before("a", "stealth", value), "unit": "p"} for value in (0.5, 0.05)]
    assert pooled_measure("stealth", ranks)["value"] == 0.05  # type: ignore[index]


def test_a_claim_without_rows_is_not_tested() -> None:
    claim, about = Claim("survives pruning", attack="prune"), Claim("loses little", metric="fidelity_drop", most=0.02)
    assert held(claim, {}, {})["verdict"] == "not tested"
    assert held(claim, {"prune": {"state": "useless"}}, {})["verdict"] == "not tested"
    assert held(about, {}, {"fidelity_drop": None})["verdict"] == "not tested"
    holding, violating = ({"fidelity_drop": before("a", "fidelity_drop", value)} for value in (0.02, 0.021))
    assert held(about, {}, holding)["verdict"] == "holds"
    assert held(about, {}, violating)["verdict"] == "violated"
    made = summary(whole(), claims={"a": [claim]})
    assert [c["verdict"] for row in made["rows"] for c in row["claims"]] == ["violated"]


def test_a_verdict_names_its_rows_and_stands_beside_the_papers_figure() -> None:
    told = all_claims(
        [
            "names the leaker",
            *withstands("prune", figures={"prune": "65 % of the weights"}),
            Claim("cheap", metric="fidelity_drop", most=0.02),
        ]
    )
    made = summary(whole(), claims={"a": told})
    leaker, prune, cheap = made["rows"][0]["claims"]
    assert (leaker["verdict"], leaker["by"]) == ("not tested", "")
    assert (prune["verdict"], prune["figure"]) == ("violated", "65 % of the weights")
    assert prune["by"] == "prune, 2 rows: at worst (sparsity 0.5) statistic 0.500, fits to 0.400, 1.0 points lost"
    assert (cheap["verdict"], cheap["by"]) == ("holds", "fidelity_drop, 1 row: 1.2, n 10")
    page = render_matrix({**FACTS, "matrix": made})
    assert "names the leaker" in page
    assert "65 % of the weights" in page
    assert Claim(**{name: value for name, value in vars(told[1]).items() if name != "figure"}).figure == ""  # a document of before has none


def test_every_claim_of_a_card_is_in_the_table() -> None:
    for kind in catalogue().values():
        if issubclass(kind, OwnershipMethod):
            assert [str(claim) for claim in kind.card.claims] == [claim.text for claim in all_claims(kind.card.claims)]
            assert all(claim.metric in {"", *METRICS} for claim in all_claims(kind.card.claims))
            assert all(claim.attack in {"", *catalogue()} for claim in all_claims(kind.card.claims))


def test_intervals_bits_and_seconds_are_shown_and_what_was_not_tried_says_why() -> None:
    lost = {**before("a", "fidelity_drop", 0.012), "n": 1000, "ci_low": -0.004, "ci_high": 0.028}
    reason = {**before("a", "forged_key_fits", None), "n": 0, "flags": ["any model gives a key"]}
    bits = [
        before("a", "capacity_bits", 64.0, payload=64), before("a", "capacity_bits", 62.0, payload=64),
        before("a", "capacity_bits", 144.0, payload=144, images=100), before("a", "capacity_bits", None), before("a", "capacity_bits", 0.0),
    ]  # fmt: skip
    assert [shown("capacity_bits", row) for row in bits] == ["64", "62 of 64", "144 in each of 100", "-", "-"]
    assert (interval("fidelity_drop", lost), interval("fidelity_drop", bits[0])) == ("-0.4 to 2.8", "")
    (line,) = summary([before("a", "verification", 0.0, matches=True, p=0.04), lost, reason])["rows"]
    assert (shown("verify_seconds", line["measures"]["verify_seconds"]), shown("forged_key_fits", reason)) == ("1", "not tested")
    page = render_matrix({**FACTS, "matrix": {"attacks": [], "rows": [{**line, "why": ""}]}})
    assert 'title="95 % interval -0.4 to 2.8, n 1000"' in page
    assert 'title="any model gives a key"' in page
    assert "Forging a key: not tested; any model gives a key." in page


def test_the_best_of_q_stands_beside_its_threshold() -> None:
    forged = before("a", "forged_key_fits", 0.5, best={"1": 0.5, "2": 0.1}, threshold=0.2, tries=1000)
    (sentence,) = key_words({"forged_key_fits": forged})
    assert "each the best of 1000 secrets" in sentence
    assert "best of 1 forgery 0.500, best of 2 forgeries 0.100, against the threshold 0.200; one fits" in sentence
    assert key_words({"key_specificity": before("a", "key_specificity", 0.0, best_of={"1": False})}) == []  # a document of before


def test_every_setting_of_an_attack_is_on_the_page_and_the_worst_is_marked() -> None:
    made = summary(whole())
    page = render_matrix({**FACTS, "matrix": made, "rows": whole()})
    assert "sparsity 0.5" in page
    assert "sparsity 0.3" in page
    assert page.count('class="worst"') == 1
    assert settings_tried(whole()).keys() == {("a, hardened", "ftal"), ("a, hardened", "prune"), ("b, hardened", "ftal")}


def test_the_table_says_what_breaking_leaves_and_costs_behind_the_states() -> None:
    header, first, _ = csv_rows(summary(whole()))
    line = dict(zip(header, first, strict=True))
    assert header.index("prune") < header.index("ftal: points lost at worst")
    assert (line["prune"], line["prune: points lost at worst"], line["prune: break cost"]) == ("broken", "1.0", "2.0 s, 100 images")
    assert (line["ftal"], line["ftal: break cost"]) == ("robust", "")


def test_gates_and_words() -> None:
    row = before("a", "key_specificity", 0.0)
    assert (shown("key_specificity", row), passes("key_specificity", row)) == ("0 of 10", True)
    assert (shown("verification", None), passes("verification", None)) == ("", None)
    assert passes("fidelity_drop", before("a", "fidelity_drop", 0.03)) is False
    assert passes("queries", before("a", "queries", 100.0)) is None


def test_the_leaderboard_counts_only_what_was_decided() -> None:
    board = leaders(summary(whole()))
    assert [(e["name"], e["robust"], e["decided"], e["useless"]) for e in board] == [("a, hardened", 1, 2, 0), ("b, hardened", 0, 0, 1)]


class Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.states: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given_ = dict(attrs)
        if tag == "td" and (given_.get("class") or "").startswith("state"):
            self.states.append(str(given_["class"]).split()[1])
        self.links += [str(given_["href"])] if tag == "a" else []
        self.ids |= {str(given_["id"])} if "id" in given_ else set()


def test_the_page_shows_every_cell_and_every_link_leads_somewhere() -> None:
    made = summary(whole(), {"b, hardened": {"rtal": "no <head>"}})
    page = render_matrix({**FACTS, "matrix": made})
    seen = Cells()
    seen.feed(page)
    assert seen.states == ["robust", "broken", "not-tested", "useless", "not-tested", "failed-cell"]
    assert {link[1:] for link in seen.links} <= seen.ids
    assert "no <head>" not in page
    assert "no &lt;head&gt;" in page
    assert "http" not in page


def test_the_files_hold_the_same_table(tmp_path: Path) -> None:
    made = summary(whole())
    paths = write_matrix({**FACTS, "schema": "modelward/matrix", "version": 1, "matrix": made, "rows": whole()}, tmp_path)
    assert [path.name for path in paths] == ["matrix.html", "matrix.csv", "matrix.json"]
    again = json.loads(paths[2].read_text())
    assert summary(again["rows"]) == again["matrix"] == json.loads(json.dumps(made))  # the page can be made again from the rows
    assert list(csv.reader(io.StringIO(paths[1].read_text()))) == [list(line) for line in csv_rows(made)]
    assert render_matrix({**again, "matrix": summary(again["rows"])}) == paths[0].read_text()


@pytest.mark.parametrize("state", ["robust", "broken", "useless", "not tested"])
def test_an_empty_cell_is_empty_in_the_table(state: str) -> None:
    made = summary(whole())
    lines = list(csv_rows(made))
    assert all(len(line) == len(lines[0]) for line in lines)
    assert ("" if state == "not tested" else state) in {cell for line in lines[1:] for cell in line}


def test_undecided_thieves_are_counted_beside_those_that_are_found() -> None:
    common = {"useful": True, "drop": 0.01, "accuracy": 0.8}
    points = [
        {"value": 0.1, "seconds": 1.0, "budget": str(number), "extra": {**common, "matches": decision == "stolen", "decision": decision}}
        for number, decision in enumerate(("stolen", "undecided", "undecided"))
    ]
    cell = cell_of(points)
    assert (cell["state"], cell["undecided"]) == ("broken", 2)
    assert pooled_cell([cell, cell])["undecided"] == 4
