"""Every theft of the battery is kept as tensors with a description, and is the same model when it is read back."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modelward.attacks.theft import Combined, DetectReconstruction, Ensemble
from modelward.core.canonical import canonical_json
from modelward.core.catalogue import find
from modelward.core.errors import FormatError, InputError, ModelwardError
from modelward.core.families import TheftMethod
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.rng import generator
from modelward.core.view import AttackerView
from modelward.evaluation.farm import battery
from modelward.evaluation.parcels import get_model, put_model
from modelward.evaluation.store import Store
from modelward.models import Net, load_model, save_model
from modelward.models.assembly import Assembly, pack, unpack

PIXELS = torch.arange(4 * 192).mul(37).remainder(256).to(torch.uint8).view(4, 3, 8, 8)
READER = """
import json, sys, torch
torch.set_num_threads(1)
from modelward.core.guard import predict
from modelward.models import load_model
pixels = torch.arange(4 * 192).mul(37).remainder(256).to(torch.uint8).view(4, 3, 8, 8)
found = {}
for path in sys.argv[1:]:
    loaded = load_model(path)
    found[path] = [loaded.arch, loaded.digest, predict(loaded.model, pixels).tolist()]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def thieves(victim: Net, few: ImageSet) -> dict[str, nn.Module]:
    """Return one stolen model of each method."""
    made = {}
    for spec in battery("cnn:width=4", profile="smoke"):
        method = find(spec.method).configured(spec.fields)
        assert isinstance(method, TheftMethod)
        view = AttackerView.of_model(victim, few, labels=spec.labels, arch=spec.arch)
        made[spec.method] = method.steal(view, rng=generator(0)).model
    return made


@pytest.fixture(scope="module")
def nested(victim: Net, few: ImageSet) -> Assembly:
    """Return a detector around a vote around networks, behind a label."""
    vote = Ensemble(fields={"epochs": 1}, count=2).steal(AttackerView.of_model(victim, few, labels="stolen"), rng=generator(0)).model
    guarded = DetectReconstruction(coder_epochs=1).steal(AttackerView.of_model(vote, few, labels="none"), rng=generator(0)).model
    made = Combined(steps=["wrap-label"]).steal(AttackerView.of_model(guarded, few), rng=generator(0)).model
    assert isinstance(made, Assembly)
    return made


def test_stolen_models_come_back_from_the_store_as_they_went_in(thieves: dict[str, nn.Module], nested: Assembly, tmp_path: Path) -> None:
    store = Store(tmp_path)
    for name, model in {**thieves, "nested": nested}.items():
        digest = put_model(store, model)
        read = get_model(str(tmp_path), digest)
        assert type(read) is type(model), name
        assert not read.training
        assert state_digest(read) == state_digest(model), name
        assert torch.allclose(predict(read, PIXELS), predict(model, PIXELS), atol=1e-4), name
        assert put_model(store, read) == digest


def test_stolen_models_read_in_another_process_give_the_same_logits(
    thieves: dict[str, nn.Module], nested: Assembly, tmp_path: Path
) -> None:
    expected, models = {}, {**thieves, "nested": nested}
    for name, model in models.items():
        path = str(tmp_path / f"{name}.safetensors")
        save_model(path, model, {"source": "stolen"})
        here = load_model(path)
        assert here.facts["source"] == "stolen"
        assert here.digest == state_digest(model)
        expected[path] = [here.arch, here.digest, predict(here.model, PIXELS).tolist()]
    done = subprocess.run([sys.executable, "-c", READER, *expected], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found == expected
    for path, model in zip(
        found, models.values(), strict=True
    ):  # in memory the weights may lie in another order, which rounds sums differently
        assert torch.allclose(torch.tensor(found[path][2]), predict(model, PIXELS), atol=1e-4)


def test_an_assembly_says_what_is_inside(nested: Assembly, victim: Net) -> None:
    tensors, facts = pack(nested)
    plan = json.loads(facts["plan"])
    assert plan["method"] == "wrap-label"
    inner = plan["parts"][0]
    assert (inner["method"], inner["fields"]["coder_epochs"]) == ("detect-reconstruction", 1)
    assert inner["parts"][0]["parts"] == [{"arch": victim.arch, "size": [8, 8]}] * 2
    assert "parts.0.tools.coder.down.0.weight" in tensors
    assert float(tensors["parts.0.threshold"]) > 0
    assert (nested.arch, nested.classes, nested.channels, nested.size) == (victim.arch, 3, 3, (8, 8))


def test_a_copy_of_an_assembly_is_one(nested: Assembly) -> None:
    again = copy.deepcopy(nested)
    assert torch.equal(predict(again, PIXELS), predict(nested, PIXELS))
    assert canonical_json(pack(again)[1]) == canonical_json(pack(nested)[1])


def altered(plan: dict[str, Any], which: int) -> Any:
    """Return a description with one thing wrong."""
    odd = copy.deepcopy(plan)
    inner = odd["parts"][0]
    changes: list[Any] = [
        lambda: odd.update(method="nothing"), lambda: odd.update(method="ftal"), lambda: odd.update(method="pgd"), lambda: odd.pop("method"),
        lambda: odd.update(fields={"unheard": 1}), lambda: odd.update(fields=[1]), lambda: odd.update(parts=[]), lambda: odd.update(parts=7),
        lambda: odd.update(parts=[7]), lambda: inner.update(fields={"width": 4}), lambda: inner.update(fields={"width": -4}),
        lambda: inner.update(fields={"width": 10**9}), lambda: inner["parts"][0].update(parts=[{"arch": "resnet8", "size": [8, 8]}] * 2),
        lambda: inner["parts"][0].update(parts=[{"arch": "cnn:width=4", "size": "wide"}] * 2),
        lambda: inner["parts"][0].update(parts=[{"arch": "os:getcwd", "size": [8, 8]}] * 2),
        inner["parts"][0]["parts"].pop, lambda: inner["parts"][0].update(fields={"count": 2, "fields": 3}),
    ]  # fmt: skip
    changes[which % len(changes)]()
    return odd


@pytest.mark.parametrize("which", range(17))
def test_descriptions_that_do_not_fit_are_refused_in_a_sentence(which: int, nested: Assembly) -> None:
    tensors, facts = pack(nested)
    with pytest.raises(ModelwardError) as caught:
        unpack(tensors, {"plan": json.dumps(altered(json.loads(facts["plan"]), which))}, "thief.safetensors")
    assert isinstance(caught.value, FormatError)


@pytest.mark.parametrize(
    "plan", ["", "null", "[]", "3", "{", '{"parts": []}', "[" * 5000, '{"method": "wrap-flip", "fields": {}, "parts": [{}]}']
)
def test_what_is_no_description_is_refused(plan: str) -> None:
    with pytest.raises(FormatError):
        unpack({}, {"plan": plan})


def test_descriptions_without_end_are_refused(victim: Net) -> None:
    tensors, facts = pack(victim)
    plan: dict[str, Any] = {"arch": facts["arch"], "size": json.loads(facts["size"])}
    for _ in range(40):
        plan = {"method": "wrap-flip", "fields": {}, "parts": [plan]}
        tensors = {f"parts.0.{name}": tensor for name, tensor in tensors.items()}
    with pytest.raises(FormatError, match="too deeply"):
        unpack(tensors, {"plan": json.dumps(plan)})


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_missing_or_misshapen_tensors_are_refused(data: st.DataObject, nested: Assembly) -> None:
    tensors, facts = pack(nested)
    name = data.draw(st.sampled_from(sorted(name for name in tensors if not name.endswith((".mean", ".std")))))
    odd = dict(tensors)
    if data.draw(st.booleans()):
        del odd[name]
    else:
        odd[name] = torch.zeros(2, 3, 4)
    with pytest.raises(FormatError):
        unpack(odd, facts)


def test_modules_that_do_not_say_how_they_are_built_are_not_kept(tmp_path: Path, few: ImageSet) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(InputError, match="does not say how it is built"):
        put_model(Store(tmp_path), net)
    around = find("wrap-flip").configured({})
    assert isinstance(around, TheftMethod)
    theft = around.steal(AttackerView.of_model(net, few), rng=generator(0))
    assert dataclasses.is_dataclass(theft)
    with pytest.raises(InputError, match="does not say how it is built"):
        pack(theft.model)
