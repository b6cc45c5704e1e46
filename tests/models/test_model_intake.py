from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from modelward.core.errors import FormatError, InputError, ModelwardError, UnsafeFileError, UsageError
from modelward.core.guard import state_digest
from modelward.core.rng import generator
from modelward.io.safetensors import save_tensors
from modelward.models import ARCHITECTURES, Net, build, infer, load_model, save_model
from modelward.models.embedded import embedded_model
from modelward.models.filling import fill

NAMES = [name for name in ARCHITECTURES if not name.startswith("efficientnet")]  # those have a test of their own
WIDER = {"wrn16": ":width=3", "vit-tiny": ":patch=5,width=12,depth=2,heads=3"}


def make(arch: str, channels: int = 1, size: tuple[int, int] = (28, 28)) -> Net:
    return build(arch, classes=10, channels=channels, size=size, rng=generator(0))


@pytest.mark.parametrize("wider", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_what_was_saved_is_loaded(name: str, wider: bool, tmp_path: Path) -> None:
    width = WIDER.get(name, ":width=12") if wider else ""
    net = make(name + width, 3, (16, 20))
    save_model(tmp_path / "m.safetensors", net, {"data": "toy", "trained_on": "abc"})
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.arch == name + width == loaded.model.arch
    assert (loaded.model.size, loaded.model.classes, loaded.model.channels) == ((16, 20), 10, 3)
    assert loaded.digest == state_digest(net) == state_digest(loaded.model)
    assert (loaded.facts["data"], loaded.facts["trained_on"]) == ("toy", "abc")
    x = torch.rand(2, 3, 16, 20, generator=generator(1))
    assert torch.equal(loaded.model(x), net(x))
    assert not loaded.model.training


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    net = make("cnn")
    for name in ("one", "two"):
        save_model(tmp_path / name, net, {"b": "2", "a": "1"})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_bare_state_needs_the_architecture(tmp_path: Path) -> None:
    path, net = tmp_path / "bare.safetensors", make("lenet5")
    save_tensors(path, net.state_dict())
    with pytest.raises(UsageError, match=r"bare\.safetensors does not say its architecture; pass --arch"):
        load_model(path)
    with pytest.raises(UsageError, match="no architecture 'lenet'; did you mean 'lenet5'"):
        load_model(path, "lenet")
    assert load_model(path, "lenet5").digest == state_digest(net)


def test_a_state_without_normalisation_sees_raw_pixels(tmp_path: Path) -> None:
    net = make("lenet5")
    save_tensors(tmp_path / "m.safetensors", {key: tensor for key, tensor in net.state_dict().items() if key not in {"mean", "std"}})
    model = load_model(tmp_path / "m.safetensors", "lenet5").model
    x = torch.rand(2, 1, 28, 28, generator=generator(1))
    assert torch.equal(model(x), net.body(x))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("other", NAMES)
def test_the_wrong_architecture_is_named(name: str, other: str, tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", make(name))
    if name == other:
        assert load_model(tmp_path / "m.safetensors", other).arch == name
        return
    with pytest.raises(InputError, match=rf"not a {other}|does not fit {other}") as caught:
        load_model(tmp_path / "m.safetensors", other)
    assert "--arch" in str(caught.value)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_a_tensor_that_does_not_fit_is_named(change: str) -> None:
    net = make("lenet5")
    state = dict(net.state_dict())
    key, words = {
        "missing": ("body.3.bias", "'body.3.bias' is missing"),
        "extra": ("body.99.weight", "'body.99.weight' has no place"),
        "shape": ("body.3.bias", r"'body.3.bias' has shape \(3,\), wanted \(16,\)"),
    }[change]
    if change == "missing":
        del state[key]
    else:
        state[key] = torch.zeros(3)
    before = state_digest(net)
    with pytest.raises(InputError, match=f"file.st does not fit lenet5: tensor {words}"):
        fill(net, state, "file.st")
    assert state_digest(net) == before


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("key", ["body.0.weight", "body.1.running_var", "mean"])
def test_broken_weights_are_refused(value: float, key: str, tmp_path: Path) -> None:
    net = make("cnn")
    net.state_dict()[key].view(-1)[0] = value
    save_model(tmp_path / "m.safetensors", net)
    with pytest.raises(InputError, match=f"weight '{key}' holds NaN or infinite"):
        load_model(tmp_path / "m.safetensors")


def odd_states() -> dict[str, dict[str, Tensor]]:
    """Weights that no network of the named kind has: the loader must say so, not crash."""
    base = make("lenet5").state_dict()
    return {
        "first layer is a number": {**base, "body.0.weight": torch.tensor(1.0)},
        "first layer is flat": {**base, "body.0.weight": torch.zeros(6)},
        "last layer is a number": {**base, "body.11.weight": torch.tensor(1.0)},
        "no filters": {**base, "body.0.weight": torch.zeros(0, 1, 5, 5)},
        "no outputs": {**base, "body.11.weight": torch.zeros(0, 84)},
        "no channels": {**base, "mean": torch.zeros(0), "std": torch.zeros(0)},
        "std of another length": {**base, "std": torch.ones(2)},
        "hidden layer is missing": {key: tensor for key, tensor in base.items() if not key.startswith(("body.7", "body.3"))},
        "huge width": {**base, "body.0.weight": torch.zeros(1, 1, 1, 1).expand(100_000, 1, 1, 1)},
        "too small": {**base, "body.7.weight": torch.zeros(120, 0)},
    }


@pytest.mark.parametrize("kind", odd_states())
def test_odd_weights_are_refused_in_words(kind: str, tmp_path: Path) -> None:
    save_tensors(tmp_path / "m.safetensors", odd_states()[kind])
    with pytest.raises(ModelwardError):
        load_model(tmp_path / "m.safetensors", "lenet5")


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    for name, data, error in (("a.pt", b"PK\x03\x04rest", UnsafeFileError), ("b.bin", b"hello, world", FormatError)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(error, match=name):
            load_model(tmp_path / name, "lenet5")


def test_odd_sizes_in_the_metadata_are_ignored(tmp_path: Path) -> None:
    for text in ("0,28", "28", "a,b", "-1,3", "99999,1", ""):
        save_tensors(tmp_path / "m.safetensors", make("lenet5").state_dict(), {"arch": "lenet5", "size": text})
        assert load_model(tmp_path / "m.safetensors").model.size == (28, 28)


def test_the_embedded_model() -> None:
    loaded = embedded_model()
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == 61_706
    assert infer("lenet5", loaded.model.state_dict()).size == (28, 28)
    assert loaded.digest == embedded_model().digest


def test_a_small_file_cannot_ask_for_much_memory(tmp_path: Path) -> None:
    state = {**make("mlp:width=2", size=(4, 4)).state_dict(), "body.1.weight": torch.zeros(1000, 16)}
    save_tensors(tmp_path / "m.safetensors", state, {"arch": "mlp", "size": "4000,4000"})  # a first layer of 64 GB
    with pytest.raises(InputError, match=r"tensor 'body\.1\.weight' has shape \(1000, 16\)"):
        load_model(tmp_path / "m.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_loading_draws_nothing_at_random(name: str, tmp_path: Path) -> None:
    save_model(tmp_path / "m.safetensors", make(name))
    before = torch.get_rng_state()
    load_model(tmp_path / "m.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
