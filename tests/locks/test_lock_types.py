"""Locks on networks that are not all float32, or whose layers share weights: they open byte for byte, or one sentence says what to do."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modelward.cli.main import main
from modelward.core.errors import InputError
from modelward.core.guard import predict, state_digest
from modelward.core.rng import generator
from modelward.data.study import Study
from modelward.io.safetensors import load_tensors, save_tensors
from modelward.locks.activeguard import ActiveGuard
from modelward.locks.dataset_lock import DatasetLock
from modelward.locks.sample_lock import SampleLock
from modelward.models import Net, build, save_model

KINDS = (torch.float64, torch.bfloat16, torch.float16)
HALVES = KINDS[1:]
SMALL: dict[str, Any] = {"users": 2, "nulls": 32, "steps": 30, "seeds": 32, "bits": 8, "epochs": 1, "share": 0.02, "images": 64}
TIED = """
from torch import nn

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(784, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.last = nn.Linear(32, 10)
        self.third.weight = self.second.weight

    def forward(self, x):
        return self.last(self.third(self.second(self.first(x.flatten(1)).relu()).relu()).relu())
"""


class WideTied(nn.Module):
    """A network whose two widest layers are one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(192, 192), nn.Linear(192, 192), nn.Linear(192, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        made: Tensor = self.last(self.second(self.first(x.flatten(1)).relu()).relu())
        return made


def write_net(path: Path, kind: torch.dtype) -> tuple[str, ...]:
    """Write an untrained network of one type; return the options by which it is named."""
    save_model(path, build("mlp:width=16", classes=10, size=(28, 28), rng=generator(0)).to(kind))
    return ()


def write_tied(path: Path, kind: torch.dtype) -> tuple[str, ...]:
    """Write the state of a bare module whose layers share weights; return the options by which it is named."""
    rng, sizes = generator(0), {"first": (32, 784), "second": (32, 32), "third": (32, 32), "last": (10, 32)}
    state = {f"{name}.weight": 0.1 * torch.randn(size, generator=rng) for name, size in sizes.items()}
    state |= {f"{name}.bias": 0.1 * torch.randn(size[:1], generator=rng) for name, size in sizes.items()}
    state["third.weight"] = state["second.weight"]
    save_tensors(path, {name: tensor.to(kind) for name, tensor in state.items()})
    (path.parent / "tied_net.py").write_text(TIED)
    return ("--arch", "tied_net:Tied")


def bare(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file under the names of the bare module; what modelward wrote has them behind the normalisation."""
    return {name.removeprefix("body."): tensor for name, tensor in load_tensors(path)[0].items() if name not in {"mean", "std"}}


def test_a_file_of_any_type_is_locked_and_another_process_opens_it_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kinds = {f"net-{str(kind)[6:]}": kind for kind in KINDS} | {"tied-float32": torch.float32, "tied-bfloat16": torch.bfloat16}
    opening = []
    for name, kind in kinds.items():
        arch = (write_tied if name.startswith("tied") else write_net)(tmp_path / f"{name}.safetensors", kind)
        files = ("--out-key", f"{name}.mw", "--out-model", f"{name}.locked")
        fast = ("--set", "share=0.001", "--set", "images=16", "-q")
        assert main(["lock", "advparams", "--model", f"{name}.safetensors", *arch, *files, *fast]) == 0
        opening.append(" ".join(("unlock", "--model", f"{name}.locked", *arch, "--key", f"{name}.mw", "--out-model", f"{name}.opened")))
    code = "import sys; from modelward.cli.main import main; sys.exit(max(main(line.split()) for line in sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, *opening], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("byte for byte") == len(kinds)
    for name, kind in kinds.items():
        before, locked, after = (bare(tmp_path / f"{name}.{end}") for end in ("safetensors", "locked", "opened"))
        assert {tensor.dtype for tensor in after.values()} == {kind}
        assert state_digest(after) == state_digest(before) != state_digest(locked), name
        if name.startswith("net"):
            assert state_digest(load_tensors(tmp_path / f"{name}.opened")[0]) == state_digest(
                load_tensors(tmp_path / f"{name}.safetensors")[0]
            )


@pytest.mark.parametrize("kind", HALVES, ids=str)
@pytest.mark.parametrize(
    "lock", [ActiveGuard(**SMALL), SampleLock(), SampleLock(variant="paper")], ids=lambda lock: f"{lock.card.name}-{lock.variant}"
)
def test_a_lock_that_trains_in_float32_says_so_of_half_precision(
    lock: ActiveGuard | SampleLock, kind: torch.dtype, victim: Net, parts: Study
) -> None:
    net, name = copy.deepcopy(victim).to(kind), str(kind).removeprefix("torch.")
    for model, prefix in ((net, r"body\."), (net.body, "")):
        with pytest.raises(
            InputError, match=rf"{lock.card.name} trains in float32, and '{prefix}0\.weight' .* {name}; .*\.float\(\) first"
        ):
            lock.lock(model, parts.owner, rng=generator(0))


def test_activeguard_opens_a_network_in_double_precision(mlp_victim: Net, parts: Study) -> None:
    net, method = copy.deepcopy(mlp_victim).double(), ActiveGuard(**SMALL)
    locked, key = method.lock(net, parts.owner, rng=generator(0))
    opened = method.unlock(locked, key)
    assert {parameter.dtype for parameter in opened.parameters()} == {torch.float64}
    right = [float((predict(model, parts.test.pixels).argmax(1) == parts.test.labels).double().mean()) for model in (opened, locked)]
    assert right[0] > 0.9
    assert right[1] < 0.5


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_images_are_locked_by_a_surrogate_of_any_type(kind: torch.dtype, victim: Net, parts: Study) -> None:
    images, net = parts.owner.few(24), copy.deepcopy(victim).to(kind)
    before = state_digest(net)
    for surrogate in (net, net.body):
        locked, key = DatasetLock(steps=2, backend="sidecar").lock(images, surrogate, secret=b"0" * 32, rng=generator(0))
        assert bool((locked.images.pixels != images.pixels).any())
        assert torch.equal(DatasetLock().unlock(locked, key).pixels, images.pixels)
    assert state_digest(net) == before


def test_activeguard_says_what_it_can_do_about_layers_that_share_weights(parts: Study) -> None:
    net, rng = WideTied(), generator(0)
    for parameter in net.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=rng)
    with pytest.raises(
        InputError, match=r"^the weights of first serve in two places; activeguard picks the layer itself: bits=0 locks"
    ) as caught:
        ActiveGuard(**SMALL).lock(net, parts.owner, rng=generator(0))
    assert "layer=" not in str(caught.value)
    with pytest.raises(InputError, match="filters of at least 1000 weights, here they have 192; activeguard picks the layer itself"):
        ActiveGuard(**{**SMALL, "bits": 500}).lock(net, parts.owner, rng=generator(0))
