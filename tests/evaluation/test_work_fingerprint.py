"""The cell that enrols and verifies a farm: who is a suspect, who crafts, and what the tables make of its rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from modelward.core.canonical import canonical_json
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.data.study import Study
from modelward.evaluation.cell import Cell, Job
from modelward.evaluation.engine import Engine
from modelward.evaluation.family import family_of_job
from modelward.evaluation.parcels import get_model, pack_model, put_images, put_model
from modelward.evaluation.remembering import Remembering
from modelward.evaluation.store import Store
from modelward.models import Net
from modelward.ownership.cae import extracted
from modelward.reproduce import fingerprints as recipe
from modelward.reproduce.fingerprints import gap, rates, trade_off
from modelward.reproduce.tables import markdown
from modelward.training import Recipe

METHODS = {
    "ipguard": {"count": 30, "k": 0.3, "steps": 60, "lr": 0.02, "pool": 2},
    "cae": {"count": 20, "surrogates": 2, "epochs": 2, "mixes": 0, "eps": 0.15, "steps": 10, "lr": 0.03},
}


@dataclasses.dataclass(frozen=True)
class Farm:
    """Digests of what a cell reads."""

    store: Store
    inputs: dict[str, str]
    nulls: list[str]
    told: dict[str, Any]


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, parts: Study, mlp_victim: Net, train_net: Callable[..., Net]) -> Farm:
    """Return a source with two siblings and a tuning one that was stolen from, eight null models and three copies in a store."""
    store = Store(tmp_path_factory.mktemp("farm"))

    def keep(model: Net, group: str) -> str:
        packed = pack_model(model, {"lineage": canonical_json({"group": group, "accuracy": 0.9}).decode()})
        return store.put(packed.arrays, packed.facts)

    nulls = [keep(train_net("mlp:width=24", (parts.owner, parts.attacker)[i % 2], 40 + i), "independent") for i in range(8)]
    recipe = Recipe(epochs=4, batch=64, lr=0.05)
    copies = [extracted(mlp_victim, parts.attacker, recipe, mixes=0, rng=generator(i)) for i in range(3)]
    thieves = [keep(copy, "extract-L") for copy in copies if isinstance(copy, Net)]
    inputs = {"victim": put_model(store, mlp_victim), "probes": put_images(store, parts.probes)}
    siblings, tuning = (
        [keep(train_net("mlp:width=24", parts.owner, first + i), "sibling") for i in range(n)] for first, n in ((60, 2), (70, 1))
    )
    inputs |= {"trained on": put_images(store, parts.owner), "tuned/0": thieves[0]}
    inputs |= {f"sibling/{i}": digest for i, digest in enumerate(siblings)} | {f"tuning/{i}": digest for i, digest in enumerate(tuning)}
    told = {
        "origin": "recipe", "start": "none", "start_digest": None, "code": "00", "smoke": False, "seeds": [1, 2], "tuned": [[0, "extracted"]],
    }  # fmt: skip
    inputs |= {f"null/{i}": digest for i, digest in enumerate(nulls)} | {f"thief/{i}": digest for i, digest in enumerate(thieves)}
    return Farm(store, inputs, nulls, {"family": told})


def assess(farm: Farm, method: str, **fields: Any) -> list[dict[str, Any]]:
    """Return the rows of one assessment."""
    settings = {"method": method, "fields": {**METHODS[method], **fields}, "access": "label", **farm.told}
    cell = Cell(work="modelward.evaluation.work_fingerprint:assess", settings=settings, inputs=farm.inputs)
    run = Engine(farm.store, jobs=1).run([cell])
    assert not run.failed
    finished = run.of(cell)
    assert finished is not None
    return finished.rows


@pytest.mark.parametrize("variant", ["hardened", "paper"])
@pytest.mark.parametrize("method", METHODS)
def test_every_null_model_is_a_suspect_and_the_family_stands_behind_the_key(farm: Farm, method: str, variant: str) -> None:
    rows = assess(farm, method, variant=variant)
    judged = [row for row in rows if row["metric"] == "statistic" and row["extra"]["side"] == "independent"]
    assert [row["model"] for row in judged] == farm.nulls
    assert {row["extra"]["p"] for row in judged} <= {1 / 3, 2 / 3, 1.0}  # the rank among two siblings
    assert {row["extra"]["decision"] for row in judged} == {"undecided"}
    assert len(rates(rows)) == 3
    assert {row["attack"] for row in rows if row["metric"] == "auc"} == {"extract-L", "all thieves"}
    false = next(row for row in rows if row["metric"] == "false_claims")
    assert (false["extra"]["draws"], false["extra"]["draws_of"]) == (2, "siblings of the owner's model")
    assert false["extra"]["misses"] == [1, 1]  # two draws claim nothing, so the one thief that was tried is missed
    assert (false["value"], false["n"]) == (0, 8)
    assert {row["variant"] for row in rows} == {variant}


def test_a_stranger_who_borrows_siblings_wins_nothing(farm: Farm) -> None:
    inputs = {name: digest for name, digest in farm.inputs.items() if name.partition("/")[0] not in {"null", "thief"}}
    inputs |= {f"accuser/{i}": digest for i, digest in enumerate(farm.nulls[:2])}
    settings = {"method": "ipguard", "fields": METHODS["ipguard"], **farm.told}
    finished = Engine(farm.store, jobs=1).run([cell := Cell("modelward.evaluation.work_fingerprint:accuser", settings, inputs)]).of(cell)
    assert finished is not None
    (row,) = finished.rows
    assert (row["value"], row["n"]) == (0, 2)
    assert {claim["decision"] for claim in row["extra"]["claims"]} == {"undecided"}


def test_a_family_comes_back_from_a_cell_as_it_was(farm: Farm) -> None:
    family = family_of_job(Job(farm.told, farm.inputs, 0, str(farm.store.folder), 1, "fp32"))
    assert [len(group) for group in (family.models, family.tuning, family.thieves)] == [2, 1, 1]
    assert (family.origin, family.start, family.seeds, family.thieves[0].of, family.thieves[0].kind) == (
        "recipe",
        "none",
        (1, 2),
        0,
        "extracted",
    )
    kept = [get_model(str(farm.store.folder), farm.inputs[f"sibling/{i}"]) for i in range(2)]
    assert [state_digest(model) for model in family.models] == [state_digest(model) for model in kept]
    assert len(family_of_job(Job({}, {}, 0, str(farm.store.folder), 1, "fp32"))) == 0


def test_the_tables_read_rates_from_rows(farm: Farm) -> None:
    rows = assess(farm, "cae")
    thief = [row for row in rows if row["metric"] == "statistic" and row["extra"]["side"] == "thief"]
    assert rates(rows, "extract-L").tolist() == pytest.approx([1 - row["value"] for row in thief])
    found, area = gap(rows), trade_off(rows)
    assert found is not None
    assert area is not None
    assert found.value == pytest.approx(np.mean(rates(rows)) - np.mean(rates(rows, side="independent")))
    assert found.low <= found.value <= found.high
    assert (found.n, area.n) == (11, 11)
    assert 0 <= area.low <= area.value <= area.high <= 1
    assert gap([row for row in rows if row["metric"] != "statistic"]) is None
    assert trade_off([row for row in rows if row["metric"] != "statistic"]) is None


def test_the_recipe_puts_all_fingerprints_into_the_same_tables(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    def cells(_farm: object, configurations: list[tuple[str, dict[str, Any], str]]) -> list[Cell]:
        return [
            Cell(
                "modelward.evaluation.work_fingerprint:assess",
                {"method": m, "fields": {**METHODS.get(m, {}), **f}, "access": access, **farm.told},
                farm.inputs,
            )
            for m, f, access in configurations
        ]

    monkeypatch.setattr(recipe, "make_farm", lambda *_: SimpleNamespace(words=lambda error: f"error {error:.2f}."))
    monkeypatch.setattr(recipe, "assessments", cells)
    monkeypatch.setattr(recipe, "source_accuracy", lambda *_: 0.75)
    found = recipe.fingerprints(profile="smoke", seed=0, store=farm.store, jobs=1, command="again")
    assert found["paragraphs"][0] == "**Smoke run: not evidence.**"
    assert "error 0.25." in found["paragraphs"]
    tables = {caption: (header, lines) for caption, header, lines in found["tables"]}
    for header, lines in tables.values():
        assert all(len(line) == len(header) for line in lines)
    for caption in ("AUC of each group of thieves against independent models", "What each costs and claims"):
        assert [line[0] for line in tables[caption][1]] == list(recipe.SMOKED)
    curve = {line[0]: line[-1] for line in tables["Mean matching rate, and the trade-off over k"][1]}
    assert set(curve) == set(recipe.SMOKED) - {"sac-jc, labels only"}
    assert "-" not in curve.values()
    assert {(row["profile"], row["command"]) for row in found["rows"]} == {("smoke", "again")}
    assert {row["configuration"] for row in found["rows"]} == set(recipe.SMOKED)
    assert {"aruc", "matching_gap", "auc", "statistic", "false_claims"} <= {row["metric"] for row in found["rows"]}
    assert "| cae |" in markdown({**found, "environment": {}, "command": "again", "seconds": 1.0, "created": "now"})


def test_a_remembering_model_gives_gradients_and_remembers_answers(mlp_victim: Net, parts: Study) -> None:
    calls: list[int] = []

    class Counting(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(len(x))
            answer: torch.Tensor = mlp_victim(x)
            return answer

    model, images = (
        Remembering(Counting(), "no digest of any model"),
        ImageSet(parts.probes.pixels[:7], parts.probes.labels[:7], parts.probes.classes, "few"),
    )
    assert torch.equal(predict(model, images.pixels), predict(model, images.pixels))
    assert calls == [7]
    leaf = images.batch(slice(None)).requires_grad_()
    (grad,) = torch.autograd.grad(model(leaf).sum(), leaf)
    (wanted,) = torch.autograd.grad(mlp_victim(leaf).sum(), leaf)
    assert torch.equal(grad, wanted)
    assert float(grad.abs().sum()) > 0
