"""Which models an audit takes: those of the data's classes, and those that have outputs beyond them, with a remark."""

import dataclasses

import pytest
import torch

from modelward.audit import question
from modelward.audit.enrolment import null_folder
from modelward.audit.question import Ground, Question, fitted, prepare
from modelward.audit.stealing import steal, theft_spec
from modelward.core.errors import InputError, UsageError
from modelward.core.rng import generator
from modelward.data.sets import Splits
from modelward.evaluation.store import Store
from modelward.marking.heads import drop_outputs, widen_head
from modelward.models import load_model, save_model

REMARK = "one output more than the data has classes: it may carry an additional-class mark"


@pytest.fixture
def splits(make_blobs, monkeypatch):
    found = Splits(make_blobs(256, 1), make_blobs(96, 2), "blobs", "blobs")
    monkeypatch.setattr(question, "load_data", lambda *_, **__: found)
    return found


@pytest.fixture
def marked(tmp_path, mlp_victim):
    """Write a model with one output more than classes, which answers as before."""
    wide = widen_head(mlp_victim, 1, rng=generator(0))
    with torch.no_grad():
        list(wide.parameters())[-1][-1] = -50.0
    save_model(tmp_path / "marked.safetensors", wide)
    return tmp_path / "marked.safetensors"


@pytest.mark.usefixtures("splits")
def test_a_model_with_an_output_more_is_taken_and_told_of(marked, tmp_path):
    store = Store(tmp_path / "store")
    with pytest.warns(UserWarning, match=REMARK):
        ground = prepare(Question(model=marked), store)
    assert ground.notes[0] == f"The model has {REMARK}; answers beyond the classes count as wrong."


@pytest.mark.parametrize(("method", "outputs"), [("head-surgery", 3), ("ftal", 4), ("extract-p", 4)])
@pytest.mark.usefixtures("splits")
@pytest.mark.filterwarnings("ignore:.*additional-class mark")
def test_a_model_with_an_output_more_is_stolen(marked, tmp_path, method, outputs):
    spec = theft_spec(method, {} if method == "head-surgery" else {"epochs": 1})
    found = steal(Question(model=marked), spec, Store(tmp_path / "store"), out_model=tmp_path / "copy.safetensors", jobs=1)
    assert load_model(tmp_path / "copy.safetensors").model.classes == outputs
    assert found["lineage"]["accuracy"] + found["lineage"]["drop"] > 0.5


def test_fewer_outputs_and_outputs_for_other_classes_are_refused(splits, marked, mlp_victim, tmp_path):
    save_model(tmp_path / "few.safetensors", drop_outputs(mlp_victim, [0, 1]))
    with pytest.raises(InputError, match="2 outputs, blobs has 3 classes"):
        fitted(Question(model=tmp_path / "few.safetensors"))
    wide = load_model(marked).model
    save_model(tmp_path / "other.safetensors", drop_outputs(wide, [3, 3, 3, 0, 1, 2]))
    with pytest.raises(InputError, match=r"6 outputs, blobs has 3 classes, and 0 of its answers to 96 images are right, as by guessing"):
        fitted(Question(model=tmp_path / "other.safetensors"))
    del splits


def test_a_marked_null_model_is_told_of(splits, marked, mlp_victim):
    loaded = dataclasses.replace(load_model(marked), model=mlp_victim)
    ground = Ground(Question(), loaded, splits, None, "", {}, None)
    with pytest.warns(UserWarning, match=rf"--nulls marked\.safetensors: the model has {REMARK}"):
        assert len(null_folder(marked.parent, ground)) == 1


def test_an_architecture_without_a_model_is_refused():
    with pytest.raises(UsageError, match="the embedded model is a lenet5; --arch mlp is for a model of your own"):
        Question(arch="mlp")
