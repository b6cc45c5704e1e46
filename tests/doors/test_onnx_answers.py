"""Which of an ONNX file's outputs answers, and what is odd about its graph."""

from __future__ import annotations

import numpy as np
import pytest

from modelward.io.onnx_child import pick
from modelward.io.onnx_graph import Refused, check

onnx = pytest.importorskip("onnx")
SCORES = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
ORDER = np.argsort(-SCORES, axis=1)
FALLING = np.take_along_axis(SCORES, ORDER, axis=1)


@pytest.mark.parametrize("turned", [False, True])
def test_sorted_answers_go_back_to_their_classes(turned: bool) -> None:
    outputs = [FALLING, ORDER.astype(np.int64)]
    found, notes = pick(outputs[::-1] if turned else outputs, 12, 5)
    assert np.array_equal(found, SCORES)
    assert "sorts its answers" in notes[0]


def test_the_best_few_are_read_as_labels() -> None:
    found, notes = pick([FALLING[:, :3], ORDER[:, :3].astype(np.int32)], 12, 5)
    assert np.array_equal(found, SCORES.argmax(1))
    assert "best classes" in notes[0]
    with pytest.raises(Refused, match="classes"):
        pick([FALLING[:, :3], ORDER[:, :3] + 5], 12, 5)


def test_sorted_answers_without_their_classes_are_refused() -> None:
    with pytest.raises(Refused, match="they are sorted"):
        pick([FALLING], 12, 5)
    one = np.repeat(FALLING[:1], 12, axis=0)  # one answer for everything may fall by chance
    assert np.array_equal(pick([one], 12, 5)[0], one)


def test_of_several_outputs_the_first_is_read_and_it_is_said() -> None:
    found, notes = pick([SCORES, SCORES[::-1]], 12, 5)
    assert np.array_equal(found, SCORES)
    assert "several outputs" in notes[0]
    assert pick([SCORES], 12, 5)[1] == ()


def graph(nodes: list, dims: list, constants: list = ()) -> object:
    """Return a model of some nodes that takes x and gives y."""
    from onnx import TensorProto, helper

    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(constants),
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])


def test_layers_in_training_mode_are_named() -> None:
    from onnx import TensorProto, helper

    yes, no = (helper.make_tensor(name, TensorProto.BOOL, [], [value]) for name, value in (("yes", True), ("no", False)))
    norm = ["x", "s", "b", "m", "v"]
    for training in (0, 1):
        nodes = [helper.make_node("BatchNormalization", norm, ["y", *(["m2", "v2"] if training else [])], training_mode=training)]
        notes = check(graph(nodes, [None, 3, 4, 4]), (3, 4, 4)).notes
        assert bool(notes) == bool(training)
    for mode, said in (("yes", True), ("no", False), ("", False)):
        notes = check(graph([helper.make_node("Dropout", ["x", "", mode], ["y"])], [None, 3, 4, 4], [yes, no]), (3, 4, 4)).notes
        assert any("Dropout" in note for note in notes) == said


@pytest.mark.parametrize(("perm", "layout"), [([0, 3, 1, 2], "NHWC"), ([0, 2, 3, 1], "NCHW"), (None, "NCHW")])
def test_where_channels_stand_is_read_from_the_graph_or_said_to_be_guessed(perm: list[int] | None, layout: str) -> None:
    from onnx import helper

    first = helper.make_node("Relu", ["x"], ["y"]) if perm is None else helper.make_node("Transpose", ["x"], ["y"], perm=perm)
    feed = check(graph([first], [None, None, None, None]), (3, 4, 4))
    assert feed.layout == layout
    assert f"read as {layout}" in feed.notes[0]
