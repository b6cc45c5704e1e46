"""Networks of every floating type: what a file holds is what is loaded, and they answer about float32 images."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from modelward.attacks.theft import Transfer, WrapNoise
from modelward.core.errors import FormatError, InputError
from modelward.core.guard import predict, require_float32, state_digest
from modelward.core.rng import generator
from modelward.core.view import AttackerView
from modelward.data.study import Study
from modelward.io.safetensors import load_tensors, save_tensors
from modelward.models import Net, load_model, save_model
from modelward.models.assembly import pack, unpack
from modelward.models.relevance import Relevance

KINDS = (torch.float64, torch.bfloat16, torch.float16)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


@pytest.fixture
def x(parts: Study) -> Tensor:
    return parts.test.batch(slice(0, 64))


def of_kind(net: Net, kind: torch.dtype) -> Net:
    return copy.deepcopy(net).to(kind)


@every_kind
def test_a_file_keeps_its_type_and_its_answers(kind: torch.dtype, victim: Net, x: Tensor, tmp_path: Path) -> None:
    net = of_kind(victim, kind)
    save_model(tmp_path / "m.safetensors", net)
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.digest == state_digest(net) != state_digest(victim)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {kind}
    logits = predict(loaded.model, x)
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, predict(victim, x), atol=0.3)
    assert torch.allclose(
        predict(net.get_submodule("body"), (x - net.mean.float()) / net.std.float()), logits, atol=1e-3
    )  # a module that casts nothing itself
    assert loaded.model(x[:2]).dtype == (torch.float64 if kind == torch.float64 else torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(loaded.model(x).detach().float(), logits, atol=1e-3)  # the type of the weights counts


@every_kind
def test_weights_without_normalisation_keep_their_type(kind: torch.dtype, mlp_victim: Net, x: Tensor, tmp_path: Path) -> None:
    bare = {name: tensor for name, tensor in of_kind(mlp_victim, kind).state_dict().items() if name.startswith("body.")}
    save_tensors(tmp_path / "m.safetensors", bare)
    loaded = load_model(tmp_path / "m.safetensors", "mlp:width=24", size=(8, 8), like=(3, 8, 8))
    assert state_digest({name: loaded.model.state_dict()[name] for name in bare}) == state_digest(bare)
    assert predict(loaded.model, x).shape == (64, 3)


def test_types_side_by_side_are_kept_where_the_network_computes_with_them_and_named_where_not(
    victim: Net, mlp_victim: Net, x: Tensor, tmp_path: Path
) -> None:
    mixed, hopeless = of_kind(victim, torch.bfloat16), copy.deepcopy(mlp_victim)
    for module in mixed.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.float()
    save_model(tmp_path / "mixed.safetensors", mixed)
    loaded = load_model(tmp_path / "mixed.safetensors")
    assert loaded.digest == state_digest(mixed)
    assert predict(loaded.model, x).shape == (64, 3)
    list(hopeless.body.children())[-1].bfloat16()
    save_model(tmp_path / "hopeless.safetensors", hopeless)
    with pytest.raises(
        InputError, match=r"'body\.5\.bias' is bfloat16 and 'body\.1\.bias' float32, and mlp:width=24 cannot compute with both"
    ):
        load_model(tmp_path / "hopeless.safetensors")
    with pytest.raises(InputError, match=r"weights are float32 and bfloat16, and it fails on images: .*\.float\(\) first"):
        predict(hopeless, x)


def test_weights_that_are_no_floats_are_refused(mlp_victim: Net, tmp_path: Path) -> None:
    state = mlp_victim.state_dict() | {"body.1.weight": mlp_victim.state_dict()["body.1.weight"].mul(10).to(torch.int8)}
    save_tensors(tmp_path / "m.safetensors", state)
    with pytest.raises(InputError, match=r"'body\.1\.weight' is int8; weights are float32, float64, float16, bfloat16"):
        load_model(tmp_path / "m.safetensors", "mlp:width=24")


@every_kind
def test_a_wrapper_keeps_the_type_inside_in_a_file_and_in_the_store(
    kind: torch.dtype, victim: Net, parts: Study, x: Tensor, tmp_path: Path
) -> None:
    made = WrapNoise(std=0.0).steal(AttackerView.of_model(of_kind(victim, kind), parts.attacker, labels="none"), rng=generator(0)).model
    save_model(tmp_path / "m.safetensors", made)
    tensors, facts = pack(made)
    assert all(tensor.numpy() is not None for tensor in tensors.values())  # numpy knows their types
    for again in (load_model(tmp_path / "m.safetensors").model, unpack(tensors, facts)):
        assert state_digest(again) == state_digest(made)
        assert torch.equal(predict(again, x), predict(made, x))
    assert all(tensor.dtype == kind for tensor in load_tensors(tmp_path / "m.safetensors")[0].values() if tensor.is_floating_point())
    with pytest.raises(FormatError, match="does not say how it is built"):
        unpack(tensors, {**facts, "bfloat16": "7"})


@every_kind
def test_it_is_explained_and_trained_further(kind: torch.dtype, victim: Net, parts: Study, x: Tensor) -> None:
    net = of_kind(victim, kind)
    maps = Relevance(net).maps(x[:4], parts.test.labels[:4])
    assert maps.dtype == torch.float32
    assert torch.allclose(maps, Relevance(victim).maps(x[:4], parts.test.labels[:4]), atol=0.2)
    stolen = Transfer(epochs=1).steal(AttackerView.of_model(net, parts.attacker.few(32)), rng=generator(0)).model
    assert {parameter.dtype for parameter in stolen.parameters()} == {kind}
    assert predict(stolen, x).shape == (64, 3)


def test_half_precision_is_named_where_float32_is_counted_on(victim: Net) -> None:
    require_float32(victim, "this")
    require_float32(of_kind(victim, torch.float64), "this")  # it casts its images itself
    with pytest.raises(InputError, match=r"this trains in float32, and '0\.weight' of this model is float64"):
        require_float32(of_kind(victim, torch.float64).get_submodule("body"), "this")
