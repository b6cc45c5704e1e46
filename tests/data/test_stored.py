from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modelward.data.stored import cache_folder, entry_path, keep, recall

PIXELS = torch.arange(24, dtype=torch.uint8).reshape(6, 1, 2, 2)
CHANNELS = torch.ones(6, dtype=torch.uint8)


def test_the_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELWARD_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "data"
    monkeypatch.delenv("MODELWARD_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "modelward" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "modelward" / "data"


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    path = entry_path(tmp_path / "new" / "folder", "d" * 64, None)
    assert recall(path, 6) is None
    assert keep(path, PIXELS, CHANNELS)
    found = recall(path, 6)
    assert found is not None
    assert torch.equal(found[0], PIXELS)
    assert torch.equal(found[1], CHANNELS)
    assert recall(path, 5) is None
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_size_and_archive_have_entries_of_their_own(tmp_path: Path) -> None:
    assert len({entry_path(tmp_path, digest, size) for digest in ("a", "b") for size in (None, (8, 8), (8, 9))}) == 6


def test_every_altered_byte_makes_an_entry_absent(tmp_path: Path) -> None:
    path = tmp_path / "entry.safetensors"
    keep(path, PIXELS, CHANNELS)
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        found = recall(path, 6)
        # a changed character of a name that is not read, such as padding, may leave the content as it was
        assert found is None or (torch.equal(found[0], PIXELS) and torch.equal(found[1], CHANNELS))
    path.write_bytes(good[:-1])
    assert recall(path, 6) is None
    path.write_bytes(b"")
    assert recall(path, 6) is None


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not keep(tmp_path / "file" / "entry.safetensors", PIXELS, CHANNELS)
