"""``--trained-on`` takes the training part of a set that has a test part, and says so: joined in silence they were another set than the owner's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from modelward.audit.training_set import training_set
from modelward.core.errors import InputError


def write(path: Path, *parts: tuple[str, int]) -> str:
    """Write a set with these parts, of so many images each, and return its path."""
    rng = np.random.default_rng(0)
    arrays = {f"x{suffix}": rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8) for suffix, count in parts}
    labels = {f"y{suffix}": np.arange(count) % 3 for suffix, count in parts}
    np.savez(path, **arrays, **labels)  # type: ignore[arg-type]
    return str(path)


@pytest.fixture
def split(tmp_path: Path) -> str:
    return write(tmp_path / "split.npz", ("_train", 60), ("_test", 30))


@pytest.fixture
def whole(tmp_path: Path) -> str:
    return write(tmp_path / "whole.npz", ("", 60))


def test_the_training_part_is_taken_and_said(split: str) -> None:
    with pytest.warns(UserWarning, match="its training part was taken, 60 images"):
        found = training_set(split)
    assert found.digest == training_set(f"{split}:train").digest


@pytest.mark.filterwarnings("error")
def test_parts_can_be_named(split: str) -> None:
    parts = {part: training_set(f"{split}:{part}") for part in ("train", "test", "all")}
    assert {part: len(images) for part, images in parts.items()} == {"train": 60, "test": 30, "all": 90}
    assert torch.equal(parts["all"].pixels, torch.cat([parts["train"].pixels, parts["test"].pixels]))


@pytest.mark.filterwarnings("error")
def test_a_set_without_a_test_part_is_taken_whole(whole: str) -> None:
    assert len(training_set(whole)) == 60
    assert training_set(whole).digest == training_set(f"{whole}:all").digest
    for part in ("train", "test"):
        with pytest.raises(InputError, match=f"has no {part} part of its own; leave :{part} away"):
            training_set(f"{whole}:{part}")
