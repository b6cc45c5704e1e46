"""What every ownership method promises, tried on all of the catalogue: a new method adds one row to `ROWS`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modelward.attacks.theft import FTAL
from modelward.core.canonical import canonical_json, plain
from modelward.core.catalogue import catalogue
from modelward.core.errors import AccessError, InputError, UsageError
from modelward.core.families import OwnershipMethod
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.core.suspect import Access, Suspect
from modelward.core.verdict import Decision, Verdict
from modelward.core.view import AttackerView
from modelward.keys import read_key, write_key
from modelward.models import Net, save_model

ARCH = "mlp:width=24"
ORDER = list(Access)  # from the most to the least


@dataclasses.dataclass(frozen=True)
class Row:
    """A method with constructor arguments small enough for the tiny task."""

    name: str
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)


ROWS = (
    Row("sac", {"variant": "paper", "count": 40}),
    Row("sac", {"variant": "hardened", "count": 60}),
    Row("sac", {"variant": "hardened", "count": 60, "references": 0, "view": "label"}),
    Row("sac-jc", {"variant": "paper", "count": 60}),
    Row("sac-jc", {"variant": "hardened", "count": 60}),
    Row("ipguard", {"variant": "paper", "count": 60, "k": 1.0, "steps": 100, "lr": 0.02}),
    Row("ipguard", {"variant": "hardened", "count": 40, "k": 1.0, "steps": 100, "lr": 0.02}),
    Row("cae", {"variant": "paper", "count": 40, "surrogates": 3, "epochs": 4, "mixes": 0, "eps": 0.15, "steps": 30, "lr": 0.02}),
    Row("cae", {"variant": "hardened", "count": 60, "surrogates": 4, "epochs": 4, "mixes": 0, "eps": 0.15, "steps": 30, "lr": 0.02}),
)
OURS = {name: cls for name, cls in catalogue().items() if issubclass(cls, OwnershipMethod) and cls.__module__.startswith("modelward.")}
NUMBERS = [pytest.param(number, id=f"{row.name}{number}-{row.fields.get('variant')}") for number, row in enumerate(ROWS)]
every = pytest.mark.parametrize("number", NUMBERS)


@dataclasses.dataclass(frozen=True)
class Farm:
    """A source and models that were, and were not, made from it."""

    source: Net
    nulls: list[Net]
    validation: list[nn.Module]
    thieves: list[nn.Module]
    independents: list[Net]
    probes: ImageSet
    attacker: ImageSet


@dataclasses.dataclass(frozen=True)
class Enrolment:
    """A method, the model it would publish and the key it left."""

    method: OwnershipMethod
    model: nn.Module
    key: Key


@pytest.fixture(scope="module")
def farm(make_blobs: Callable[..., ImageSet], train_net: Callable[..., Net]) -> Farm:
    """Return models that err on a tenth of the images, so that each has habits of its own; half of the strangers saw the owner's images."""
    owner, attacker = (make_blobs(256, seed, noise=75) for seed in (10, 11))
    source = train_net(ARCH, owner, 1)
    thieves = stolen_from(source, attacker, 8)
    nulls = [train_net(ARCH, images, 100 + seed) for seed in range(15) for images in (owner, attacker)]
    independents = [train_net(ARCH, images, 300 + seed) for seed in range(5) for images in (owner, attacker)]
    return Farm(source, nulls, thieves[:3], thieves[3:], independents, make_blobs(200, 12, noise=75, name="probes"), attacker)


def stolen_from(model: nn.Module, images: ImageSet, count: int) -> list[nn.Module]:
    """Return ``count`` lightly fine-tuned copies of ``model``."""
    return [
        FTAL(epochs=2, lr=0.02).steal(AttackerView(Suspect.of_model(model), images), rng=generator(seed)).model for seed in range(count)
    ]


@pytest.fixture(scope="module")
def enrolments(farm: Farm) -> list[Enrolment]:
    """Return one calibrated key for each row."""
    made = []
    for row in ROWS:
        method = OURS[row.name].configured(row.fields)
        made.append(Enrolment(method, *enrol(method, farm, seed=0)))
    return made


def enrol(method: OwnershipMethod, farm: Farm, *, seed: int) -> tuple[nn.Module, Key]:
    """Protect the source with all that the farm has."""
    return method.protect(farm.source, farm.probes, secret=b"0" * 32, nulls=farm.nulls, thieves=farm.validation, rng=generator(seed))


def views(model: nn.Module) -> dict[Access, Suspect]:
    """Return the model behind each access, as a service would offer it."""
    return {
        Access.WEIGHTS: Suspect.of_model(model),
        Access.PROBABILITIES: Suspect.of_callable(lambda x: predict(model, x).softmax(1), access="probabilities"),
        Access.LABEL: Suspect.of_callable(lambda x: predict(model, x).argmax(1), access="label"),
    }


def contents(key: Key) -> tuple[Any, dict[str, list[Any]]]:
    """Return all that is in a key as plain values."""
    return plain([key.method, key.variant, key.model_digest, key.facts]), {name: tensor.tolist() for name, tensor in key.tensors.items()}


def test_every_registered_method_has_a_row() -> None:
    assert {row.name for row in ROWS} == set(OURS)


@every
def test_protect_leaves_all_models_and_images_untouched(
    number: int, farm: Farm, enrolments: list[Enrolment], untouched: Callable[..., Any]
) -> None:
    farm.nulls[3].train()
    before = farm.probes.pixels.clone()
    with contextlib.ExitStack() as stack:
        for model in (farm.source, *farm.nulls, *farm.validation):
            stack.enter_context(untouched(model.requires_grad_()))
        published, key = enrol(enrolments[number].method, farm, seed=0)
    farm.nulls[3].eval()
    assert torch.equal(farm.probes.pixels, before)
    assert key.model_digest == state_digest(published)
    assert (key.method, key.variant) == (ROWS[number].name, ROWS[number].fields["variant"])


@every
def test_the_generator_decides(number: int, farm: Farm, enrolments: list[Enrolment]) -> None:
    method = enrolments[number].method
    assert contents(enrol(method, farm, seed=0)[1]) == contents(enrolments[number].key)
    assert contents(enrol(method, farm, seed=1)[1]) != contents(enrolments[number].key)


@every
def test_the_key_does_not_show_what_it_holds(number: int, enrolments: list[Enrolment]) -> None:
    key = enrolments[number].key
    shown = repr(key)
    assert shown == str(key) == f"Key(method={key.method!r}, variant={key.variant!r}, model={key.model_digest[:12]}, tensors=***)"
    assert not any(name in shown for name in (*key.facts, "probes", "answers", "tensor("))


@every
def test_verify_asks_no_more_than_its_access_and_each_probe_once(number: int, farm: Farm, enrolments: list[Enrolment]) -> None:
    method, key = enrolments[number].method, enrolments[number].key
    probes = method.probes(key)
    assert probes.dtype == torch.uint8
    assert probes.shape[1:] == farm.probes.pixels.shape[1:]
    for access, suspect in views(farm.thieves[0]).items():
        if ORDER.index(access) <= ORDER.index(method.needs) or access is Access.LABEL:
            with contextlib.suppress(AccessError) if access is Access.LABEL else contextlib.nullcontext():
                verdict = method.verify(suspect, key)
                assert (verdict.access, verdict.queries, suspect.queries) == (access.value, len(probes), len(probes))
                assert method.verify(suspect, key) == verdict  # what was asked before is not counted again


@every
def test_a_suspect_may_be_the_model_or_answers_collected_elsewhere(number: int, farm: Farm, enrolments: list[Enrolment]) -> None:
    method, key = enrolments[number].method, enrolments[number].key
    thief, probes = farm.thieves[0], method.probes(key)
    assert method.verify(thief, key) == method.verify(Suspect.of_model(thief), key)
    collected = {Access.PROBABILITIES: predict(thief, probes).softmax(1), Access.LABEL: predict(thief, probes).argmax(1)}
    for access, answers in collected.items():
        assert method.verify(Suspect.of_answers(answers), key) == method.verify(views(thief)[access], key)
        with pytest.raises(InputError):
            method.verify(Suspect.of_answers(answers[:-1]), key)


@every
def test_answers_that_are_not_numbers_are_refused(number: int, enrolments: list[Enrolment]) -> None:
    def broken(x: Tensor) -> Tensor:
        return torch.full((len(x), 3), float("nan"))

    with pytest.raises(InputError):
        enrolments[number].method.verify(Suspect.of_callable(broken, access="probabilities"), enrolments[number].key)


@every
def test_the_source_is_found_through_each_access(number: int, farm: Farm, enrolments: list[Enrolment]) -> None:
    method, key = enrolments[number].method, enrolments[number].key
    for suspect in views(farm.source).values():
        verdict = method.verify(suspect, key)
        assert verdict.statistic == pytest.approx(0, abs=1e-4)
        assert verdict.stolen
        assert verdict.caveats


@every
def test_a_lightly_tuned_thief_scores_below_every_independent_model(number: int, farm: Farm, enrolments: list[Enrolment]) -> None:
    method, key = enrolments[number].method, enrolments[number].key
    thieves, strangers = ([method.verify(model, key) for model in group] for group in (farm.thieves, farm.independents))
    assert max(v.statistic for v in thieves) < min(v.statistic for v in strangers)
    assert not any(v.stolen for v in strangers)
    for v in (*thieves, *strangers):
        assert v.threshold is not None
        assert v.p_value is not None
        assert v.stolen == (v.statistic <= v.threshold)
        assert 1 / (v.nulls + 1) <= v.p_value <= 1
        assert v.false_claim_bound is None or v.false_claims / v.false_claim_trials <= v.false_claim_bound <= 1


@every
def test_without_null_models_nothing_is_decided(number: int, farm: Farm, enrolments: list[Enrolment]) -> None:
    method = enrolments[number].method
    _, key = method.protect(farm.source, farm.probes, secret=b"0" * 32, rng=generator(0))
    assert not key.calibrated
    assert enrolments[number].key.calibrated
    for suspect in (farm.source, farm.independents[0]):
        verdict = method.verify(suspect, key)
        assert (verdict.decision, verdict.threshold, verdict.p_value, verdict.nulls) == (Decision.UNDECIDED, None, None, 0)


@every
def test_an_unrelated_accuser_wins_nothing(number: int, farm: Farm, enrolments: list[Enrolment]) -> None:
    method = enrolments[number].method
    for accuser in farm.independents[:4]:
        his_own = stolen_from(accuser, farm.attacker, 3)
        _, key = method.protect(accuser, farm.probes, secret=b"1" * 32, nulls=farm.nulls, thieves=his_own, rng=generator(5))
        assert not any(method.verify(model, key).stolen for model in (farm.source, *farm.thieves))
        assert method.verify(accuser, key).stolen


@every
def test_a_key_of_another_method_is_refused(number: int, farm: Farm, enrolments: list[Enrolment]) -> None:
    key = dataclasses.replace(enrolments[number].key, method="someone-else")
    suspect = Suspect.of_model(farm.source)
    with pytest.raises(InputError, match="made by 'someone-else'"):
        enrolments[number].method.verify(suspect, key)
    assert suspect.queries == 0


@every
def test_models_and_data_that_cannot_be_enrolled_are_refused(number: int, farm: Farm, train_net: Callable[..., Net]) -> None:
    method = OURS[ROWS[number].name].configured(ROWS[number].fields)
    broken = train_net(ARCH, farm.probes, 0, epochs=0)
    with torch.no_grad():
        next(broken.parameters())[0, 0] = float("inf")
    with pytest.raises(InputError, match="NaN or infinite"):
        method.protect(broken, farm.probes, rng=generator(0))
    with pytest.raises(InputError, match="no images"):
        method.protect(farm.source, farm.probes.take(slice(0)), rng=generator(0))


@every
def test_settings_survive_json(number: int) -> None:
    method = OURS[ROWS[number].name].configured(ROWS[number].fields)
    again = type(method).configured(json.loads(canonical_json(method.settings())))
    assert again == method
    assert again.fingerprint() == method.fingerprint()
    with pytest.raises(UsageError, match=rf"{ROWS[number].name} has no setting 'variants'; did you mean 'variant'\?"):
        type(method).configured({"variants": "paper"})
    with pytest.raises(UsageError, match="variant is 'paper' or 'hardened'"):
        type(method).configured({"variant": "best"})


READER = """
import json, sys, torch
torch.set_num_threads(1)
from modelward.core.canonical import plain
from modelward.core.catalogue import find
from modelward.keys import read_key
from modelward.models import load_model
models = [load_model(path).model for path in json.loads(sys.argv[1])]
found = []
for path in json.loads(sys.argv[2]):
    key = read_key(path)
    found.append([plain(find(key.method)().verify(model, key)) for model in models])
print(json.dumps(found))
"""


def test_a_key_read_in_another_process_gives_the_same_verdicts(tmp_path: Path, farm: Farm, enrolments: list[Enrolment]) -> None:
    models = {str(tmp_path / f"{name}.safetensors"): model for name, model in (("thief", farm.thieves[0]), ("other", farm.independents[0]))}
    keys = {str(tmp_path / f"{number}.mw"): enrolment for number, enrolment in enumerate(enrolments)}
    for path, model in models.items():
        save_model(path, model)
    for path, enrolment in keys.items():
        write_key(path, enrolment.key)
        assert contents(read_key(path)) == contents(enrolment.key)
    command = [sys.executable, "-c", READER, json.dumps(list(models)), json.dumps(list(keys))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = [[plain(e.method.verify(model, e.key)) for model in models.values()] for e in keys.values()]
    assert json.loads(done.stdout) == json.loads(json.dumps(expected))


def test_the_variant_of_the_key_decides_not_that_of_the_verifier(farm: Farm, enrolments: list[Enrolment]) -> None:
    for enrolment in enrolments:
        verdict: Verdict = type(enrolment.method)().verify(farm.thieves[0], enrolment.key)
        assert verdict == enrolment.method.verify(farm.thieves[0], enrolment.key)
        assert verdict.variant == enrolment.key.variant
