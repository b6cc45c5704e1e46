"""The recipe of the additional class: a smoke run measures every figure, and gates tell good rows from bad ones."""

from __future__ import annotations

from typing import Any

import pytest

from modelward.evaluation.rows import rate
from modelward.evaluation.store import Store
from modelward.reproduce.additional_class import additional_class
from modelward.reproduce.additional_class_tables import gates, trade_off
from modelward.reproduce.tables import markdown


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return additional_class(profile="smoke", seed=0, store=Store(), jobs=1, command="modelward reproduce additional-class --profile smoke")


@pytest.mark.slow
def test_a_smoke_run_measures_every_figure(found: dict[str, Any]) -> None:
    captions = {caption: body for caption, _, body in found["tables"]}
    assert all(captions.values())
    assert len(captions) >= 7
    assert "not evidence" in found["paragraphs"][0]
    names = {row["configuration"] for row in found["rows"]}
    assert names == {"paper", "hardened", "zhang, noise"}
    assert all(row["n"] > 0 and row["profile"] == "smoke" for row in found["rows"])
    surgery = [row for row in found["rows"] if row["attack"] == "head-surgery" and row["configuration"] != "zhang, noise"]
    assert [row["value"] for row in surgery] == [0.0] * len(surgery)
    assert len(surgery) >= 2
    page = markdown({**found, "environment": {}, "command": "x", "seconds": 1, "created": "now"})
    assert "| images | paper | hardened |" in page


@pytest.mark.slow
def test_users_are_read_in_every_configuration_of_ours(found: dict[str, Any]) -> None:
    rows = {(row["configuration"], row["metric"]): row["value"] for row in found["rows"] if row["attack"] == "users"}
    for name in ("paper", "hardened"):
        assert rows[name, "users_read"] == 1
        assert rows[name, "misattributed"] == 0
        assert rows[name, "users_read_after_jpeg_75"] == 0
        assert rows[name, "users_read_after_jpeg_75_qim"] == 1
    assert rows["hardened", "users_read_after_a_bent_pixel"] == 0


def rows_of(hits: int, noise: int) -> list[dict[str, Any]]:
    """Return rows of one configuration, whose key images and decoys were answered so often."""
    made = [
        rate("hits", hits, 100, attack="none"), rate("hits", hits, 100, attack="wrap-reconstruct"), rate("users_read", 100, 100, attack="users"),
        rate("accuracy", 80, 100, attack="none", extra={"before": 0.81}), rate("class_on_test", 0, 1000, attack="none"),
        rate("class_answered", noise, 500, attack="random noise"), rate("class_answered", noise, 500, attack="other-seed keys"),
        rate("nulls_matched", 0, 20, attack="null models"), rate("strangers_matched", 0, 2), rate("misattributed", 0, 100, attack="users"),
        *(rate("hits", 50, 100, attack="prune", budget=f"sparsity {share}") for share in (0.3, 0.5, 0.7)),
    ]  # fmt: skip
    return [{**row.as_json(), "configuration": name} for row in made for name in ("paper", "hardened", "hardened, 12 decoys a batch")]


def test_gates_are_met_by_good_rows_alone() -> None:
    assert {line[-1] for line in gates(rows_of(100, 0))} == {"yes"}
    failed = [line[0] for line in gates(rows_of(98, 50)) if line[-1] != "yes"]
    assert failed == [
        "paper: key images found", "hardened: key images found", "hardened: class answered to random noise",
        "hardened: class answered to other-seed keys",
    ]  # fmt: skip
    assert {line[-1] for line in gates([])} == {"**no**"}


def test_the_trade_off_is_ordered_by_strength() -> None:
    assert [line[0] for line in trade_off(rows_of(100, 0))] == ["12", "48 (default)"]
