"""The recipe of the marks in weights, small: its rows say what its tables say."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelward.evaluation.store import Store
from modelward.reproduce import reproduce


@pytest.mark.slow
def test_the_smoke_profile_runs(tmp_path: Path) -> None:
    document = reproduce("weight-baselines", profile="smoke", store=Store(), jobs=1, out=tmp_path)
    rows = document["rows"]
    assert {row["configuration"] for row in rows} == {"uchida, paper", "uchida", "deepmarks", "passport 2", "passport 2, forged", "7 users"}
    traced = {(row["metric"], row["attack"]): row for row in rows if row["configuration"] == "7 users"}
    assert traced["identified", "none"]["value"] == 1
    assert traced["misattributed", "none"]["value"] == 0
    forged = {row["configuration"]: row for row in rows if row["attack"] == "forged"}
    assert forged["uchida, paper"]["value"] == 0  # solved for
    assert forged["uchida"]["value"] > 0.1  # the best of 1,000 secrets
    assert not any(row["extra"]["decision"] == "stolen" for row in forged.values())
    overwritten = [row for row in rows if row["attack"].startswith("overwrite")]
    assert {row["configuration"] for row in overwritten} == {"uchida, paper", "uchida", "deepmarks", "passport 2"}
    forger = [row for row in rows if row["configuration"] == "passport 2, forged" and row["metric"] == "forged_passports"]
    assert [row["attack"] for row in forger] == ["0% of the signs turned", "50% of the signs turned", "100% of the signs turned"]
    assert not any(row["extra"]["hardened"] for row in forger)  # it takes no key with passports of its own
    agree = [row["extra"]["signs_of_the_owner"] for row in forger]
    assert agree == sorted(agree, reverse=True)
    assert agree[0] - agree[2] > 0.5
    scales = [row["value"] for row in rows if row["configuration"] == "passport 2, forged" and row["metric"] == "forged_scales"]
    assert [row["value"] for row in forger] == pytest.approx(
        scales, abs=0.15
    )  # what is solved for is exact; statistics are of the forger's images
    text = (tmp_path / "weight-baselines-smoke.md").read_text()
    assert "not evidence" in text
    assert "Tracing users and colluders" in text
