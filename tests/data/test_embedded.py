from __future__ import annotations

import gzip
import importlib.util
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import modelward.data.fashion as fashion_module
from modelward.core.errors import UnsafeFileError
from modelward.core.images import assert_disjoint
from modelward.data.fashion import DIGESTS, FOLDER
from modelward.data.known import find_data
from modelward.data.sets import load_data
from modelward.io.arrays import read_idx

TOOL = Path(__file__).resolve().parents[2] / "tools" / "build_embedded_data.py"


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_embedded_data", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_embedded_set_is_balanced_and_has_no_image_twice() -> None:
    splits = load_data()
    assert splits.train.labels.bincount().tolist() == [600] * 10
    assert splits.test.labels.bincount().tolist() == [200] * 10
    assert len(splits.train.image_digests) == 6000
    assert len(splits.test.image_digests) == 2000
    assert_disjoint(splits.train, splits.test)


def test_it_is_small_and_carries_its_licence() -> None:
    assert sum((FOLDER / name).stat().st_size for name in DIGESTS) <= 4 * 10**6
    notice = (FOLDER / "NOTICE").read_text()
    assert "Zalando SE" in notice
    assert "Permission is hereby granted" in notice


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_an_altered_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "embedded"))
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:100] + bytes([data[100] ^ 4]) + data[101:])
    monkeypatch.setattr(fashion_module, "FOLDER", folder)
    with pytest.raises(UnsafeFileError, match=name):
        load_data()


def test_the_files_have_no_time_and_no_name_in_them() -> None:
    for name in DIGESTS:
        head = (FOLDER / name).read_bytes()[:10]
        assert head[3:8] == bytes(5)  # flags and time


def test_the_tool_writes_balanced_files_that_depend_on_the_source_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tool()
    monkeypatch.setattr(module, "SIDES", (("train", "train", 40), ("t10k", "test", 20)))
    rng = np.random.default_rng(0)
    sources = {}
    for side in ("train", "t10k"):
        images, labels = rng.integers(0, 256, (200, 4, 4), dtype=np.uint8), rng.permutation(np.arange(200, dtype=np.uint8) % 10)
        sources[side] = {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            (tmp_path / f"{side}-{kind}-ubyte.gz").write_bytes(gzip.compress(module.idx_bytes(array)))
    for out in ("one", "two"):
        module.build(tmp_path, tmp_path / out)
    for side, name, count in (("train", "train", 40), ("t10k", "test", 20)):
        images, labels = (read_idx(tmp_path / "one" / f"{name}-{kind}.idx.gz") for kind in ("images", "labels"))
        assert np.bincount(labels).tolist() == [count // 10] * 10
        assert {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)} <= sources[side]
        for kind in ("images", "labels"):
            file = f"{name}-{kind}.idx.gz"
            assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_embedded_images_are_from_the_full_set() -> None:
    if find_data("fashion-mnist") is None:
        pytest.skip("fashion-mnist is not in the data folder; set MODELWARD_DATA to a folder that holds it")
    full, mini = load_data("fashion-mnist"), load_data()
    assert mini.train.image_digests <= full.train.image_digests
    assert mini.test.image_digests <= full.test.image_digests
