"""A lock as cells: what the key's holder, everybody else, and thieves with images reach, and training from scratch beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modelward.core.errors import UsageError
from modelward.core.guard import state_digest
from modelward.data.study import Study
from modelward.evaluation.candidate import Candidate
from modelward.evaluation.cell import Cell, Finished
from modelward.evaluation.engine import Engine, Run
from modelward.evaluation.farm import TheftSpec
from modelward.evaluation.locks import Aside, Attempts, asides, attempts, lock_cell, lock_of, rows_of, unlock_specs
from modelward.evaluation.parcels import get_key, get_model
from modelward.evaluation.scratch import TRAINED, scratch_spec
from modelward.evaluation.store import Store
from modelward.evaluation.zoo import NullSpec, put_parts, train_cell
from modelward.locks import AdvParams
from modelward.training import Recipe

ARCH = "mlp:width=24"


@pytest.fixture(scope="module")
def found(parts: Study, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the rows of a locked model and of two attempts on it."""
    engine = Engine(Store(tmp_path_factory.mktemp("locks")), jobs=1)
    stored = put_parts(engine.store, parts)
    source = train_cell(NullSpec(ARCH, "owner", 1.0, "source", 0), Recipe(epochs=5, lr=0.05, batch=32), stored, parts, 0)
    locking = Candidate("advparams", "hardened", {"share": 0.05, "images": 64})
    cell = lock_cell(locking, source, stored, parts, ARCH, seed=0)
    specs = [TheftSpec("ftal", "fine-tuning", {"epochs": 1, "images": 20}), TheftSpec("prune", "pruning", {"sparsity": 0.5}, "none")]
    tried = attempts(locking, cell, source, ARCH, stored, parts, specs, seed=0)
    assert len(tried.cells) == 3
    run = engine.run([cell, *tried.cells], task="locks")
    assert not run.failed
    finished = run.of(cell)
    assert finished is not None
    assert finished.artifact is not None
    folder = str(engine.store.folder)
    opened = AdvParams().unlock(get_model(folder, finished.artifact), get_key(folder, finished.artifact))
    made = run.of(source)
    assert made is not None
    assert made.artifact is not None
    assert state_digest(opened) == state_digest(get_model(folder, made.artifact))  # the artefact holds both, whole
    return list(rows_of(tried, run))


def test_every_figure_of_a_lock_has_its_row(found: list[dict[str, Any]]) -> None:
    rows = {row["metric"]: row for row in found if row["metric"] != "recovered"}
    assert set(rows) >= {"original", "authorised", "unauthorised", "fidelity_drop", "guessed_keys_open", "users_named", "issue_seconds",
                         "latency", "lock_seconds", "restored"}  # fmt: skip
    assert "stripped" not in rows  # advparams has nothing to cut out
    assert rows["authorised"]["value"] == rows["original"]["value"] > rows["unauthorised"]["value"] + 0.2
    assert (rows["restored"]["value"], rows["fidelity_drop"]["value"], rows["guessed_keys_open"]["value"]) == (1, 0, 0)
    assert rows["users_named"]["value"] == 1
    assert all(row["variant"] == "hardened" and row["ci_low"] <= row["value"] <= row["ci_high"] for row in rows.values() if row["n"] > 100)


def test_attempts_stand_beside_training_from_scratch(found: list[dict[str, Any]]) -> None:
    tuned, pruned = (row for row in found if row["metric"] == "recovered")
    assert (tuned["attack"], pruned["attack"]) == ("ftal", "prune")
    low, high = tuned["extra"]["from_scratch_ci"]
    assert low <= tuned["extra"]["from_scratch"] <= high
    assert pruned["extra"]["from_scratch"] is None


@pytest.mark.parametrize(
    ("method", "fields", "given"),
    [
        ("ftll", {"images": 30, "epochs": 2}, {"images": 30, "epochs": 2}), ("undo-gradient", {}, {"images": 400, **TRAINED}),
        ("reverse-lock", {"rule": "layer", "images": 250}, {"images": 250, **TRAINED}), ("fill-outliers", {}, {"images": 400, **TRAINED}),
        ("fine-prune", {"ratio": 0.9, "batch": 16}, {"batch": 16}), ("label-remap", {}, {"images": 40, **TRAINED}),
        ("head-surgery", {"how": "remap"}, {"images": 40, **TRAINED}), ("head-surgery", {"how": "drop"}, None), ("prune", {}, None),
    ],
)  # fmt: skip
def test_who_has_labels_stands_beside_training_from_scratch_on_as_many(
    method: str, fields: dict[str, Any], given: dict[str, Any] | None
) -> None:
    twin = scratch_spec(TheftSpec(method, "", fields))
    assert (twin and (twin.method, twin.fields)) == (given and ("scratch", given))
    assert scratch_spec(TheftSpec("bn-recalibrate", "", {"images": 30}, "none")) is None


def test_keys_of_another_build_open_nothing(parts: Study, tmp_path: Path) -> None:
    engine = Engine(Store(tmp_path), jobs=1)
    stored = put_parts(engine.store, parts)
    source = train_cell(NullSpec(ARCH, "owner", 1.0, "source", 0), Recipe(epochs=5, lr=0.05, batch=32), stored, parts, 0)
    locking = Candidate("advparams", "hardened", {"share": 0.05, "images": 64})
    cell = lock_cell(locking, source, stored, parts, ARCH, seed=0)
    (keys,) = asides(locking, cell, source, ARCH, stored, parts, profile="smoke", seed=1)
    tried = Attempts(locking, cell, [], (keys,))
    run = engine.run([cell, *tried.cells], task="locks")
    assert not run.failed
    (foreign,) = (row for row in rows_of(tried, run) if row["metric"] == "foreign_keys_open")
    assert (foreign["value"], foreign["n"], foreign["method"], foreign["variant"]) == (0, 8, "advparams", "hardened")
    assert foreign["extra"]["refused"] >= 4  # for another build's digest; what it is written into opens no more


def test_cells_beside_the_attempts_are_told_as_attempts_where_they_are_some() -> None:
    made, alone = Cell("modelward.evaluation.work_lock:lock", {"a": 1}), Cell("modelward.evaluation.work_lock:lock", {"a": 2})
    rows = [{"metric": "recovered", "attack": name, "extra": {"epochs": 1}} for name in ("drawn", "noise")]
    finished = {
        made.key: Finished(made.key, rows, None, 1.0),
        alone.key: Finished(alone.key, [{"value": 0.5, "ci_low": 0.4, "ci_high": 0.6}], None, 1.0),
    }
    tried = Attempts(Candidate("advparams"), Cell("modelward.evaluation.work_lock:lock", {"a": 3}), [], (Aside(made, {"drawn": alone}),))
    assert [cell.key for cell in tried.cells] == [made.key, alone.key]
    found = {row["attack"]: row["extra"] for row in rows_of(tried, Run(finished, {}))}
    assert (found["drawn"]["from_scratch"], found["noise"]["from_scratch"], found["drawn"]["epochs"]) == (0.5, None, 1)


def test_the_attempts_are_those_of_all_locks_and_of_the_card() -> None:
    method = AdvParams()
    with_norms, without = (unlock_specs(method, arch, 3000, "quick") for arch in ("resnet8", "lenet5"))
    assert {spec.fields["images"] for spec in without if spec.method == "ftal"} == {30, 300}
    assert {spec.method for spec in with_norms} - {spec.method for spec in without} == {"bn-recalibrate"}
    assert {attack.method for attack in method.adaptive_attacks()} <= {spec.method for spec in with_norms}
    with pytest.raises(UsageError, match="profile is"):
        unlock_specs(method, "lenet5", 10, "quik")
    with pytest.raises(UsageError, match="locks no model"):
        lock_of(Candidate("sac"))


def test_a_cell_of_a_lock_is_keyed_by_its_settings(parts: Study, tmp_path: Path) -> None:
    stored = put_parts(Store(tmp_path), parts)
    source = train_cell(NullSpec(ARCH, "owner", 1.0, "source", 0), Recipe(epochs=5), stored, parts, 0)
    keys = {lock_cell(Candidate("advparams", v, f), source, stored, parts, ARCH, seed=s).key
            for v, f, s in (("hardened", {}, 0), ("paper", {}, 0), ("hardened", {"share": 0.1}, 0), ("hardened", {}, 1))}  # fmt: skip
    assert len(keys) == 4
