"""The recipe ``gan-removal`` runs whole at its smallest, and its gates read the rows as they are."""

from __future__ import annotations

import pytest

from modelward.evaluation.store import Store
from modelward.reproduce import gan_removal as recipe
from modelward.reproduce import gan_removal_tables


@pytest.mark.slow
def test_smoke(tmp_path):
    document = recipe.gan_removal(profile="smoke", seed=0, store=Store(tmp_path), jobs=1, command="here")
    rows = document["rows"]
    assert not [text for text in document["paragraphs"] if text.startswith("Not run")]
    kept = {row["attack"]: row for row in rows if row["metric"] == "retention"}
    assert set(kept) == {"none", *recipe.SMOKED}
    assert len({row["n"] for row in kept.values()}) == 1
    assert kept["none"]["value"] > 0.2
    scans = [row for row in rows if row["metric"] == "flagged"]
    assert [row["configuration"] for row in scans] == [recipe.MAIN, "no mark", "no mark"]
    assert scans[0]["extra"]["target"] is not None
    assert all(row["command"] == "here" for row in rows)


def row(metric, attack, value, n, mark=recipe.MAIN, **extra):
    return {"metric": metric, "attack": attack, "configuration": mark, "value": value, "n": n, "extra": extra}


def verdicts(kept, plain, lost, flagged, noise):
    rows = [
        row("flagged", "scan", 0.1, 10, flagged=flagged, target=3, mass=0.6, anomaly=[None, 3.0]),
        *(row("flagged", "scan", 0.0, 10, "no mark", flagged=[1] * (i < noise), anomaly=[]) for i in range(5)),
        row("retention", "gan-removal", kept, 100),
        row("retention", "plain fine-tuning", plain, 100),
        row("accuracy", "gan-removal", 0.8, 100, drop=lost),
    ]
    return [line[-1] for line in gan_removal_tables._gates(rows)]


def test_the_gates_open_and_close():
    good = verdicts(0.02, 0.9, 0.01, [3], 1)
    assert set(good) == {"yes"}
    for place, bad in ((0, {"flagged": [3, 4]}), (2, {"kept": 0.3}), (3, {"lost": 0.05}), (4, {"plain": 0.03}), (5, {"noise": 2})):
        given = {"kept": 0.02, "plain": 0.9, "lost": 0.01, "flagged": [3], "noise": 1} | bad
        assert verdicts(**given)[place] != "yes"


def test_another_profile_is_refused(tmp_path):
    with pytest.raises(recipe.UsageError, match="profile is"):
        recipe.gan_removal(profile="paper", seed=0, store=Store(tmp_path), jobs=1, command="")
