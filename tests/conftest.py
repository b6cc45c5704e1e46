"""Tiny image sets, nets that learn them in a blink, and a witness that a model was left as it was."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor, nn

from modelward.core.guard import state_digest
from modelward.core.images import ImageSet
from modelward.core.rng import derive_seed, generator
from modelward.core.siblings import Siblings
from modelward.data.study import Study
from modelward.models import Net, build
from modelward.training import Recipe, fit

settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure
settings.load_profile("house")

COLOURS = ((220, 70, 60), (60, 210, 80), (70, 60, 230))
Witness = Callable[[nn.Module], AbstractContextManager[None]]


def blobs(count: int, seed: int, *, side: int = 8, noise: float = 60.0, name: str = "blobs") -> ImageSet:
    """Return ``count`` images of one coloured blob at a random place on grey, under Gaussian noise of ``noise`` grey levels."""
    rng = generator(derive_seed("blobs", seed))
    labels = torch.randint(0, len(COLOURS), (count,), generator=rng)
    centres = torch.randint(1, side - 1, (count, 2), generator=rng)
    grid = torch.arange(side)
    squares = (grid[None, :, None] - centres[:, 0, None, None]) ** 2 + (grid[None, None, :] - centres[:, 1, None, None]) ** 2
    weight = torch.exp(-squares / (side / 2))[:, None]
    pixels = 120 + weight * (torch.tensor(COLOURS, dtype=torch.float32)[labels][:, :, None, None] - 120)
    pixels += noise * torch.randn(pixels.shape, generator=rng)
    return ImageSet(pixels.round().clamp(0, 255).to(torch.uint8), labels, ("red", "green", "blue"), name)


def trained(arch: str, images: ImageSet, seed: int, *, epochs: int = 5) -> Net:
    """Return a small net trained on ``images``."""
    rng = generator(derive_seed("trained", seed))
    channels, height, width = images.shape
    net = build(arch, classes=len(images.classes), channels=channels, size=(height, width), rng=rng)
    fit(net, images.pixels, images.labels, Recipe(epochs=epochs, batch=32, lr=0.05, precision="fp32"), rng=rng)
    return net


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Return all that a caller could notice of a model: bytes, places in memory, flags, modes, gradients, hooks, attributes."""
    hooks = [[(name, list(value)) for name, value in sorted(vars(m).items()) if name.endswith("_hooks")] for m in model.modules()]
    return {
        "state": state_digest(model),
        "modes": [module.training for module in model.modules()],
        "memory": [(t.data_ptr(), t.stride(), t.dtype, t.device) for t in (*model.parameters(), *model.buffers())],
        "flags": [parameter.requires_grad for parameter in model.parameters()],
        "grads": [None if p.grad is None else (id(p.grad), p.grad.tolist()) for p in model.parameters()],
        "hooks": hooks,
        "attributes": [sorted(vars(module)) for module in model.modules()],
    }


def require_same(model: nn.Module, before: dict[str, Any]) -> None:
    """Fail when ``model`` is not as it was at the time of the snapshot ``before``."""
    after = snapshot(model)
    for what, value in before.items():
        assert after[what] == value, f"{what} of the caller's model changed"


@contextlib.contextmanager
def untouched_model(model: nn.Module) -> Iterator[None]:
    """Fail when the block changes anything of ``model``, or torch's global generator."""
    before, state = snapshot(model), torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), state), "the global generator was drawn from"
    require_same(model, before)


def no_op_hook(_module: nn.Module, _inputs: Any, _output: Any) -> None:
    """Do nothing; a hook to be found again."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the store that every test of this session shares, away from the user's own: what one test trained, the next reads."""
    folder = tmp_path_factory.getbasetemp() / "home"
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent.parent / "home"
    folder.mkdir(exist_ok=True)
    os.environ["MODELWARD_HOME"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def make_blobs() -> Callable[..., ImageSet]:
    """Return the maker of image sets: ``make_blobs(count, seed, side=8, noise=60)``."""
    return blobs


@pytest.fixture(scope="session")
def train_net() -> Callable[..., Net]:
    """Return the maker of trained nets: ``train_net(arch, images, seed, epochs=5)``."""
    return trained


@pytest.fixture(scope="session")
def parts() -> Study:
    """Return the four disjoint parts of a study, 3x8x8."""
    return Study(
        owner=blobs(256, 0, name="blobs owner"),
        attacker=blobs(256, 1, name="blobs attacker"),
        probes=blobs(200, 2, name="blobs probes"),
        test=blobs(400, 3, name="blobs test"),
    )


@pytest.fixture(scope="session")
def victim(parts: Study) -> Iterator[Net]:
    """Return a trained CNN with batch normalisation; the session fails when a test changes it."""
    net = trained("cnn:width=4", parts.owner, 1, epochs=10)
    before = snapshot(net)
    yield net
    require_same(net, before)


@pytest.fixture(scope="session")
def mlp_victim(parts: Study) -> Iterator[Net]:
    """Return a trained MLP; the session fails when a test changes it."""
    net = trained("mlp:width=24", parts.owner, 2)
    before = snapshot(net)
    yield net
    require_same(net, before)


@pytest.fixture(scope="session")
def hard() -> Study:
    """Return the parts of a study whose images are so noisy that a model errs on many of them: each has habits of its own."""
    owner, attacker, probes, test = (
        blobs(n, seed, noise=90, name=f"noisy blobs {seed}") for n, seed in ((256, 10), (256, 11), (200, 12), (200, 13))
    )
    return Study(owner=owner, attacker=attacker, probes=probes, test=test)


@pytest.fixture(scope="session")
def original(hard: Study) -> Net:
    """Return the model that ``kin`` are siblings of."""
    return trained("mlp:width=24", hard.owner, 1)


@pytest.fixture(scope="session")
def kin(hard: Study) -> Siblings:
    """Return nineteen siblings of ``original``: the same recipe on the same images, other seeds."""
    models = tuple(trained("mlp:width=24", hard.owner, 500 + number) for number in range(19))
    return Siblings(models=models, origin="code", start="none", images=hard.owner)


@pytest.fixture
def scarred(victim: Net) -> Net:
    """Return a copy of the victim in an odd state: mixed modes and gradient flags, a gradient, a hook."""
    clone = copy.deepcopy(victim).train().requires_grad_()
    clone.body[1].eval()  # type: ignore[index]
    first, second, *_ = clone.parameters()
    first.requires_grad_(False)
    second.grad = torch.ones_like(second)
    clone.body.register_forward_hook(no_op_hook)
    return clone


@pytest.fixture(scope="session")
def untouched() -> Witness:
    """Return a context manager that fails when the block changes anything of a model."""
    return untouched_model


@pytest.fixture
def rng() -> torch.Generator:
    """Return a fresh generator."""
    return generator(0)


@pytest.fixture
def store_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder that the result store lives in during the test."""
    folder = tmp_path / "store"
    monkeypatch.setenv("MODELWARD_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def batch(parts: Study) -> tuple[Tensor, Tensor]:
    """Return the first 48 test images (N, C, H, W) in [0, 1] and their labels."""
    return parts.test.batch(slice(48)), parts.test.labels[:48]
