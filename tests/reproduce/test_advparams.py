"""The recipe of AdvParams: its smoke run, the parts of it that work alone, and what its tables say of rows that we made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelward.core.errors import UsageError
from modelward.core.guard import state_digest
from modelward.core.rng import generator
from modelward.data.study import Study
from modelward.evaluation.cell import Job
from modelward.evaluation.parcels import get_key, get_model, put_images, put_model
from modelward.evaluation.store import Store
from modelward.locks import AdvParams
from modelward.models import Net
from modelward.reproduce.advparams import SCALES, advparams
from modelward.reproduce.advparams_labels import label_gates, parted
from modelward.reproduce.advparams_tables import _battery, _beside, _gates, best_scratch, pick, tables
from modelward.reproduce.advparams_work import FRACTIONS, climb, cut, differential, inspect
from modelward.reproduce.pooling import pooled
from modelward.reproduce.render import rendered

Rows = list[dict[str, Any]]
FIELDS = {"images": 32, "share": 0.02}


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the document of a smoke run."""
    store = Store(tmp_path_factory.mktemp("store"))
    return advparams(profile="smoke", seed=0, store=store, jobs=1, command="modelward reproduce advparams")


@pytest.mark.slow
def test_a_smoke_run_fills_every_table_and_says_that_it_is_none(smoke: dict[str, Any]) -> None:
    assert "not evidence" in smoke["paragraphs"][0]
    captions = [caption for caption, _, _ in smoke["tables"]]
    assert captions == [caption for caption, _, _ in tables(smoke["rows"])]
    assert len(captions) == 11
    assert {row["configuration"] for row in smoke["rows"]} == {"paper", "hardened", "edge"}
    assert rendered({**smoke, "name": "advparams"})["tables"] == smoke["tables"]


@pytest.mark.slow
def test_every_attempt_that_trains_stands_beside_training_from_scratch(smoke: dict[str, Any]) -> None:
    for attack in ("ftal", "ftll", "undo-gradient", "reverse-lock", "fill-outliers"):
        found = pick(smoke["rows"], "recovered", attack=attack)
        assert found
        assert all(0 <= row["extra"]["from_scratch"] <= 1 and row["extra"]["images"] for row in found), attack
    assert {caption: body for caption, _, body in smoke["tables"]}["The locks"][0][0] == "the paper claims"
    tried = {row["attack"] for row in pick(smoke["rows"], "recovered")}
    assert tried >= {"ftal", "ftll", "bn-recalibrate", "prune", "undo-gradient", "reverse-lock", "fill-outliers", "two builds merged"}


@pytest.mark.slow
def test_each_lock_gives_every_byte_back_and_refuses_wrong_keys(smoke: dict[str, Any]) -> None:
    for metric in ("restored", "inside_band", "refused", "users_named"):
        found = pick(smoke["rows"], metric)
        assert found
        assert all(row["value"] == 1 for row in found), metric
    assert all(row["extra"]["changed"] == row["value"] for row in pick(smoke["rows"], "entries"))
    for variant in ("paper", "hardened"):
        mine = [row for row in smoke["rows"] if row["configuration"] == variant]
        whole = pick(mine, "partial_key", budget="1")[0]["value"]
        assert whole == pick(mine, "original")[0]["value"] == pick(mine, "authorised")[0]["value"]
        assert pick(mine, "partial_key", budget="0")[0]["value"] == pick(mine, "unauthorised")[0]["value"] < whole


def job(store: Store, inputs: dict[str, str], **settings: Any) -> Job:
    return Job(settings, inputs, 7, str(store.folder), 1, "fp32")


def kept(store: Store, work: Any, inputs: dict[str, str], **settings: Any) -> tuple[str, Rows]:
    """Run work; return the digest of what it made, and its rows."""
    made = work(job(store, inputs, **settings))
    return (store.put(made.arrays, made.facts) if made.arrays else ""), made.rows


@pytest.fixture(scope="module")
def ground(victim: Net, parts: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[str, str]]:
    """Return a store with the victim, the owner's images and the test images."""
    store = Store(tmp_path_factory.mktemp("ground"))
    inputs = {"victim": put_model(store, victim), "owner": put_images(store, parts.owner), "test": put_images(store, parts.test)}
    return store, inputs


def test_a_cut_is_what_the_smaller_budget_makes(ground: tuple[Store, dict[str, str]], victim: Net, parts: Study) -> None:
    store, inputs = ground
    top, _ = kept(store, climb, inputs, fields=FIELDS)
    for share in (0.005, 0.02):
        digest, rows = kept(store, cut, {**inputs, "climb": top}, fields=FIELDS, share=share)
        locked, key = AdvParams(images=32, share=share).lock(victim, parts.owner, rng=generator(7))
        found = get_key(str(store.folder), digest)
        assert state_digest(get_model(str(store.folder), digest)) == state_digest(locked) == found.model_digest
        assert found.facts["names"] == key.facts["names"]
        assert state_digest(AdvParams().unlock(locked, found)) == state_digest(victim)
        assert pick(rows, "inside_band")[0]["value"] == 1


def test_an_inspection_has_controls_and_two_builds_tell_where_they_differ(ground: tuple[Store, dict[str, str]]) -> None:
    store, inputs = ground
    digests = {}
    for name, seed in (("first", 1), ("second", 2)):
        made = climb(Job({"fields": FIELDS}, inputs, seed, str(store.folder), 1, "fp32"))
        top = store.put(made.arrays, made.facts)
        digests[name], _ = kept(store, cut, {**inputs, "climb": top}, fields=FIELDS, share=0.02)
    _, rows = kept(store, inspect, {**inputs, "locked": digests["first"]}, fields=FIELDS)
    assert [len(pick(rows, metric)) for metric in ("random_places", "random_places_same_tensors")] == [5, 5]
    assert [row["value"] for row in pick(rows, "refused")] == [1, 1, 1]
    assert {row["budget"] for row in pick(rows, "partial_key")} == {f"{fraction:g}" for fraction in FRACTIONS}
    after, before = (pick(rows, "outlier_auc", attack=what)[0]["value"] for what in ("locked", "original"))
    assert after == before  # the values are those that they were
    _, rows = kept(store, differential, {**inputs, **digests})
    found = {row["metric"]: row["value"] for row in rows}
    assert found["overlap"] < 0.5
    assert (found["revealed_unshared"], found["false_alarms"]) == (1, 0)
    assert found["revealed"] >= 1 - found["overlap"]
    assert 0 <= found["recovered"] <= 1


def found(landing: str, finder: str, chance: float) -> dict[str, Any]:
    """Return the row of what a thief found."""
    extra = {"flagged": 10, "expected": 0.1, "chance": chance}
    return row("found", 0.0, 200, configuration=landing, attack=finder, extra=extra)


def few_labels(value: float, attack: str = "ftal", landing: str = "hardened", images: int = 100) -> dict[str, Any]:
    """Return the row of a thief with few labels, who gets .7 from scratch."""
    extra = {"images": images, "fields": {"optimizer": "sgd"}, "group": "few labels", "from_scratch": 0.7, "from_scratch_ci": [0.6, 0.8]}
    return row("recovered", value, 1000, attack=attack, configuration=landing, extra=extra)


def test_the_gates_of_few_labels_have_two_sides() -> None:
    quiet = [found("hardened", finder, 0.4) for finder in ("equal-values", "value-clusters") for _ in range(10)]
    loud = [found("edge", "equal-values", 1e-9)]
    for rows, met in (
        ([*quiet, *loud, few_labels(0.79), few_labels(0.1, "equal-values")], ["yes", "yes", "yes"]),
        ([*quiet, *loud, few_labels(0.5), few_labels(0.81, "equal-values")], ["yes", "**no**", "yes"]),
        ([*quiet[1:], found("hardened", "equal-values", 0.01), *loud, few_labels(0.79)], ["yes", "yes", "yes"]),
        ([*quiet[2:], *2 * [found("hardened", "equal-values", 0.01)], *loud, few_labels(0.79)], ["**no**", "yes", "yes"]),
        ([*quiet, found("edge", "equal-values", 0.01), few_labels(0.79)], ["yes", "yes", "**no**"]),
    ):
        assert [line[-1] for line in label_gates(rows)] == met
    assert [line[-1] for line in label_gates([found("hardened", "fill-outliers", 1e-9)])] == ["**no**"]  # no try is no evidence


def test_random_features_stand_beside_training_from_scratch() -> None:
    ridge = few_labels(0.86, "layer-ridge")
    ridge["extra"] = {**ridge["extra"], "fields": {"cut": 2}, "from_scratch": 0.78}
    # the gate is read beside training from scratch alone
    quiet = [found("hardened", finder, 1.0) for finder in ("equal-values", "value-clusters")]
    assert [line[-1] for line in label_gates([*quiet, few_labels(0.7), ridge])] == ["yes", "**no**"]


def test_few_labels_are_told_apart_from_the_older_attempts() -> None:
    rows = [
        *good(),
        few_labels(0.6),
        few_labels(0.5, images=30),
        few_labels(0.8, "equal-values", "edge"),
        found("hardened", "equal-values", 1.0),
    ]
    rest, mine = parted(rows)
    assert (len(rest), len(mine)) == (len(good()), 4)
    told = {caption: body for caption, _, body in tables(rows)}
    assert [line[2] for line in told["What few labels leave, beside training from scratch on the same"]] == [30, 100, 100]
    assert [line[-1] for line in told["What few labels leave, beside training from scratch on the same"]][:2] == ["-20.0", "-10.0"]


def row(metric: str, value: float | None, n: int = 1000, **more: Any) -> dict[str, Any]:
    """Return a row as the recipe writes it."""
    told = {"arch": "resnet8", "configuration": "hardened", "budget_share": 0.01, "scene": 0, "attack": "", "budget": "", "extra": {}}
    return {"metric": metric, "value": value, "n": n, **told, **more}


def good() -> Rows:
    """Return the rows of a lock that meets every gate."""
    return [
        row("original", 0.85), row("unauthorised", 0.1), row("recovered", 0.4, attack="bn-recalibrate"), row("restored", 1.0, 1),
        row("inside_band", 1.0, 300), row("refused", 1.0, 3), row("entries", 300.0, 1, extra={"changed": 300, "share": 0.0099}),
    ]  # fmt: skip


def test_gates_are_met_by_a_good_lock_alone() -> None:
    assert {line[-1] for line in _gates(good())} == {"yes"}
    for number, wrong in [(1, {"value": 0.3}), (2, {"value": 0.7}), (3, {"value": 0.0}), (4, {"value": 0.99}), (5, {"value": 2 / 3}),
                          (6, {"extra": {"changed": 299, "share": 0.0099}}), (6, {"extra": {"changed": 300, "share": 0.02}})]:  # fmt: skip
        rows = good()
        rows[number] = {**rows[number], **wrong}
        assert [line[-1] for line in _gates(rows)].count("**no**") == 1, rows[number]


def test_the_papers_gate_asks_for_the_control() -> None:
    paper = [{**each, "configuration": "paper", "budget_share": None} for each in good() if each["metric"] != "entries"]
    paper += [{**row("entries", 60.0, 1, extra={"changed": 60, "share": 0.0009}), "configuration": "paper", "budget_share": None}]
    for value, met in ((0.84, "yes"), (0.7, "**no**")):
        control = {**row("random_places", value), "configuration": "paper", "budget_share": None}
        assert {line[0]: line[-1] for line in _gates([*paper, control])}[
            "resnet8, paper: points lost by the same moves at random places"
        ] == met


def tuned(scene: int, value: float | None, alone: float | None, n: int = 100, images: int = 30) -> dict[str, Any]:
    """Return the row of a thief who fine-tunes."""
    extra = {"images": images, "fields": {"optimizer": "sgd"}, "from_scratch": alone, "from_scratch_ci": [alone, alone]}
    return row("recovered", value, n, attack="ftal", scene=scene, extra=extra)


def test_the_thief_and_training_from_scratch_choose_their_rate_seed_by_seed() -> None:
    rows = [tuned(0, 0.5, 0.3), tuned(0, 0.2, 0.6), tuned(1, 0.9, 0.4), tuned(1, None, 0.4, 0)]
    assert _beside(rows, 30, "sgd", rows) == "0.70 [0.63, 0.76] / 0.50 [0.43, 0.57]"
    assert _beside([tuned(0, None, None, 0)], 30, "sgd", []) == "diverged / -"
    assert _beside(rows, 150, "sgd", rows) == "-"


def test_training_from_scratch_is_the_same_beside_every_lock_of_a_seed() -> None:
    whole = [tuned(0, 0.8, 0.3), tuned(0, 0.8, 0.6)]
    lost = [tuned(0, 0.5, 0.3), tuned(0, None, None, 0)]  # its locked network diverged where scratch is best, and nobody wrote that down
    known = [*whole, *lost]
    assert {_beside(rows, 30, "sgd", known).partition(" / ")[2] for rows in (whole, lost)} == {"0.60 [0.50, 0.69]"}
    both = [*lost, tuned(1, None, 0.5, 0)]
    assert _beside(both, 30, "sgd", [*known, *both, row("original", 0.8, 100, scene=1)]).startswith(
        "0.50 [0.40, 0.60] (diverged in 1 of 2 seeds) / 0.55"
    )
    best = best_scratch(known, 0, 30)
    assert best is not None
    assert (best["value"], best["n"]) == (0.6, 100)
    assert best_scratch(known, 0, 31) is None


def test_who_tunes_the_last_layer_stands_beside_the_same_images_from_scratch() -> None:
    extra = {"group": "last layer fine-tuned", "fields": {}, "images": 30, "from_scratch": None, "from_scratch_ci": None}
    rows = [tuned(0, 0.5, 0.3), tuned(0, 0.2, 0.6), row("recovered", 0.4, 100, attack="ftll", extra=extra)]
    assert [line[5] for line in _battery(rows)] == ["0.60 [0.60, 0.60]"]
    rows[-1]["extra"] = {**extra, "from_scratch": 0.45, "from_scratch_ci": [0.4, 0.5]}
    assert [line[5] for line in _battery(rows)] == ["0.45 [0.40, 0.50]"]


def test_rates_without_a_value_are_not_pooled() -> None:
    assert pooled([row("original", None, 0)]) is None
    assert pooled([row("original", 0.5, 10), row("original", None, 0)])["n"] == 10  # type: ignore[index]


def test_unknown_profiles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="profile is"):
        advparams(profile="huge", seed=0, store=Store(tmp_path), jobs=1, command="")
    assert set(SCALES) == {"smoke", "quick", "full"}
