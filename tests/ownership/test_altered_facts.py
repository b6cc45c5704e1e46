"""Keys that their owner sealed with facts missing or changed: a verdict or one sentence, never anything else."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelward.core.catalogue import catalogue
from modelward.core.errors import FormatError, InputError, ModelwardError
from modelward.core.families import OwnershipMethod
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.core.siblings import Siblings
from modelward.core.suspect import Access, Suspect
from modelward.core.verdict import Decision
from modelward.keys import read_key, write_key
from modelward.models import Net, build

SMALL: dict[str, dict[str, Any]] = {
    "ipguard": {"k": 0.0, "steps": 20, "lr": 0.05, "variant": "paper"}, "cae": {"surrogates": 2, "epochs": 1, "mixes": 0, "steps": 25, "lr": 0.05, "eps": 0.5},
    "sac": {}, "sac-jc": {}, "zhang": {"epochs": 1, "kind": "noise"}, "adi": {"epochs": 1}, "additional-class": {"epochs": 1, "checks": 8},
    "frontier": {"epochs": 1}, "ewe": {"epochs": 1, "batch": 32, "side": 3, "rounds": 1}, "uchida": {"epochs": 4, "bits": 24, "lam": 0.5},
    "deepmarks": {"epochs": 1, "users": 7}, "passport": {"epochs": 6, "batch": 32, "checks": 8, "layers": 3}, "infip": {"count": 10},
    "unit-order": {"draws": 99}, "unit-match": {}, "weight-distance": {"entries": 200},
}  # fmt: skip
ARCHS = {"passport": "cnn:width=4"}
NAMES = sorted(name for name, kind in catalogue().items() if issubclass(kind, OwnershipMethod) and kind.__module__.startswith("modelward."))
Place = tuple[Any, ...]
junk = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 10**400), st.floats(), st.text(max_size=3), st.lists(st.none() | st.floats(), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2), st.lists(st.lists(st.integers(), max_size=1), min_size=1, max_size=2),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """A method with a calibrated key and a suspect."""

    method: OwnershipMethod
    key: Key
    suspect: Net


@pytest.fixture(scope="module")
def cases(make_blobs: Callable[..., ImageSet], train_net: Callable[..., Net]) -> Callable[[str], Case]:
    """Return the case of a method, with siblings that were hardly trained; made once."""
    images = make_blobs(160, 3, noise=75)

    @functools.cache
    def made(name: str) -> Case:
        kind, arch = catalogue()[name], ARCHS.get(name, "mlp:width=8")
        count = {"count": 20} if "count" in {field.name for field in dataclasses.fields(kind)} else {}
        method = kind.configured({**count, **SMALL[name]})
        assert isinstance(method, OwnershipMethod)
        source = train_net(arch, images, 1)
        nulls = [
            build(arch, classes=len(images.classes), channels=images.shape[0], size=images.shape[1:], rng=generator(i)) for i in range(21)
        ]
        drawn = tuple(train_net(arch, images, 10 + i) for i in range(4))
        family = Siblings(models=drawn, start="none", origin="code", images=images, seeds=(1, 2, 3, 4))
        model, key = method.protect(source, images, siblings=family, nulls=nulls, thieves=[source], rng=generator(0))
        assert isinstance(model, Net)
        return Case(method, key, model)

    return made


def places(facts: Any, before: Place = ()) -> Iterator[Place]:
    """Yield the path to every fact, the inner ones too."""
    inside = facts.items() if isinstance(facts, dict) else enumerate(facts) if isinstance(facts, list | tuple) else ()
    for name, value in inside:
        yield (*before, name)
        yield from places(value, (*before, name))


def mutable(facts: Any) -> Any:
    """Return a deep copy that holds lists and dicts alone."""
    if isinstance(facts, dict):
        return {name: mutable(value) for name, value in facts.items()}
    return [mutable(value) for value in facts] if isinstance(facts, list | tuple) else copy.copy(facts)


def altered(key: Key, path: Place, value: Any, *, drop: bool) -> Key:
    """Return the key with one fact dropped or replaced."""
    facts = mutable(dict(key.facts))
    place = facts
    for step in path[:-1]:
        place = place[step]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return dataclasses.replace(key, facts=facts)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_altered_facts_give_a_verdict_or_one_sentence(name: str, data: st.DataObject, cases: Callable[[str], Case]) -> None:
    case = cases(name)
    path = data.draw(st.sampled_from(list(places(mutable(dict(case.key.facts))))))
    key = altered(case.key, path, data.draw(junk), drop=data.draw(st.booleans()))
    suspect = Suspect.of_model(case.suspect, access=data.draw(st.sampled_from([Access.WEIGHTS, Access.LABEL])))
    try:
        said = str(case.method.verify(suspect, key))
    except ModelwardError as error:
        said = str(error)
    assert said
    assert "\n" not in said


def damaged(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return an array damaged in every way that a file can hold."""
    other = tensor.long() if tensor.is_floating_point() else tensor.float()
    ways = {
        "a number": torch.zeros((), dtype=tensor.dtype), "empty": tensor[:0], "half": tensor[: len(tensor) // 2], "another type": other,
        "flat": tensor.flatten(), "deeper": tensor[None], "last axis cut": tensor[..., :-1], "bytes": torch.full_like(tensor, 99, dtype=torch.uint8),
    }  # fmt: skip
    if tensor.is_floating_point():
        ways |= {"not a number": torch.full_like(tensor, torch.nan), "huge": torch.full_like(tensor, 3e4)}
    else:
        ways |= {"out of range": torch.full_like(tensor, 100), "negative": tensor.to(torch.int64) * -1 - 5}
    return ways


@pytest.mark.parametrize("name", NAMES)
def test_damaged_arrays_give_a_verdict_or_one_sentence(name: str, cases: Callable[[str], Case]) -> None:
    case = cases(name)
    for array, tensor in case.key.tensors.items():
        for way, value in damaged(tensor).items():
            key = dataclasses.replace(case.key, tensors={**case.key.tensors, array: value})
            try:
                said = str(case.method.verify(Suspect.of_model(case.suspect), key))
            except (FormatError, InputError) as error:
                said = str(error)
            assert said, (array, way)
            assert "\n" not in said, (array, way)


@pytest.mark.parametrize("name", NAMES)
def test_what_verification_reads_is_missed(name: str, cases: Callable[[str], Case], tmp_path: Path) -> None:
    case = cases(name)
    write_key(tmp_path / "k.mw", altered(case.key, ("settings",), None, drop=True))  # resealed: its digests are right
    with pytest.raises(FormatError, match=rf"this {name} key lacks 'settings'.*enrol the model again"):
        case.method.verify(case.suspect, read_key(tmp_path / "k.mw"))
    with pytest.raises(FormatError, match=f"'settings' of this {name} key is no table"):
        case.method.verify(case.suspect, altered(case.key, ("settings",), [1], drop=False))
    old = case.method.verify(case.suspect, altered(case.key, ("draws",), None, drop=True))
    assert old.decision is Decision.UNDECIDED
    assert old.caveats[0].startswith("The key was made before calibration by siblings and other secrets: enrol again")
    for array in case.key.tensors:
        if array in {"probes", "answers"} and not case.method.marks:  # a mark's secret draws them anew, or its method says that it has none
            rest = {other: tensor for other, tensor in case.key.tensors.items() if other != array}
            with pytest.raises(FormatError, match=f"lacks the array '{array}'"):
                case.method.verify(case.suspect, dataclasses.replace(case.key, tensors=rest))


def test_every_kind_of_fact() -> None:
    key = Key("m", "paper", "00", {"a": {"b": 1}, "t": True, "l": (1,)}, {"x": torch.zeros(1)})
    assert key.fact(float, "a", "b") == 1
    assert key.fact(bool, "t") is True
    assert list(key.fact(list, "l")) == [1]
    assert len(key.tensor("x")) == 1
    for kind, path in ((float, ("t",)), (bool, ("a", "b")), (str, ("a",)), (dict, ("l",)), (float, ("a", "b", "c")), (float, ("z",))):
        with pytest.raises(FormatError, match="this m key"):
            key.fact(kind, *path)
