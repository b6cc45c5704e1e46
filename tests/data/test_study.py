from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelward.core.errors import InputError, UsageError
from modelward.core.images import ImageSet, assert_disjoint
from modelward.data.sets import Splits
from modelward.data.study import Study, TrainedOn, study


def numbered(start: int, count: int, name: str, classes: int = 2) -> ImageSet:
    """Images that are all different: each carries its number in its pixels."""
    numbers = np.arange(start, start + count, dtype="<u4")
    pixels = torch.from_numpy(numbers.view(np.uint8).reshape(count, 1, 2, 2).copy())
    return ImageSet(pixels, torch.arange(count) % classes, tuple(f"c{k}" for k in range(classes)), name)


def splits(train: int = 40, test: int = 16, *, shared: int = 0, classes: int = 2) -> Splits:
    """The last ``shared`` training images stand in the test part too."""
    return Splits(
        numbered(0, train, "toy train", classes), numbered(train - shared, test, "toy test", classes), "toy", "toy", ("from the set",)
    )


def numbers(images: ImageSet) -> set[int]:
    return set(images.pixels.reshape(len(images), 4).numpy().view("<u4")[:, 0].tolist())


def test_owner_mode_halves_both_splits() -> None:
    parts = study(splits())
    assert [len(part) for part in parts.parts().values()] == [20, 20, 8, 8]
    assert numbers(parts.owner) | numbers(parts.attacker) == set(range(40))
    assert numbers(parts.probes) | numbers(parts.test) == set(range(40, 56))
    for part in parts.parts().values():
        assert int(part.labels.sum()) * 2 == len(part)  # both classes equally
    assert parts.notes == ("from the set",)


def test_train_mode_gives_the_owner_everything_that_was_trained_on() -> None:
    parts = study(splits(), trained_on="train")
    assert [len(part) for part in parts.parts().values()] == [40, 8, 4, 4]
    assert parts.owner.digest == splits().train.digest
    assert numbers(parts.attacker) | numbers(parts.probes) | numbers(parts.test) == set(range(40, 56))


@given(
    mode=st.sampled_from(["owner", "train"]),
    counts=st.tuples(st.integers(2, 60), st.integers(4, 40), st.integers(2, 4)),
    seed=st.integers(0, 2**40),
    shared=st.integers(0, 3),
)
def test_parts_are_disjoint_and_complete(mode: TrainedOn, counts: tuple[int, int, int], seed: int, shared: int) -> None:
    train, test, classes = counts
    common = set(range(train - min(shared, train), train))
    data = splits(train, test, shared=len(common), classes=classes)
    try:
        parts = study(data, trained_on=mode, seed=seed)
    except InputError as error:
        assert "no image is left" in str(error)  # noqa: PT017
        assert common
        return
    assert_disjoint(*parts.parts().values())
    owned = numbers(parts.owner) | numbers(parts.attacker) if mode == "owner" else numbers(parts.owner)
    held_out = numbers(parts.probes) | numbers(parts.test) | (set() if mode == "owner" else numbers(parts.attacker))
    assert owned <= set(range(train))
    assert len(owned) == (train - train % 2 if mode == "owner" else train)
    assert held_out == numbers(data.test) - owned


def test_shared_images_are_dropped_from_the_later_part_and_counted() -> None:
    parts = study(splits(shared=5), trained_on="train")
    assert len(parts.owner) == 40
    told = [int(note.split()[0]) for note in parts.notes if "same pixels" in note]
    assert sum(told) == 5
    assert sum(map(len, (parts.attacker, parts.probes, parts.test))) == 16 - 5


def test_a_piece_for_the_owner_does_not_free_what_the_model_has_seen() -> None:
    parts = study(splits(shared=5), trained_on="train", owner_size=4)
    assert len(parts.owner) == 4
    rest = numbers(parts.attacker) | numbers(parts.probes) | numbers(parts.test)
    assert not rest & set(range(40))


def test_equal_seeds_give_equal_digests_and_others_do_not() -> None:
    first, again, other = (study(splits(), seed=seed).digests() for seed in (3, 3, 4))
    assert first == again
    assert set(first) == {"owner", "attacker", "probes", "test"}
    assert all(first[role] != other[role] for role in first)


def test_sizes_are_kept_and_smaller_ones_nest() -> None:
    small, large = (study(splits(), owner_size=20, attacker_size=size) for size in (4, 12))
    assert numbers(small.owner) == numbers(large.owner)
    assert numbers(small.attacker) < numbers(large.attacker)
    assert [len(study(splits(), owner_size=30).attacker), len(study(splits(), attacker_size=30).owner)] == [10, 10]
    assert len(study(splits(), owner_size=6).attacker) == 20
    assert len(study(splits(), trained_on="train", attacker_size=2).attacker) == 2


@pytest.mark.parametrize(
    "sizes", [{"owner_size": 0}, {"owner_size": 41}, {"owner_size": 40}, {"attacker_size": -1}, {"owner_size": 30, "attacker_size": 11}]
)
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        study(splits(), **sizes)


def test_train_mode_cannot_give_the_attacker_more_than_half_the_test_split() -> None:
    with pytest.raises(UsageError, match="between 1 and 8"):
        study(splits(), trained_on="train", attacker_size=9)


def test_an_unknown_mode_and_too_few_images_are_refused() -> None:
    with pytest.raises(UsageError, match="trained_on"):
        study(splits(), trained_on="both")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="4 test images"):
        study(splits(test=3))


def test_a_study_with_a_shared_image_cannot_be_made() -> None:
    one, two = numbered(0, 4, "one"), numbered(3, 4, "two")
    with pytest.raises(InputError, match="share 1 images"):
        Study(one, two, numbered(10, 4, "three"), numbered(20, 4, "four"))


def test_a_part_that_loses_all_its_images_is_refused() -> None:
    same = ImageSet(torch.zeros(8, 1, 2, 2, dtype=torch.uint8), torch.arange(8) % 2, ("a", "b"), "same")
    with pytest.raises(InputError, match="no image is left"):
        study(Splits(same, same, "same", "same"))
