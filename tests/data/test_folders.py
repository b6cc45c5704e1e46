from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.core.errors import InputError
from modelward.data.folders import read_tree, walk


def places(files: list[str]) -> list[tuple[str, str, bool]]:
    return [(entry.path, entry.class_name, entry.test) for entry in read_tree(files, "toy").entries]


def test_plain_class_folders() -> None:
    assert places(["b/2.png", "a/1.JPG", "b/1.pgm"]) == [("a/1.JPG", "a", False), ("b/1.pgm", "b", False), ("b/2.png", "b", False)]


def test_classes_are_sorted_by_bytes_not_by_alphabet() -> None:
    tree = read_tree(["é/1.png", "z/1.png", "B/1.png", "a/1.png", "10/1.png", "9/1.png"], "toy")
    assert [entry.class_name for entry in tree.entries] == ["10", "9", "B", "a", "z", "é"]


def test_train_comes_first_and_the_tree_is_split() -> None:
    tree = read_tree(["test/a/1.png", "test/b/1.png", "train/a/2.png", "train/b/2.png"], "toy")
    assert tree.split
    assert [entry.test for entry in tree.entries] == [False, False, True, True]
    assert tree.notes == ()


def test_one_top_folder_is_stripped_with_and_without_splits() -> None:
    assert [row[1:] for row in places(["set/a/1.png", "set/b/1.png"])] == [("a", False), ("b", False)]
    assert [row[1:] for row in places(["set/Train/a/1.png", "set/Train/b/1.png", "set/Test/a/1.png"])][-1] == ("a", True)


def test_only_a_train_folder_means_no_splits() -> None:
    tree = read_tree(["train/a/1.png", "train/b/1.png"], "toy")
    assert not tree.split
    assert {entry.class_name for entry in tree.entries} == {"a", "b"}


def test_images_below_a_class_folder_belong_to_it() -> None:
    assert [row[1] for row in places(["train/n1/images/1.JPEG", "train/n2/images/1.JPEG", "val/n1/images/2.JPEG"])] == ["n1", "n2", "n1"]


def test_val_stands_in_for_test_and_is_told() -> None:
    notes = read_tree(["train/a/1.png", "train/b/1.png", "val/a/1.png"], "toy").notes
    assert notes == ("there is no test folder; val was taken for it", "class b has no test images")


def test_val_is_left_out_where_there_is_a_test_folder() -> None:
    tree = read_tree(["train/a/1.png", "train/b/1.png", "val/a/1.png", "test/a/1.png", "test/b/1.png"], "toy")
    assert len(tree.entries) == 4
    assert tree.notes == ("1 images outside the class folders were left out",)


def test_no_class_vanishes_without_a_word() -> None:
    tree = read_tree(["s/ant/1.png", "s/bee/1.jfif", "s/bee/2.txt", "s/cat/1.xyz", "s/cat/2.xyz", "s/README"], "toy")
    assert {entry.class_name for entry in tree.entries} == {"ant", "bee"}
    assert tree.notes == (
        "files that are not read were left out: 1 .txt",
        "folder cat is no class: it holds no image that is read, and 2 other files",
    )
    with pytest.raises(InputError, match="the class folder 'cat' holds no image"):
        read_tree(["s/ant/1.png", "s/bee/1.png", "s/cat/1.jxl"], "toy")


def test_a_split_inside_a_split_of_its_name_is_one() -> None:
    files = [f"{side}/{side}/{word}/{n}.png" for side in ("train", "test") for word in ("ant", "bee") for n in range(2)]
    for top in ("", "set/"):
        tree = read_tree([top + path for path in files], "toy")
        assert {entry.class_name for entry in tree.entries} == {"ant", "bee"}
        assert (tree.split, tree.notes, sum(entry.test for entry in tree.entries)) == (True, (), 4)


def test_a_name_in_two_forms_of_unicode_is_one_class() -> None:
    tree = read_tree(["train/caf\u00e9/1.png", "train/tea/1.png", "test/cafe\u0301/1.png", "test/tea/1.png"], "toy")
    assert {entry.class_name for entry in tree.entries} == {"caf\u00e9", "tea"}
    assert tree.notes == ()


def test_images_that_are_no_entries_are_named() -> None:
    tree = read_tree(["a/1.png", "a/2.bmp", "b/1.png", "x.png", ".hidden.png", "notes.txt"], "toy")
    assert tree.left_out == ("a/2.bmp", "x.png")
    assert tree.notes == ("1 images outside the class folders were left out", "files that are not read were left out: 1 .bmp")


def test_hidden_files_and_other_files_are_no_images() -> None:
    assert len(places(["a/1.png", "b/1.png", "__MACOSX/a/1.png", "a/.hidden.png", ".git/x.png", "README.md", "a/notes.txt"])) == 2


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], "no images"),
        (["readme.txt"], "no images"),
        (["1.png", "2.png"], "no class folders"),
        (["a/1.png", "a/2.png"], "only the class folder 'a'"),
        (["set/a/1.png"], "only the class folder 'a'"),
        (["a/1.png", "b/1.png", "c/"], "class folder 'c' holds no image"),
        (["a/1.png", "b/1.png", "c/1.bmp"], "class folder 'c' holds no image"),
        (["set/a/1.png", "set/b/1.png", "set/c/"], "class folder 'c' holds no image"),
        (["train/a/1.png", "train/b/1.png", "test/a/1.png", "train/c/"], "class folder 'c' holds no image"),
        (["test/a/1.png", "val/b/1.png"], "call them train and test"),
    ],
)
def test_what_is_no_set_is_refused_in_one_sentence(files: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_tree(files, "toy")
    assert str(caught.value).startswith("toy: ")
    assert "\n" not in str(caught.value)


def test_an_empty_folder_outside_the_classes_does_no_harm() -> None:
    assert len(places(["train/a/1.png", "train/b/1.png", "test/a/1.png", "logs/", "test/b/"])) == 3


def test_tracks_are_the_name_before_the_underscore() -> None:
    entries = read_tree(["a/00001_00029.png", "b/7.png"], "toy").entries
    assert [entry.track for entry in entries] == ["00001", "7"]


@given(st.permutations(["a/1.png", "a/2.png", "b/1.png", "b/10.png", "c/x/1.png"]))
def test_order_of_listing_does_not_matter(files: list[str]) -> None:
    assert places(files) == places(sorted(files))


def test_walk_names_files_empty_folders_and_linked_folders(tmp_path: Path) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a" / "deep" / "1.png").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "a", target_is_directory=True)
    assert sorted(walk(tmp_path)) == ["a/deep/1.png", "empty/", "link/"]
