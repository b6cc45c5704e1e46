"""The recipe of the trigger baselines: its smoke run, and what its lines say of rows that we made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelward.core.catalogue import find
from modelward.core.errors import UsageError
from modelward.evaluation.store import Store
from modelward.reproduce.baselines import COLUMNS, SCALES, THEFTS, anchored, decision_line, found, make_scene, share
from modelward.reproduce.tables import markdown
from modelward.reproduce.trigger_baselines import ANCHORS, NAMED, SMALL, SMOKED, _extraction, _gates, trigger_baselines

Rows = list[dict[str, Any]]


def row(attack: str, value: float, n: int = 100, **extra: Any) -> dict[str, Any]:
    """Return a row as the work writes it."""
    said = {"accuracy": 0.9, "matches": value < 0.5, "decision": "undecided", "threshold": 0.4, "p": 1e-9, **extra}
    return {"metric": "statistic", "attack": attack, "value": value, "n": n, "extra": said}


def rows(*, marked: float = 0.0, null: float = 0.95, extracted: float = 0.7) -> Rows:
    """Return what a configuration measures."""
    nulls = [row("null", null, matches=False) for _ in range(20)]
    controls = [row("claimed", null, matches=False, decision="not_stolen"), row("forged", 0.0, matches=True)]
    models = [row("marked", marked), row("unmarked", null, matches=False), row("extract-l", extracted)]
    return [*models, *nulls, row("stranger", null, matches=False), *controls]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the document of a smoke run."""
    store = Store(tmp_path_factory.mktemp("store"))
    return trigger_baselines(profile="smoke", seed=0, store=store, jobs=1, command="modelward reproduce trigger-baselines")


@pytest.mark.slow
def test_a_smoke_run_measures_every_method_and_says_that_it_is_none(smoke: dict[str, Any]) -> None:
    assert {line["configuration"] for line in smoke["rows"]} == set(SMOKED)
    assert {line["method"] for line in smoke["rows"]} == {"adi", "zhang", "frontier", "ewe"}
    assert "not evidence" in smoke["paragraphs"][0]
    environment = {"environment": {}, "seconds": 1.0, "created": "now", "command": "x"}
    page = markdown({**smoke, **environment})
    assert all(f"| {name} |" in page for name in SMOKED)


@pytest.mark.slow
def test_each_configuration_has_its_controls(smoke: dict[str, Any]) -> None:
    for name in SMOKED:
        of = [line for line in smoke["rows"] if line["configuration"] == name]
        kinds = [line["attack"] for line in of]
        assert kinds[:2] == ["marked", "unmarked"]
        assert {"claimed", "forged", "stranger", "ftll", "ftal"} <= set(kinds)
        assert kinds.count("null") == 8
        assert all(line["ci_low"] <= line["value"] <= line["ci_high"] for line in of if line["n"])
        assert not any(line["extra"]["decision"] == "stolen" for line in of)  # nobody committed to anything
    marked = {line["configuration"]: line["value"] for line in smoke["rows"] if line["attack"] == "marked"}
    unmarked = {line["configuration"]: line["value"] for line in smoke["rows"] if line["attack"] == "unmarked"}
    assert all(marked[name] < unmarked[name] for name in SMOKED)


def test_configurations_are_settings_of_their_methods() -> None:
    for method, fields in NAMED.values():
        find(method).configured({**fields, **SMALL[method]})
    assert set(ANCHORS) <= set(NAMED)
    assert {" ".join([m, *map(str, f.values())]) for m, f, _ in THEFTS} == set(COLUMNS) - {"marked"}
    with pytest.raises(UsageError, match="profile is smoke, quick, full"):
        make_scene("huge", 0, None)  # type: ignore[arg-type]
    assert SCALES["quick"].data == "mnist-5k"


def test_shares_are_counts_of_keys_that_were_found() -> None:
    assert found(row("ftal", 0.25, n=8)) == (6, 8)
    assert share(row("ftal", 0.5, n=10)) == ".50 [.19, .81] / .90"
    assert share(None) == "-"
    assert decision_line("x", rows())[1:] == ["0.60", "0.05 to 0.05", "0 of 20", "0 of 1", "no, not stolen", "yes, undecided", "1.0e-09"]


@pytest.mark.parametrize(("anchor", "word"), [(0.5, "inside"), (0.58, "inside"), (0.7, "lower"), (0.3, "higher")])
def test_an_anchor_lies_inside_the_interval_or_on_a_side(anchor: float, word: str) -> None:
    assert [line[-1] for line in anchored("x", [row("ftal", 0.5)], {"ftal": anchor, "rtal": 0.1})] == [word]


def gates(ewe: Rows, zhang: Rows) -> dict[str, str]:
    """Return which gates are met."""
    return {str(line[0]): str(line[-1]) for line in _gates({"adi": rows(), "zhang content": zhang, "frontier": rows(), "ewe": ewe})}


def test_a_gate_that_is_not_met_meets_the_eye() -> None:
    good = gates(rows(), rows(extracted=1.0))
    assert set(good.values()) == {"yes"}
    accusing = rows()
    accusing[3]["extra"]["matches"] = True
    accusing[-1]["extra"]["decision"] = "stolen"
    accusing[0]["extra"]["p"] = 0.06
    accusing[0]["extra"]["accuracy"] = 0.8
    bad = gates(accusing, rows(extracted=1.0))
    assert sum(met == "**no**" for met in bad.values()) == 4
    assert not any(met == "**no**" for name, met in bad.items() if not name.startswith("ewe"))


@pytest.mark.parametrize(
    ("extracted", "plain", "met"),
    [(0.7, 1.0, ["yes"] * 4), (0.94, 1.0, ["yes", "**no**", "**no**", "yes"]), (0.7, 0.6, ["yes"] * 3 + ["**no**"])],
)
def test_what_extraction_leaves_is_held_against_the_null_models_and_a_plain_stamp(extracted: float, plain: float, met: list[str]) -> None:
    lines = _extraction({"ewe": rows(extracted=extracted), "zhang content": rows(extracted=plain)})
    assert [line[-1] for line in lines] == met


@pytest.mark.slow
def test_it_writes_nothing_outside_its_store(smoke: dict[str, Any]) -> None:
    assert not any(Path(str(value)).is_absolute() for line in smoke["rows"] for value in line["extra"].values())
