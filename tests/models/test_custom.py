"""Architectures of the user's own: found by name, run only on demand, fitted strictly, read back in workers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from modelward.core import consent
from modelward.core.errors import InputError, ModelwardError, UnsafeFileError
from modelward.core.guard import state_digest
from modelward.core.rng import generator
from modelward.data.study import Study
from modelward.evaluation.cell import Cell
from modelward.evaluation.engine import Engine
from modelward.evaluation.farm import TheftSpec, theft_cell
from modelward.evaluation.parcels import get_model, put_model
from modelward.evaluation.store import Store
from modelward.evaluation.zoo import NullSpec, null_recipe, put_parts, train_cell
from modelward.io.safetensors import save_tensors
from modelward.models import build, load_model, save_model
from modelward.models.custom import is_custom

SOURCE = """
import torch
from torch import nn
from wardnets.blocks import Scale

class Small(nn.Module):
    def __init__(self, outputs=3):
        super().__init__()
        self.scale = Scale()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.body = nn.Linear(4, outputs)

    def forward(self, x):
        return self.body(torch.relu(self.conv(self.scale(x))).mean((2, 3)))

ONE = Small()

def make():
    return Small()

def same():
    return ONE

def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 20 * 24, 5))

def pictures():
    return nn.Conv2d(3, 4, 3)

class Normalising(Small):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.4))

    def forward(self, x):
        return super().forward(x - self.mean)

def number():
    return 3

def fails():
    raise ValueError("no weights here\\nsecond line")

def stops():
    raise SystemExit(2)

def wants(width):
    return Small()

shared = 3
"""
BLOCKS = """
from torch import nn

class Scale(nn.Module):
    def forward(self, x):
        return 2 * x - 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder with a package of nets, as the current one; nobody has named a function of it yet."""
    package = tmp_path / "wardnets"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "small.py").write_text(SOURCE)
    (package / "blocks.py").write_text(BLOCKS)
    (tmp_path / "wardbroken.py").write_text("import wardnowhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(consent, "_given", set())
    path, write = list(sys.path), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # a file of the same second and size must not be taken for the old one
    yield tmp_path
    assert sys.path == path, "the path was not restored"
    sys.dont_write_bytecode = write
    for name in [name for name in sys.modules if name.startswith("ward")]:
        del sys.modules[name]


def saved(path: Path, seed: int = 0) -> torch.nn.Module:
    """Save the bare weights of a small net of the folder's package, and return the net."""
    net = build("wardnets.small:make", classes=3, channels=3, size=(8, 8), rng=generator(seed))
    save_tensors(path, net.body.state_dict())
    return net.body


def test_bare_weights_find_their_net_and_its_shape(folder: Path) -> None:
    body = saved(folder / "m.safetensors")
    loaded = load_model(folder / "m.safetensors", "wardnets.small:make", like=(3, 12, 16))
    assert (loaded.arch, loaded.model.classes, loaded.model.channels, loaded.model.size) == ("wardnets.small:make", 3, 3, (12, 16))
    x = torch.rand(2, 3, 12, 16, generator=generator(1))
    assert torch.equal(loaded.model(x), body(x))
    assert not loaded.model.training
    assert load_model(folder / "m.safetensors", "wardnets.small:make").model.size == (32, 32)
    assert load_model(folder / "m.safetensors", "wardnets.small:make", size=(9, 10), like=(3, 12, 16)).model.size == (9, 10)


def test_what_we_saved_comes_back(folder: Path) -> None:
    net = build("wardnets.small:make", classes=3, channels=3, size=(8, 8), rng=generator(2), mean=[0.5] * 3, std=[0.2] * 3)
    save_model(folder / "m.safetensors", net)
    loaded = load_model(folder / "m.safetensors", "wardnets.small:make")
    assert loaded.digest == state_digest(net)
    assert loaded.model.size == (8, 8)


def test_a_tensor_called_mean_may_be_the_modules_own(folder: Path) -> None:
    net = build("wardnets.small:Normalising", classes=3, channels=3, size=(8, 8), rng=generator(0))
    x = torch.rand(2, 3, 8, 8, generator=generator(1))
    save_tensors(folder / "bare.safetensors", net.body.state_dict())
    save_model(folder / "ours.safetensors", net)
    for name in ("bare", "ours"):
        loaded = load_model(folder / f"{name}.safetensors", "wardnets.small:Normalising", like=(3, 8, 8))
        assert torch.equal(loaded.model(x), net(x))


def test_a_fixed_size_is_found_by_trying(folder: Path) -> None:
    net = build("wardnets.small:flat", classes=5, channels=3, size=(20, 24), rng=generator(0))
    save_tensors(folder / "m.safetensors", net.body.state_dict())
    assert load_model(folder / "m.safetensors", "wardnets.small:flat", like=(3, 20, 24)).model.size == (20, 24)
    with pytest.raises(InputError, match=r"takes no images of 3x32x32.*pass --size H,W"):
        load_model(folder / "m.safetensors", "wardnets.small:flat")
    assert load_model(folder / "m.safetensors", "wardnets.small:flat", size=(20, 24)).model.channels == 3


def test_a_file_cannot_ask_for_code(folder: Path) -> None:
    marker = folder / "ran"
    (folder / "wardevil.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\ndef make(): pass\n")
    save_tensors(folder / "m.safetensors", {"w": torch.zeros(2, 2)}, {"arch": "wardevil:make"})
    with pytest.raises(
        UnsafeFileError, match=r"m\.safetensors names the function wardevil:make .*pass --arch wardevil:make if you trust it"
    ):
        load_model(folder / "m.safetensors")
    assert not marker.exists()
    with pytest.raises(InputError, match="returned a NoneType"):
        load_model(folder / "m.safetensors", "wardevil:make")
    assert marker.exists(), "the test's own witness is blind"


def test_a_stored_model_needs_its_function_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(folder / "store")
    digest = put_model(store, build("wardnets.small:make", classes=3, channels=3, size=(8, 8), rng=generator(0)))
    assert get_model(str(store.folder), digest).size == (8, 8)
    monkeypatch.setattr(consent, "_given", set())
    with pytest.raises(UnsafeFileError, match="is code, and it is imported only when you name it"):
        get_model(str(store.folder), digest)


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        ("wardnone:make", "importing it raised ModuleNotFoundError: No module named 'wardnone'"),
        ("wardbroken:make", "importing it raised ModuleNotFoundError: No module named 'wardnowhere'"),
        ("wardnets.small:mak", r"small\.py has no function 'mak'; did you mean 'make'\?"),
        ("wardnets.small:shared", "has no function 'shared'"),
        ("wardnets.small:number", "returned a int"),
        ("wardnets.small:fails", "raised ValueError: no weights here$"),
        ("wardnets.small:stops", "raised SystemExit: 2"),
        ("wardnets.small:wants", r"raised TypeError: wants\(\) missing 1 required positional argument"),
        ("wardnets.small:pictures", r"answers with shape \(2, 4, .*not with logits"),
        ("wardnets.small:flat", "shapes cannot be multiplied"),
    ],
)
def test_what_does_not_work_is_said_in_one_sentence(arch: str, words: str, folder: Path) -> None:
    saved(folder / "m.safetensors")
    with pytest.raises(ModelwardError, match=words) as caught:
        load_model(folder / "m.safetensors", arch)
    assert "\n" not in str(caught.value)
    assert arch in str(caught.value)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_weights_fit_strictly(change: str, folder: Path) -> None:
    state = dict(saved(folder / "m.safetensors").state_dict())
    words = {
        "missing": "tensor 'conv.bias' is missing",
        "extra": "tensor 'more' has no place",
        "shape": r"tensor 'conv.bias' has shape \(9,\), wanted \(4,\)",
    }
    if change == "missing":
        del state["conv.bias"]
    else:
        state["more" if change == "extra" else "conv.bias"] = torch.zeros(9)
    save_tensors(folder / "m.safetensors", state)
    with pytest.raises(InputError, match=f"m.safetensors does not fit wardnets.small:make: {words[change]}"):
        load_model(folder / "m.safetensors", "wardnets.small:make")


def test_building_draws_from_its_generator_and_shares_nothing(folder: Path) -> None:
    del folder
    before = torch.get_rng_state()
    one, two, other = (build("wardnets.small:make", classes=3, channels=3, size=(8, 8), rng=generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert state_digest(one) == state_digest(two) != state_digest(other)
    with torch.no_grad():
        first, second = (build("wardnets.small:same", classes=3, channels=3, size=(8, 8), rng=generator(0)) for _ in range(2))
        next(first.parameters()).zero_()
    assert state_digest(first) != state_digest(second)
    with pytest.raises(InputError, match="its net has 3 outputs, 7 classes are wanted"):
        build("wardnets.small:make", classes=7, channels=3, size=(8, 8), rng=generator(0))


@pytest.mark.parametrize(
    ("arch", "custom"),
    [("a:b", True), ("a.b:c", True), ("resnet8", False), ("a:b=2", False), ("../a:b", False), ("a:", False), (":b", False)],
)
def test_what_a_function_looks_like(arch: str, custom: bool) -> None:
    assert is_custom(arch) is custom


def test_workers_train_and_steal_it(folder: Path, parts: Study) -> None:
    arch, store = "wardnets.small:make", Store(folder / "store")
    digests = put_parts(store, parts)
    victim = put_model(store, build(arch, classes=3, channels=3, size=(8, 8), rng=generator(0)))
    recipe = type(null_recipe(arch))(**{**asdict(null_recipe(arch)), "epochs": 6, "lr": 0.02})
    null = train_cell(NullSpec(arch, "owner", 1.0, "test", 0), recipe, digests, parts, 0)
    thief = theft_cell(TheftSpec("ftal", "FTAL", {"epochs": 1}), victim, arch, digests, parts, seed=0)
    run = Engine(store, jobs=2).run([null, thief])
    assert run.failed == {}
    assert run.finished[null.key].rows[0]["value"] > 0.6  # three classes
    for cell in (null, thief):
        artefact = run.finished[cell.key].artifact
        assert artefact is not None
        assert get_model(str(store.folder), artefact).arch == arch


def test_another_function_is_another_cell(folder: Path, parts: Study) -> None:
    def keys() -> tuple[str, str]:
        from modelward.evaluation import code

        for cache in (code._source, code._read, code._is_module, code.code_digest):
            cache.cache_clear()
        for name in [name for name in sys.modules if name.startswith("wardnets")]:
            del sys.modules[name]
        store = Store(folder / "store")
        digest = put_model(store, build("wardnets.small:make", classes=3, channels=3, size=(8, 8), rng=generator(0)))
        cell: Cell = train_cell(
            NullSpec("wardnets.small:make", "owner", 1.0, "test", 0), null_recipe("resnet8"), {"owner": "", "test": ""}, parts, 0
        )
        return digest, cell.key

    before = keys()
    assert keys() == before
    (folder / "wardnets" / "blocks.py").write_text(BLOCKS.replace("2 * x", "3 * x"))
    after = keys()
    assert after[0] != before[0]
    assert after[1] != before[1]
