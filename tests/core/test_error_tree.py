from __future__ import annotations

import inspect

import pytest

from modelward.core import errors

TREE = {  # the table of docs and of `core.errors`: parent, exit code
    "UsageError": ("ModelwardError", 4),
    "InputError": ("ModelwardError", 2),
    "AccessError": ("ModelwardError", 2),
    "FormatError": ("ModelwardError", 2),
    "UnsafeFileError": ("FormatError", 5),
    "StoreError": ("ModelwardError", 2),
    "UnavailableError": ("ModelwardError", 2),
    "Undecided": ("ModelwardError", 3),
}


def test_the_tree_is_complete() -> None:
    defined = {name for name, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__}
    assert defined == {"ModelwardError", *TREE}
    assert errors.ModelwardError.__base__ is Exception
    assert errors.ModelwardError.exit_code == 2


@pytest.mark.parametrize("name", TREE)
def test_parents_and_exit_codes(name: str) -> None:
    parent, code = TREE[name]
    error = getattr(errors, name)
    assert error.__base__.__name__ == parent
    assert error("one sentence").exit_code == code
    assert str(error("one sentence")) == "one sentence"


@pytest.mark.parametrize("name", TREE)
def test_the_docstring_table_says_the_same(name: str) -> None:
    assert errors.__doc__ is not None
    (line,) = [line for line in errors.__doc__.splitlines() if f"── {name} " in line]
    assert f"exit {TREE[name][1]} " in line
