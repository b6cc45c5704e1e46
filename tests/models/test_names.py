"""Files of others: prefixes of wrappers, tensors stored once, counters that are absent, weights that were computed."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from modelward.core import consent
from modelward.core.errors import InputError, UnsafeFileError
from modelward.core.guard import predict
from modelward.io.legacy import check_archive
from modelward.io.safetensors import save_tensors
from modelward.models import load_model
from modelward.models.names import completed, unwrapped


class Tied(nn.Module):
    """A network that uses one matrix twice, and batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.a, self.b, self.c, self.d = nn.Linear(16, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.norm = nn.BatchNorm1d(8)
        self.c.weight = self.b.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.d(self.c(self.b(self.norm(self.a(x.flatten(1))).relu()).relu()).relu())


def tied() -> nn.Module:
    return Tied()


def normed() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(16, 3)))


PIXELS = torch.randint(0, 256, (20, 1, 4, 4), dtype=torch.uint8)


def loaded(arch: str, tensors: dict[str, torch.Tensor], path: Path) -> torch.Tensor:
    name = f"{__name__}:{arch}"
    save_tensors(path, {key: tensor.detach().clone() for key, tensor in tensors.items()}, {})
    consent.give([name])
    return predict(load_model(path, name, size=(4, 4)).model, PIXELS)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("left", [(), ("c.weight",), ("b.weight",), ("norm.num_batches_tracked",)])
def test_what_a_file_need_not_hold(prefix: str, left: tuple[str, ...], tmp_path: Path) -> None:
    net = Tied().eval()
    tensors = {prefix + name: tensor for name, tensor in net.state_dict().items() if name not in left}
    assert torch.allclose(loaded("tied", tensors, tmp_path / "m.safetensors"), predict(net, PIXELS), atol=1e-6)


def test_what_is_really_missing_is_named(tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in Tied().state_dict().items() if name not in {"b.weight", "c.weight"}}
    with pytest.raises(InputError, match=r"tensor '[bc].weight' is missing"):
        loaded("tied", tensors, tmp_path / "m.safetensors")
    some = {("module." if name.startswith("a") else "") + name: tensor for name, tensor in Tied().state_dict().items()}
    with pytest.raises(InputError, match="is missing"):
        loaded("tied", some, tmp_path / "m.safetensors")


def test_weights_that_were_computed_may_be_given_as_they_are(tmp_path: Path) -> None:
    net = normed().eval()
    plain = {"1.weight": net[1].weight, "1.bias": net[1].bias}
    for tensors in (plain, net.state_dict()):
        assert torch.allclose(loaded("normed", tensors, tmp_path / "m.safetensors"), predict(net, PIXELS), atol=1e-6)


def test_names_that_fit_keep_their_prefix() -> None:
    state = {"module.0.weight": torch.zeros(1)}
    assert unwrapped(state, state) == state
    assert completed(nn.Linear(1, 1), {}) == {}


def test_torchscript_is_called_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"script/{name}", b"")
    with pytest.raises(UnsafeFileError, match=r"TorchScript archive.*state_dict"):
        check_archive(path)
