"""Trained networks that packages carry: a small package made here stands for the real ones, and pip looks for it in a folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from modelward.cli.main import main
from modelward.core.errors import FormatError, InputError, ModelwardError, UnavailableError, UnsafeFileError
from modelward.core.guard import state_digest
from modelward.core.rng import generator
from modelward.io import legacy
from modelward.models import build, efficient, load_model, pretrained
from modelward.models.net import Net
from modelward.models.pretrained import SOURCES, Source, cached, fetch

NAME = "efficientnet-lite0"
PINNED = dict(SOURCES)
MEMBER = "wardtoy/models/weights.pth"


def published(key: str) -> str:
    """The name that one of our weights has in the published files."""
    blocks = {"expand.0": "_expand_conv", "expand.1": "_bn0", "depthwise.0": "_depthwise_conv", "depthwise.1": "_bn1", "project.0": "_project_conv",
              "project.1": "_bn2"}  # fmt: skip
    if match := re.fullmatch(r"body\.1\.(\d+)\.(\w+\.\d)\.(\w+)", key):
        return f"_blocks.{match[1]}.{blocks[match[2]]}.{match[3]}"
    for ours, theirs in {"0.0": "_conv_stem", "0.1": "_bn0", "2.0": "_conv_head", "2.1": "_bn1", "2.5": "_fc"}.items():
        key = key.replace(f"body.{ours}.", f"{theirs}.")
    return key


@dataclasses.dataclass(frozen=True)
class Package:
    """A wheel on disk, the source that pins it, and the net whose weights it carries."""

    wheel: Path
    source: Source
    net: Net


def packed(folder: Path, weights: bytes) -> Path:
    """Write a wheel that pip takes."""
    wheel, info = folder / "wardtoy-0.1.0-py3-none-any.whl", "wardtoy-0.1.0.dist-info"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("wardtoy/__init__.py", "raise SystemExit('the code of the package was run')\n")
        archive.writestr(MEMBER, weights)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: wardtoy\nVersion: 0.1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Package]:
    """Return a small package in the place of EfficientNet-Lite0, in the old format of torch as the real ones."""
    tmp_path = tmp_path_factory.mktemp("package")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(efficient, "STAGES", ((1, 3, 1, 8, 1), (2, 5, 2, 8, 2)))
    monkeypatch.setattr(efficient, "HEAD", 16)
    net = build(NAME, classes=4, channels=3, size=(224, 224), rng=generator(0), mean=[127 / 255] * 3, std=[128 / 255] * 3)
    path = tmp_path / "weights.pth"
    state = {published(key): tensor for key, tensor in net.state_dict().items() if key.startswith("body.")}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    wheel = packed(tmp_path, path.read_bytes())
    digests = {"wheel": wheel, "content": path}
    real = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in digests.items()}
    source = dataclasses.replace(SOURCES[NAME], package="wardtoy", member=MEMBER, **real)
    monkeypatch.setitem(SOURCES, NAME, source)
    yield Package(wheel, source, net)
    monkeypatch.undo()


@pytest.fixture
def package(made: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """Return the package with a copy of its wheel, and an empty cache."""
    monkeypatch.setenv("MODELWARD_HOME", str(tmp_path / "home"))
    wheel = tmp_path / made.wheel.name
    wheel.write_bytes(made.wheel.read_bytes())
    return dataclasses.replace(made, wheel=wheel)


@pytest.fixture(scope="module")
def kept(made: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the cache after pip has found the package in a folder."""
    home = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("MODELWARD_HOME", str(home))
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(made.wheel.parent))
        assert fetch(NAME) == cached(NAME)
    return home


def test_the_net_is_the_same(package: Package, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELWARD_HOME", str(kept))
    loaded = pretrained.pretrained(NAME)
    x = torch.rand(2, 3, 224, 224, generator=generator(1))
    assert torch.allclose(loaded.model(x), package.net(x), atol=1e-5)
    assert (loaded.arch, loaded.model.size, loaded.facts["source"]) == (NAME, (224, 224), "wardtoy==0.1.0")
    body = {name: state_digest(net.body) for name, net in (("read", loaded.model), ("made", package.net))}
    assert body["read"] == body["made"]


def test_the_second_time_nothing_is_fetched(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELWARD_HOME", str(kept))

    def refuse(*_: object) -> Path:
        pytest.fail("it was fetched again")

    monkeypatch.setattr(pretrained, "_download", refuse)
    assert fetch(NAME) == cached(NAME)
    assert load_model(cached(NAME)).digest == pretrained.pretrained(NAME).digest


def test_without_a_network_there_is_one_sentence(package: Package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    del package
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    with pytest.raises(UnavailableError, match=r"^pip could not download wardtoy==0\.1\.0; check the network, .*--wheel FILE$"):
        fetch(NAME)
    assert not cached(NAME).exists()


def test_another_wheel_is_refused_before_it_is_opened(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    package.wheel.write_bytes(package.wheel.read_bytes() + b"\0")

    def refuse(*_: object) -> None:
        pytest.fail("it was opened")

    monkeypatch.setattr(pretrained, "ZipFolder", refuse)
    with pytest.raises(UnsafeFileError, match=r"was refused: its SHA-256 is [0-9a-f]{16}\.\.\., that of wardtoy==0\.1\.0 is"):
        fetch(NAME, wheel=package.wheel)
    assert not cached(NAME).exists()


def test_other_content_is_refused(package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, NAME, dataclasses.replace(package.source, content="0" * 64))
    with pytest.raises(UnsafeFileError, match="is not what it was"):
        fetch(NAME, wheel=package.wheel)


def test_a_pickle_that_runs_code_is_refused(package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "ran"
    evil = b"cposix\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR."
    wheel = packed(tmp_path, evil)
    digests = {"wheel": hashlib.sha256(wheel.read_bytes()).hexdigest(), "content": hashlib.sha256(evil).hexdigest()}
    monkeypatch.setitem(SOURCES, NAME, dataclasses.replace(package.source, **digests))
    with pytest.raises(UnsafeFileError, match="was refused"):
        fetch(NAME, wheel=wheel)
    assert not marker.exists()


def test_the_old_format_needs_a_known_digest(made: Package, tmp_path: Path) -> None:
    with pytest.raises(UnsafeFileError, match="bare pickle"):
        legacy.convert_pt(made.wheel.parent / "weights.pth", tmp_path / "out.safetensors")


@pytest.mark.parametrize("change", [{"member": "wardtoy/none.pth"}, {"member": "wardtoy/__init__.py"}])
def test_a_package_without_the_weights_is_refused(change: dict[str, str], package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, NAME, dataclasses.replace(package.source, **change))
    with pytest.raises((InputError, FormatError)):
        fetch(NAME, wheel=package.wheel)


@pytest.mark.parametrize("name", ["efficientnet-lite9", "../etc", ""])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(ModelwardError, match="known: efficientnet-lite0 efficientnet-lite1 efficientnet-lite2"):
        fetch(name)


def test_every_source_is_pinned() -> None:
    for name, source in PINNED.items():
        assert re.fullmatch(r"[0-9a-f]{64}", source.wheel)
        assert re.fullmatch(r"[0-9a-f]{64}", source.content)
        assert source.content.startswith(source.member.rpartition("-")[2].removesuffix(".pth")), name  # their own name holds its beginning


def test_the_command(package: Package, kept: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*arguments: str) -> Any:
        assert main([*arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    before = run("models", "list")["trained"]
    monkeypatch.setenv("MODELWARD_HOME", str(kept))
    found = run("models", "get", NAME, "--wheel", str(package.wheel))
    after = run("models", "list")["trained"]
    assert (found["schema"], found["file"], found["classes"], found["size"]) == ("modelward/model", str(cached(NAME)), 4, "224,224")
    assert [net["file"] for net in before] == [None, None, None]
    assert [net["file"] for net in after] == [str(cached(NAME)), None, None]
    assert main(["models", "get", NAME]) == 0
    assert f"--model {cached(NAME)} --size 224,224" in capsys.readouterr().out
    assert main(["models", "get", "lite"]) == 4


def test_names_that_are_not_theirs_stay() -> None:
    assert efficient.renamed("classifier.weight") == "classifier.weight"
    assert efficient.renamed(published("body.1.7.project.1.running_var")) == "body.1.7.project.1.running_var"
