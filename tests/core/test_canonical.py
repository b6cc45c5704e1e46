from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import math
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelward.core.canonical import canonical_json, digest_bytes, digest_of, plain
from modelward.core.errors import InputError

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12)


def shuffled(value: Any) -> Any:
    """The same value with every mapping written in the opposite order and every list as a tuple."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return tuple(map(shuffled, value)) if isinstance(value, list) else value


@given(values)
def test_json_reads_back_what_was_written(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


@given(values)
def test_spelling_does_not_depend_on_order_or_container(value: Any) -> None:
    assert canonical_json(shuffled(value)) == canonical_json(value)
    assert digest_of(shuffled(value)) == digest_of(value)


@given(values)
def test_writing_twice_changes_nothing(value: Any) -> None:
    assert canonical_json(json.loads(canonical_json(value))) == canonical_json(value)
    assert plain(plain(value)) == plain(value)


@given(values, values)
def test_different_values_have_different_bytes(one: Any, other: Any) -> None:
    if canonical_json(one) == canonical_json(other):
        assert one == other


@given(values)
def test_digest_is_sha256_of_the_bytes(value: Any) -> None:
    assert digest_of(value) == hashlib.sha256(canonical_json(value)).hexdigest() == digest_bytes(memoryview(canonical_json(value)))


@given(st.sets(st.integers() | st.text()))
def test_sets_are_sorted(value: set[Any]) -> None:
    assert canonical_json(value) == canonical_json(frozenset(sorted(value, key=repr, reverse=True)))
    assert len(plain(value)) == len(value)


@given(st.floats())
def test_what_was_not_measured_is_null(value: float) -> None:
    assert plain(value) == (value if math.isfinite(value) else None)
    assert plain(np.float64(value)) == plain(value)


@given(st.floats(width=32))
def test_numpy_and_torch_scalars_are_numbers(value: float) -> None:
    assert plain(np.float32(value)) == plain(torch.tensor(value)) == plain(value)
    assert type(plain(np.float32(1.0))) is float
    assert canonical_json([np.int64(3), np.bool_(True), torch.tensor(4)]) == b"[3,true,4]"


class Colour(enum.Enum):
    RED = (1, 2)


class Word(enum.StrEnum):
    ONE = "one"


class Number(enum.IntEnum):
    TWO = 2


@dataclasses.dataclass(frozen=True)
class Inner:
    path: PurePosixPath
    word: Word


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner
    numbers: tuple[Number, ...]


def test_dataclasses_enums_and_paths() -> None:
    value = Outer(Inner(PurePosixPath("a/b"), Word.ONE), (Number.TWO,))
    assert canonical_json(value) == b'{"inner":{"path":"a/b","word":"one"},"numbers":[2]}'
    assert type(plain(Number.TWO)) is int
    assert type(plain(Word.ONE)) is str
    assert plain(Colour.RED) == [1, 2]
    assert plain(PureWindowsPath("a\\b")) == "a/b"


def test_text_is_utf8_not_escaped() -> None:
    assert canonical_json({"größe": "λ"}) == '{"größe":"λ"}'.encode()


@pytest.mark.parametrize("value", [b"bytes", 1j, object(), torch.zeros(2), np.zeros(2), Inner])
def test_other_types_are_refused_in_words(value: object) -> None:
    with pytest.raises(InputError, match=f"cannot write a {type(value).__name__} as JSON"):
        canonical_json({"deep": [value]})
