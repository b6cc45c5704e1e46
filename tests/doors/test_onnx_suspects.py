"""ONNX suspects: every dress of one net gives one verdict; what is odd is told, what is unsafe never runs."""

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch

from modelward.audit import judge
from modelward.cli.main import main
from modelward.core.deciding import SAME
from modelward.core.errors import InputError, UnavailableError, UnsafeFileError, UsageError
from modelward.core.suspect import Suspect
from modelward.core.verdict import Decision
from modelward.io import onnx_suspect
from modelward.io.onnx_suspect import ask_onnx
from modelward.ownership import SAC

onnx = pytest.importorskip("onnx")


@pytest.fixture
def ask(key):
    """Return a function that asks a file about the key's probes."""
    return lambda path, **options: ask_onnx(path, key.tensors["probes"].numpy(), 3, **options)


@pytest.mark.parametrize(
    ("dress", "note"),
    [
        ({}, None), ({"batch": 1}, None), ({"batch": 7}, None), ({"tail": ("Softmax",)}, None), ({"kind": "uint8"}, "uint8"),
        ({"layout": "NHWC"}, "NHWC"), ({"sizes": ("c", "h", "w")}, "read as NCHW"), ({"kind": "float16"}, None),
    ],
    ids=str,
)  # fmt: skip
def test_every_dress_gives_the_answers_of_the_net(onnx_file, ask, truth, dress, note):
    answers, notes = ask(onnx_file(**dress))
    found = torch.from_numpy(answers.probabilities)
    found = found if "tail" in dress else found.softmax(1)
    assert torch.allclose(found, truth, atol=2e-3 if dress.get("kind") == "float16" else 1e-5)
    assert (note in " ".join(notes)) if note else notes == ()


def test_the_verdict_is_that_of_the_probabilities(onnx_file, key, truth):
    verdict = judge(onnx_file(), key)
    wanted = SAC().verify(Suspect.of_answers(truth), key)
    assert verdict.statistic == pytest.approx(wanted.statistic, abs=1e-4)
    assert (verdict.decision, verdict.access, verdict.queries) == (wanted.decision, "probabilities", 60)
    assert verdict.fits
    assert (verdict.decision, verdict.caveats[0]) == (Decision.UNDECIDED, SAME)  # it answers as the very model of the key
    assert any("softmax was applied" in caveat for caveat in verdict.caveats)


def test_labels_are_compared_as_labels(onnx_file, key, truth):
    verdict = judge(onnx_file(tail=("ArgMax",)), key)
    wanted = SAC().verify(Suspect.of_answers(truth.argmax(1)), key)
    assert (verdict.statistic, verdict.access) == (pytest.approx(wanted.statistic), "label")


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_net_that_expects_other_numbers_is_told_so(onnx_file, key, truth, mlp_victim, layout):
    """Let the graph expect bytes in the order BGR, as (x - mean) / std leaves them."""
    from modelward.models import Convention

    net = copy.deepcopy(mlp_victim)
    outside = Convention(range=(0.0, 255.0), mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 8.0), channels="bgr")
    with torch.no_grad():  # the graph undoes the convention: its mean and std are chosen so that the body sees what it saw
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (outside.mean, outside.std))
        net.mean = (net.mean.flip(1) * 255 - mean) / std
        net.std = net.std.flip(1) * 255 / std
        first = net.body[1]
        first.weight.copy_(first.weight.view(len(first.weight), 3, -1).flip(1).flatten(1))
    path = onnx_file(net=net, layout=layout)
    right = judge(path, key, convention=outside)
    assert right.statistic == pytest.approx(SAC().verify(Suspect.of_answers(truth), key).statistic, abs=1e-4)
    assert right.statistic < judge(path, key).statistic
    with pytest.raises(UsageError, match="give one or 3"):
        judge(path, key, convention=Convention(mean=(1.0, 2.0)))
    with pytest.raises(InputError, match="whole pixels"):
        judge(onnx_file(kind="uint8"), key, convention=outside)
    with pytest.raises(UsageError, match="go with weights and ONNX"):
        judge("a.b:c", key, convention=outside)


def external(model):
    tensor = model.graph.initializer[3]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def hidden(model):
    """Put external data into a branch of a nested graph."""
    helper = onnx.helper
    tensor = onnx.TensorProto(name="t", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    constant = helper.make_node("Constant", [], ["k"], value=tensor)
    branch = helper.make_graph([constant], "b", [], [helper.make_tensor_value_info("k", 1, None)])
    model.graph.node.insert(0, helper.make_node("If", ["cond"], ["z"], then_branch=branch, else_branch=branch))


def deep(model):
    helper = onnx.helper
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["k"])], "g", [], [])
    for _ in range(12):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["z"], then_branch=graph, else_branch=graph)], "g", [], [])
    model.graph.node.insert(0, graph.node[0])


def many(model):
    node = onnx.helper.make_node("Identity", ["x"], ["q"])
    model.graph.node.extend([node] * 20_001)


def forever(model):
    """Put a loop of 2**40 rounds before the output."""
    helper, number = onnx.helper, onnx.numpy_helper.from_array
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Neg", ["v"], ["w"])], "body",
        [helper.make_tensor_value_info("i", 7, []), helper.make_tensor_value_info("go", 9, []), helper.make_tensor_value_info("v", 1, None)],
        [helper.make_tensor_value_info("on", 9, []), helper.make_tensor_value_info("w", 1, None)],
    )  # fmt: skip
    model.graph.initializer.extend([number(np.array(2**40), "rounds"), number(np.array(True), "go")])
    last = model.graph.node[-1]
    loop = helper.make_node("Loop", ["rounds", "go", last.input[0]], ["looped"], body=body)
    last.input[0] = "looped"
    model.graph.node.insert(len(model.graph.node) - 1, loop)


def call(model, functions):
    """Give the graph local functions, each a list of those it calls, and call the first."""
    helper = onnx.helper
    for name, calls in functions.items():
        nodes = [helper.make_node(inner, ["a"], [f"o{i}"], domain="own" if inner in functions else "") for i, inner in enumerate(calls)]
        made = helper.make_function("own", name, ["a"], ["o0"], nodes, [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)])
        model.functions.append(made)
    model.opset_import.append(helper.make_opsetid("own", 1))
    last = model.graph.node[-1]
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node(next(iter(functions)), [last.input[0]], ["called"], domain="own"))
    last.input[0] = "called"


def unfolding(model):
    call(model, {f"f{i}": [f"f{i + 1}"] * 2 if i < 20 else ["Neg"] for i in range(21)})


def circular(model):
    call(model, {"f": ["g"], "g": ["f"]})


def test_local_functions_are_fine(onnx_file, ask, truth):
    found = ask(onnx_file(lambda model: call(model, {"f": ["g"], "g": ["Identity"]})))[0].probabilities
    assert torch.allclose(torch.from_numpy(found).softmax(1), truth, atol=1e-5)


def bomb(model):
    """Put the net behind 2**40 floats."""
    helper = onnx.helper
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2**20, 2**20]), "shape"))
    last = model.graph.node[-1]
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]), helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("Add", [last.input[0], "sum"], ["sated"]),
    ]  # fmt: skip
    last.input[0] = "sated"
    for node in nodes:
        model.graph.node.insert(len(model.graph.node) - 1, node)


@pytest.mark.parametrize(
    ("change", "dress", "kind", "word"),
    [
        (external, {}, UnsafeFileError, "weights lie in other files"),
        (hidden, {}, UnsafeFileError, "weights lie in other files"),
        (deep, {}, UnsafeFileError, "nested deeper"),
        (many, {}, UnsafeFileError, "20,000 nodes"),
        (unfolding, {}, UnsafeFileError, "unfold to more than 20,000"),
        (circular, {}, UnsafeFileError, "call each other more than"),
        (bomb, {}, UnsafeFileError, r"more memory|limits"),
        (None, {"tail": ("Warp@com.acme",)}, InputError, "custom domain 'com.acme'"),
        (None, {"tail": ("Warp",)}, InputError, "no operator 'Warp'"),
        (None, {"kind": "int64"}, InputError, "float32"),
        (None, {"sizes": (3, 32, 32)}, InputError, r"3x32x32.*3x8x8"),
        (None, {"batch": 5000}, InputError, "5,000"),
        (None, {"tail": ("Log",)}, InputError, "NaN or infinite"),
        (lambda model: model.graph.input.append(onnx.helper.make_tensor_value_info("z", 1, [1])), {}, InputError, "2 inputs"),
        (lambda model: model.opset_import[0].CopyFrom(onnx.helper.make_opsetid("", 4000)), {}, InputError, "opset|runtime"),
        (lambda model: model.graph.node.pop(), {}, InputError, "runtime cannot run it"),
    ],
)  # fmt: skip
def test_one_sentence_says_why_not(onnx_file, ask, change, dress, kind, word):
    with pytest.raises(kind, match=word) as caught:
        ask(onnx_file(change, **dress))
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


def test_a_graph_that_never_ends_is_stopped(onnx_file, ask):
    with pytest.raises(UnsafeFileError, match=r"longer than 2 s|limits"):
        ask(onnx_file(forever), seconds=2.0)


def test_another_number_of_classes(onnx_file, key):
    with pytest.raises(InputError, match=r"60x3.*5 classes"):
        ask_onnx(onnx_file(), key.tensors["probes"].numpy(), 5)


def test_a_graph_that_draws_random_numbers_is_told(onnx_file, ask):
    def draw(model):
        model.graph.node.insert(0, onnx.helper.make_node("RandomNormal", [], ["r"], shape=[1]))

    assert "draws random numbers" in ask(onnx_file(draw))[1][0]


def test_damaged_files_never_end_in_a_traceback(onnx_file, ask, tmp_path):
    whole = onnx_file().read_bytes()
    rng = np.random.default_rng(0)
    for number in range(4):
        data = bytearray(whole[: len(whole) // 2] if number == 0 else whole)
        for at in rng.integers(0, min(400, len(data)), 6):
            data[at] ^= 1 << int(rng.integers(8))
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(bytes(data))
        try:
            ask(path)
        except (InputError, UnsafeFileError) as error:
            assert "\n" not in str(error)  # noqa: PT017  # a damaged file may also be whole enough


def test_a_file_over_the_cap_is_not_read(onnx_file, ask, monkeypatch):
    monkeypatch.setattr(onnx_suspect, "FILE_CAP", 100)
    with pytest.raises(UnsafeFileError, match="more than the 100"):
        ask(onnx_file())


def test_without_the_packages_one_sentence_names_the_extra(onnx_file, ask, monkeypatch):
    path = onnx_file()
    monkeypatch.setattr(onnx_suspect.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UnavailableError, match=r"pip install 'modelward\[onnx\]'"):
        ask(path)


def test_the_shell_knows_the_door(onnx_file, key_file, capsys):
    assert main(["verify", str(onnx_file()), "--key", str(key_file)]) == 3
    assert "The suspect is the very model that the key names" in " ".join(capsys.readouterr().out.split())
    assert main(["verify", str(onnx_file(external)), "--key", str(key_file)]) == 5
    assert "Traceback" not in capsys.readouterr().err


def test_the_child_needs_no_torch():
    code = "import sys, modelward.io.onnx_child; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
