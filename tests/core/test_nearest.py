from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.core.catalogue import catalogue, find
from modelward.core.errors import UsageError
from modelward.core.nearest import nearest

words = st.text("abcdefgh", min_size=1, max_size=10)


@given(words, st.lists(words, max_size=5))
def test_an_exact_name_is_its_own_nearest(name: str, others: list[str]) -> None:
    assert nearest(name, [*others, name]) == f"; did you mean {name!r}?"


@given(words, st.lists(words, max_size=5))
def test_the_answer_is_one_of_the_known_or_nothing(name: str, known: list[str]) -> None:
    assert nearest(name, iter(known)) in {"", *(f"; did you mean {other!r}?" for other in known)}


def test_strangers_get_no_suggestion() -> None:
    assert nearest("zzz", ["resnet8", "mlp"]) == ""
    assert nearest("", []) == ""


def test_a_misspelt_method_and_a_misspelt_setting_are_named() -> None:
    with pytest.raises(UsageError, match="there is no method 'pgdd'; did you mean 'pgd'"):
        find("pgdd")
    with pytest.raises(UsageError, match=r"pgd has no setting 'step_'; did you mean 'step'.*it has norm, eps"):
        find("pgd").configured({"step_": 1})


def test_methods_rebuild_from_their_settings() -> None:
    for name, method in catalogue().items():
        made = method()
        assert made.card.name == name
        assert type(made).configured(made.settings()) == made
        assert method.configured({}).fingerprint() == made.fingerprint()
    assert len({method().fingerprint() for method in catalogue().values()}) == len(catalogue())
