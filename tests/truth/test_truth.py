"""The measurement itself, on toys: every part runs, and its rows make a page."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.foreign import Script, World
from tests.truth import datasets, judging
from tests.truth.judging import FINGERPRINTS, guard, kept, named, rate
from tests.truth.simulation import CASES, simulate
from tests.truth.tables import document
from tests.truth.worlds import Scene

from modelward.ownership import UnitOrder
from modelward.reproduce.tables import markdown

QUICK = Script(net="lenet", epochs=2, rate=5e-3, batch=32, classes=3)


@pytest.fixture(scope="module")
def scene(make_blobs) -> Scene:
    world = World("toy", QUICK, make_blobs(96, 21), make_blobs(96, 22), seed=5)
    return Scene(world, make_blobs(150, 23), make_blobs(100, 24), owners=2, others=({"epochs": 1}, {"rate": 0.02}), per_kind=1)


@pytest.mark.slow
def test_every_part_runs_and_its_rows_make_a_page(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FINGERPRINTS, "unit-order", UnitOrder(draws=199))
    monkeypatch.setattr(judging, "TOGETHER", ("sac-jc", "unit-order"))
    monkeypatch.setattr(judging, "base_of", scene.world.owner.model)
    monkeypatch.setattr(judging, "BEGINNERS", 2)
    for number in range(2):  # the second time all is read
        kept(tmp_path, "named toy sac-jc", lambda: named(scene, "sac-jc", tmp_path))
        kept(tmp_path, "named toy unit-order", lambda: named(scene, "unit-order", tmp_path))
        kept(tmp_path, "rate toy sac", lambda: rate(scene, "sac", tmp_path))
        kept(tmp_path, "guard toy", lambda: guard(scene, tmp_path))
        kept(tmp_path, "simulation sac-jc 19 0", lambda: simulate("sac-jc", 19, repetitions=5))
        kept(tmp_path, "together toy", lambda: judging.together(scene, tmp_path))
        kept(tmp_path, "starts toy", lambda: judging.starts(scene, scene, tmp_path))
        assert len(list((tmp_path / "rows").glob("*.json"))) == 7, number
    made = document(tmp_path)
    strangers = [row for row in made["rows"] if row["table"] == "strangers"]
    assert {(row["method"], row["access"]) for row in strangers} == {
        ("sac-jc", "probabilities"),
        ("sac-jc", "label"),
        ("unit-order", "weights"),
        ("all 2 keys", "weights"),
    }
    assert all(row["n"] + row["unreadable"] == 12 for row in strangers)
    assert sum(row["found"] for row in strangers) <= 8
    assert "Rate over owners" in markdown(made)


@pytest.mark.slow
def test_what_a_locked_set_teaches_makes_a_table(make_blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "owned", lambda: (make_blobs(64, 25, side=16), make_blobs(50, 26, side=16)))
    monkeypatch.setattr(datasets, "CHANGES", {"plain": {}, "CutMix": {"cutmix": 1.0}})
    monkeypatch.setattr(datasets, "OPTIMISERS", ("adam",))
    for variant in datasets.variants():
        kept(tmp_path, f"taught {variant} wide", lambda variant=variant: datasets.taught(variant, "wide"))
    made = document(tmp_path)
    rows = {(row["recipe"], row["change"]): row for row in made["rows"]}
    assert len(rows) == 2 * len(datasets.variants())
    assert all(row["n"] == 50 for row in rows.values())
    assert rows["clean", "plain"]["value"] > 0.8
    assert made["tables"][0][0].startswith("dataset-lock")
    again = document(tmp_path / "empty", made)
    assert again["rows"] == made["rows"]  # what a folder lacks is taken over
    assert again["seconds"] == made["seconds"]


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_simulation_counts_what_it_drew(name: str) -> None:
    found = simulate(name, 19, repetitions=1)
    assert max(found["drawn"].values(), default=0) + found["refused"] == 1
    assert all(0 <= count <= 1 for count in found["claimed"].values())
