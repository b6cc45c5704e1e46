from __future__ import annotations

from pathlib import Path

import pytest

import modelward.data.known as known_module
from modelward.core.errors import UnavailableError, UsageError
from modelward.data.known import NAMES, data_folder, find_data, list_data, require_data
from modelward.data.sets import load_data


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELWARD_DATA", str(tmp_path))
    monkeypatch.setattr(known_module, "find_digits", lambda: None)
    assert data_folder() == tmp_path
    assert [info.present for info in list_data()] == [True, False, False, False, False, False, False]
    (tmp_path / "gtsrb-32.zip").touch()
    (tmp_path / "mnist").mkdir()
    assert [info.name for info in list_data() if info.present] == ["fashion-mini", "gtsrb-32", "mnist"]
    assert find_data("mnist") == tmp_path / "mnist"


def test_a_folder_that_does_not_exist_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELWARD_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UnavailableError, match="MODELWARD_DATA"):
        data_folder()
    assert len(load_data("fashion-mini", limit=5).train) == 5


@pytest.mark.parametrize(("layout", "found"), [("src/modelward/data", True), ("lib/modelward/data", False)])
def test_without_it_the_folder_beside_the_checkout_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, found: bool
) -> None:
    monkeypatch.delenv("MODELWARD_DATA", raising=False)
    module = tmp_path / "checkout" / layout / "known.py"
    module.parent.mkdir(parents=True)
    (tmp_path / "checkout" / "pyproject.toml").touch()
    monkeypatch.setattr(known_module, "__file__", str(module))
    assert data_folder() is None
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert data_folder() == (tmp_path / "shared" / "data" if found else None)


def test_a_known_set_that_is_absent_says_how_to_point_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELWARD_DATA", str(tmp_path))
    with pytest.raises(UnavailableError, match=r"cifar10-jpeg\.zip.*MODELWARD_DATA") as caught:
        require_data("cifar10-jpeg")
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(UnavailableError):
        load_data("gtsrb-32")


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'fashion-mini'"):
        load_data("fashion-minni")


def test_names_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES)
