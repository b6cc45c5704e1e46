"""What every ownership method promises, tried on all of the catalogue: a new method adds one row to `ROWS`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modelward.attacks.theft import FTAL
from modelward.core.canonical import canonical_json, plain
from modelward.core.catalogue import catalogue, find
from modelward.core.commitment import Commitment
from modelward.core.errors import AccessError, InputError, UsageError
from modelward.core.families import OwnershipMethod, TheftMethod
from modelward.core.guard import predict, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.core.siblings import Siblings, TuningThief
from modelward.core.suspect import Access, Suspect
from modelward.core.verdict import Decision, Verdict
from modelward.core.view import AttackerView, Labels
from modelward.keys import read_key, write_key
from modelward.models import Net, save_model
from modelward.models.assembly import pack, unpack
from modelward.ownership.fingerprint import Fingerprint
from modelward.ownership.mark import MarkMethod

ARCH = "mlp:width=24"
CNN = "cnn:width=4"
DATED = Commitment("00" * 32, "publication", "2026-01-01T00:00:00+00:00", "a gazette", "2026-02-01")
ORDER = list(Access)  # from the most to the least


@dataclasses.dataclass(frozen=True)
class Row:
    """A method with constructor arguments small enough for the tiny task; of its three classes other secrets may draw the same too often for a claim."""

    name: str
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)
    arch: str = ARCH
    reaches: bool = True


ROWS = (
    Row("sac", {"variant": "paper", "count": 40}),
    Row("sac", {"variant": "hardened", "count": 60}),
    Row("sac", {"variant": "hardened", "count": 60, "view": "label"}),
    Row("sac-jc", {"variant": "paper", "count": 60}),
    Row("sac-jc", {"variant": "hardened", "count": 60}),
    Row("ipguard", {"variant": "paper", "count": 25, "k": 1.0, "steps": 60, "lr": 0.02}),
    Row("ipguard", {"variant": "hardened", "count": 25, "k": 1.0, "steps": 60, "lr": 0.02, "pool": 2}),
    Row(
        "cae", {"variant": "paper", "count": 20, "surrogates": 2, "epochs": 2, "mixes": 0, "eps": 0.15, "steps": 15, "lr": 0.02, "pool": 2}
    ),
    Row(
        "cae",
        {"variant": "hardened", "count": 20, "surrogates": 2, "epochs": 2, "mixes": 0, "eps": 0.15, "steps": 15, "lr": 0.02, "pool": 2},
    ),
    Row("zhang", {"variant": "paper", "count": 40, "kind": "noise", "epochs": 8, "batch": 32}, reaches=False),
    Row("zhang", {"variant": "hardened", "count": 40, "kind": "content", "side": 0.5, "epochs": 8, "batch": 32}),
    Row("adi", {"variant": "paper", "count": 40, "epochs": 30, "batch": 32, "per_batch": 8, "lr": 0.05}),
    Row("adi", {"variant": "hardened", "count": 40, "epochs": 30, "batch": 32, "lr": 0.05}),
    Row("frontier", {"variant": "paper", "count": 40, "eps": 0.1, "epochs": 20, "batch": 32}),
    Row("frontier", {"variant": "hardened", "count": 40, "eps": 0.1, "epochs": 20, "batch": 32}),
    Row("ewe", {"variant": "paper", "count": 40, "side": 3, "rounds": 3, "batch": 32, "lr": 0.005, "kappa": 4.0}, reaches=False),
    Row("ewe", {"variant": "hardened", "count": 40, "side": 3, "rounds": 3, "batch": 32, "lr": 0.005, "kappa": 4.0}),
    Row("additional-class", {"variant": "hardened", "count": 30, "epochs": 25, "batch": 32, "lr": 0.05}),
    Row("uchida", {"variant": "paper", "bits": 64, "lam": 0.1, "epochs": 6, "batch": 32, "text": "owner"}),
    Row("uchida", {"variant": "hardened", "bits": 48, "lam": 0.1, "epochs": 6, "batch": 32, "kind": "orthonormal"}),
    Row("deepmarks", {"variant": "paper", "users": 31, "number": 7, "batch": 32}),
    Row("deepmarks", {"variant": "hardened", "users": 31, "number": 30, "batch": 32}),
    Row("passport", {"variant": "paper", "scheme": 3, "kind": "random", "layers": 3, "epochs": 5, "batch": 32}, CNN),
    Row("passport", {"variant": "hardened", "layers": 3, "epochs": 10, "batch": 32, "lr": 0.03}, CNN),
    Row("infip", {"variant": "paper", "count": 40}),
    Row("infip", {"variant": "hardened", "count": 40, "rules": ["epsilon", "dtd"], "pool": 2}),
    Row("unit-order", {"variant": "hardened", "draws": 999}),
    Row("unit-match", {"variant": "hardened"}),
    Row("weight-distance", {"variant": "hardened", "entries": 500}),
)
OURS = {name: cls for name, cls in catalogue().items() if issubclass(cls, OwnershipMethod) and cls.__module__.startswith("modelward.")}
NUMBERS = [pytest.param(number, id=f"{row.name}{number}-{row.fields.get('variant')}") for number, row in enumerate(ROWS)]
every = pytest.mark.parametrize("number", NUMBERS)


@dataclasses.dataclass(frozen=True)
class Farm:
    """A source and models that were, and were not, made from it."""

    source: Net
    siblings: Siblings
    nulls: list[Net]
    validation: list[nn.Module]
    thieves: list[nn.Module]
    independents: list[Net]
    probes: ImageSet
    owner: ImageSet
    attacker: ImageSet

    def data(self, method: OwnershipMethod) -> ImageSet:
        """Return the images that ``method`` protects with."""
        return self.owner if method.marks else self.probes


@dataclasses.dataclass(frozen=True)
class Enrolment:
    """A method, the farm it was tried on, the model it publishes, the key it left, and thieves of that model."""

    method: OwnershipMethod
    farm: Farm
    model: nn.Module
    key: Key
    thieves: list[nn.Module]

    def ask(self, suspect: Suspect | nn.Module, key: Key | None = None) -> Verdict:
        """Verify with a commitment that counts."""
        return self.method.verify(suspect, key or self.key, commitment=DATED)


@pytest.fixture(scope="module")
def farms(make_blobs: Callable[..., ImageSet], train_net: Callable[..., Net]) -> Callable[[str], Farm]:
    """Return models that err on a tenth of the images, so that each has habits of its own; half of the strangers saw the owner's images."""

    @functools.cache
    def made(arch: str) -> Farm:
        owner, attacker = (make_blobs(256, seed, noise=75) for seed in (10, 11))
        source = train_net(arch, owner, 1)
        thieves = stolen_from(source, attacker, 8)
        drawn, tuning = ([train_net(arch, owner, 500 + seed) for seed in seeds] for seeds in (range(19), range(19, 22)))
        tuned = [TuningThief(of, thief, "fine-tuned") for of, model in enumerate(tuning) for thief in stolen_from(model, attacker, 1)]
        siblings = Siblings(models=tuple(drawn), origin="code", start="none", images=owner, tuning=tuple(tuning), thieves=tuple(tuned))
        nulls = [train_net(arch, images, 100 + seed) for seed in range(3) for images in (owner, attacker)]
        independents = [train_net(arch, images, 300 + seed) for seed in range(5) for images in (owner, attacker)]
        return Farm(
            source, siblings, nulls, thieves[:3], thieves[3:], independents, make_blobs(200, 12, noise=75, name="probes"), owner, attacker
        )

    return made


@pytest.fixture(scope="module", autouse=True)
def _few_others() -> Iterator[None]:
    """Let EWE draw as few other secrets as a p-value of .05 can do with: each of them is refined."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OURS["ewe"], "others", 29)
        yield


def stolen_from(model: nn.Module, images: ImageSet, count: int) -> list[nn.Module]:
    """Return ``count`` lightly fine-tuned copies of ``model``."""
    return [
        FTAL(epochs=2, lr=0.02).steal(AttackerView(Suspect.of_model(model), images), rng=generator(seed)).model for seed in range(count)
    ]


@pytest.fixture(scope="module")
def enrolled(farms: Callable[[str], Farm]) -> Callable[[int], Enrolment]:
    """Return the calibrated key of a row; made once."""

    @functools.cache
    def made(number: int) -> Enrolment:
        row = ROWS[number]
        farm, method = farms(row.arch), OURS[row.name].configured(row.fields)
        model, key = enrol(method, farm, seed=0)
        return Enrolment(method, farm, model, key, stolen_from(model, farm.attacker, 5) if method.marks else farm.thieves)

    return made


@pytest.fixture
def case(number: int, enrolled: Callable[[int], Enrolment]) -> Enrolment:
    """Return the enrolment of the row that the test is about."""
    return enrolled(number)


def enrol(method: OwnershipMethod, farm: Farm, *, seed: int, secret: bytes = b"0" * 32) -> tuple[nn.Module, Key]:
    """Protect the source with all that the farm has."""
    return method.protect(
        farm.source,
        farm.data(method),
        secret=secret,
        siblings=farm.siblings,
        nulls=farm.nulls,
        thieves=farm.validation,
        rng=generator(seed),
    )


def views(model: nn.Module) -> dict[Access, Suspect]:
    """Return the model behind each access, as a service would offer it."""
    return {
        Access.WEIGHTS: Suspect.of_model(model),
        Access.PROBABILITIES: Suspect.of_callable(lambda x: predict(model, x).softmax(1), access="probabilities"),
        Access.LABEL: Suspect.of_callable(lambda x: predict(model, x).argmax(1), access="label"),
    }


def offered(method: OwnershipMethod, model: nn.Module) -> dict[Access, Suspect]:
    """Return the model behind each access that ``method`` can work with."""
    return {
        access: suspect for access, suspect in views(model).items() if ORDER.index(access) <= max(ORDER.index(method.needs), _least(method))
    }


def _least(method: OwnershipMethod) -> int:
    """Return the place of the least access: methods that ask for outputs also make do with labels."""
    return 0 if method.needs is Access.WEIGHTS else len(ORDER) - 1


def contents(key: Key) -> tuple[Any, dict[str, list[Any]]]:
    """Return all that is in a key as plain values."""
    return plain([key.method, key.variant, key.model_digest, key.facts]), {name: tensor.tolist() for name, tensor in key.tensors.items()}


def test_every_registered_method_has_a_row() -> None:
    assert {row.name for row in ROWS} == set(OURS)


@every
def test_protect_leaves_all_models_and_images_untouched(number: int, case: Enrolment, untouched: Callable[..., Any]) -> None:
    farm, data = case.farm, case.farm.data(case.method)
    farm.nulls[3].train()
    before = data.pixels.clone()
    with contextlib.ExitStack() as stack:
        for model in (farm.source, *farm.siblings.models, *farm.siblings.tuning, *farm.nulls, *farm.validation):
            stack.enter_context(untouched(model.requires_grad_()))
        published, key = enrol(case.method, farm, seed=0)
    farm.nulls[3].eval()
    assert torch.equal(data.pixels, before)
    assert contents(key) == contents(case.key)  # made by the same generator
    assert key.model_digest == state_digest(published)
    assert (published is not farm.source) == case.method.marks
    assert (key.method, key.variant) == (ROWS[number].name, ROWS[number].fields["variant"])


@every
def test_another_generator_makes_another_mark_and_the_same_fingerprint(case: Enrolment) -> None:
    if case.method.card.name == "unit-order":
        pytest.skip("nothing is drawn: the key is the weights")
    same = contents(enrol(case.method, case.farm, seed=1)[1]) == contents(case.key)
    assert same == isinstance(case.method, Fingerprint)  # an enrolment that could be drawn again would be, until one suits


@every
def test_the_key_does_not_show_what_it_holds(case: Enrolment) -> None:
    key = case.key
    shown = repr(key)
    assert shown == str(key) == f"Key(method={key.method!r}, variant={key.variant!r}, model={key.model_digest[:12]}, tensors=***)"
    assert not any(name in shown for name in (*key.facts, "probes", "answers", "tensor("))


@every
def test_verify_asks_no_more_than_its_access_and_each_probe_once(case: Enrolment) -> None:
    method, key = case.method, case.key
    probes = key.tensors.get("probes")
    if probes is not None:
        assert probes.dtype == torch.uint8
        assert method.probes(key).shape[1:] == case.farm.probes.pixels.shape[1:]
    for access, suspect in offered(method, case.thieves[0]).items():
        verdict = case.ask(suspect)
        assert (verdict.access, verdict.queries) == (access.value, suspect.queries)
        assert method.needs is Access.WEIGHTS or verdict.queries == len(method.probes(key))
        assert case.ask(suspect) == verdict  # what was asked before is not counted again


@every
def test_a_suspect_may_be_the_model_or_answers_collected_elsewhere(case: Enrolment) -> None:
    method, key, thief = case.method, case.key, case.thieves[0]
    assert method.verify(thief, key) == method.verify(Suspect.of_model(thief), key)
    if method.needs is Access.WEIGHTS:
        with pytest.raises(AccessError, match="weights"):
            method.verify(views(thief)[Access.PROBABILITIES], key)
        return
    probes = method.probes(key)
    collected = {Access.PROBABILITIES: predict(thief, probes).softmax(1), Access.LABEL: predict(thief, probes).argmax(1)}
    for access, answers in collected.items():
        assert method.verify(Suspect.of_answers(answers), key) == method.verify(views(thief)[access], key)
        with pytest.raises(InputError):
            method.verify(Suspect.of_answers(answers[:-1]), key)


@every
def test_answers_that_are_not_numbers_are_refused(case: Enrolment) -> None:
    def broken(x: Tensor) -> Tensor:
        return torch.full((len(x), 3), float("nan"))

    with pytest.raises((InputError, AccessError)):
        case.method.verify(Suspect.of_callable(broken, access="probabilities"), case.key)


@every
def test_the_published_model_is_found_through_each_access(number: int, case: Enrolment) -> None:
    for suspect in offered(case.method, case.model).values():
        verdict = case.ask(suspect)
        assert verdict.statistic == pytest.approx(0, abs=0.2)
        assert verdict.stolen == ROWS[number].reaches
        assert verdict.caveats


@every
def test_a_lightly_tuned_thief_scores_below_every_independent_model(case: Enrolment) -> None:
    thieves, strangers = ([case.ask(model) for model in group] for group in (case.thieves, case.farm.independents))
    assert max(v.statistic for v in thieves) < min(v.statistic for v in strangers)
    assert case.method.variant == "paper" or sum(v.found for v in thieves) > sum(v.found for v in strangers)
    for v in (*thieves, *strangers):
        assert v.draws >= 19 or not v.found
        assert v.p_value is not None
        assert v.found == v.matches
        assert not v.found or (v.p_value <= 0.05 + 1e-12 and v.strength)
        assert 0 < v.p_value <= 1
        assert v.parametric_p is None or 0 <= v.parametric_p <= 1
        assert 0 <= v.false_claims <= v.nulls <= len(case.farm.nulls)


ROTATED: dict[str, dict[str, Any]] = {"cae": {"count": 10, "epochs": 1, "steps": 5}, "ipguard": {"count": 15, "steps": 30}}
"""Settings with which twenty enrolments take seconds: ranks are exact under all."""
DEAR = {("cae", "hardened"), ("ipguard", "hardened"), ("unit-match", "hardened")}
"""Rows that crafting, or matching all candidates to a suspect, makes dear: they are rotated with what is slow."""
CRAFTED = {("cae", "paper"), ("ipguard", "paper")}
"""Rows that are not rotated: their hardened variants are, and differ in what is crafted only."""
TURNED = [
    pytest.param(number, id=case.id, marks=[pytest.mark.slow] if (row.name, row.fields["variant"]) in DEAR else [])
    for number, (row, case) in enumerate(zip(ROWS, NUMBERS, strict=True))
    if OURS[row.name].drawn_over == "siblings" and (row.name, row.fields["variant"]) not in CRAFTED
]


def rotated(number: int, farm: Farm, suspects: list[nn.Module]) -> list[list[float]]:
    """Return, for each suspect, its p-values with every candidate in the owner's role in turn."""
    row = ROWS[number]
    method = OURS[row.name].configured({**row.fields, **ROTATED.get(row.name, {})})
    candidates = [farm.source, *farm.siblings.models]
    found: list[list[float]] = [[] for _ in suspects]
    for place, owner in enumerate(candidates):
        others = tuple(candidates[:place] + candidates[place + 1 :])
        family = dataclasses.replace(farm.siblings, models=others[place:] + others[:place], thieves=())
        _, key = method.protect(owner, farm.probes, siblings=family, rng=generator(0))
        for values, suspect in zip(found, suspects, strict=True):
            values.append(method.verify(suspect, key).p_value or 0.0)
    return found


@pytest.mark.parametrize("number", TURNED)
def test_with_each_candidate_in_the_owners_role_the_p_values_are_exact(number: int, farms: Callable[[str], Farm]) -> None:
    farm = farms(ARCH)
    for values in rotated(number, farm, [farm.thieves[0], farm.independents[0]]):
        ranks = sorted(round(20 * p) for p in values)
        assert all(rank >= place for place, rank in enumerate(ranks, 1))  # ties count against the owner
        assert len(set(ranks)) == len(ranks) <= 20 or any(ranks.count(rank) > 1 for rank in ranks)
        assert sum(p <= 0.05 + 1e-12 for p in values) <= 1
        if ROWS[number].name == "infip" or (ROWS[number].fields.get("view") != "label" and ROWS[number].name.startswith("sac")):
            assert ranks == list(range(1, 21))


@every
def test_a_verdict_is_repeated_from_what_was_observed_alone(case: Enrolment) -> None:
    for suspect in (*offered(case.method, case.thieves[0]).values(), Suspect.of_model(case.farm.independents[0])):
        observed = case.method.observe(suspect, case.key)
        assert case.method.judge(observed, case.key, commitment=DATED) == case.ask(suspect)


@every
def test_without_draws_nothing_is_decided(case: Enrolment) -> None:
    method, farm = case.method, case.farm
    if method.drawn_over != "siblings":
        pytest.skip("draws are other secrets, or orders of units: siblings are not needed")
    for family in ((), farm.siblings.models[:18]):
        model, key = method.protect(farm.source, farm.data(method), siblings=family, rng=generator(0))
        assert key.calibrated == bool(family)
        for suspect in (model, farm.independents[0]):
            verdict = case.ask(suspect, key)
            assert verdict.decision is Decision.UNDECIDED
            assert not family or verdict.draws == 18


@every
def test_a_key_of_before_draws_is_undecided(case: Enrolment) -> None:
    old = dataclasses.replace(case.key, facts={name: value for name, value in case.key.facts.items() if name != "draws"})
    verdict = case.ask(case.model, old)
    assert verdict.decision is Decision.UNDECIDED
    assert "before calibration by siblings" in verdict.caveats[0]


@every
def test_only_a_commitment_that_is_older_than_the_suspect_makes_it_stolen(number: int, case: Enrolment) -> None:
    method = case.method
    undated, uncompared = dataclasses.replace(DATED, kind="undated"), dataclasses.replace(DATED, seen=None)
    for commitment in (None, undated, uncompared):
        for suspect in (case.model, *case.thieves[:1]):
            verdict = method.verify(suspect, case.key, commitment=commitment)
            assert not verdict.stolen
            if method.forgeable or suspect is case.model:  # who enrols somebody else's file has a key that fits it
                assert verdict.decision is Decision.UNDECIDED
            elif verdict.matches:
                assert verdict.decision is Decision.RELATED
                hidden = method.judge(method.observe(suspect, case.key), case.key, commitment=commitment, shown=False)
                assert hidden.decision is Decision.UNDECIDED
    assert case.ask(case.model).stolen == ROWS[number].reaches


@every
def test_a_key_that_was_never_embedded_and_one_of_another_secret_find_nothing(case: Enrolment) -> None:
    method, farm = case.method, case.farm
    if not isinstance(method, MarkMethod):
        pytest.skip("nothing is embedded")
    claimed = method.claim(farm.source, farm.owner, secret=b"2" * 32, nulls=farm.nulls, rng=generator(2))
    for suspect in (farm.source, case.model, *case.thieves[:2]):
        assert not case.ask(suspect, claimed).stolen
    assert claimed.model_digest == state_digest(farm.source)


@every
def test_a_forged_key_is_no_evidence(case: Enrolment) -> None:
    method, farm = case.method, case.farm
    if not isinstance(method, MarkMethod):
        pytest.skip("keys of this method are enrolled, not embedded")
    forged = method.forge(farm.independents[0], farm.attacker, secret=b"3" * 32, nulls=farm.nulls, rng=generator(3))
    verdict = method.verify(farm.independents[0], forged)
    assert verdict.decision is not Decision.STOLEN
    assert verdict.statistic <= case.ask(farm.independents[0]).statistic


@every
def test_an_unrelated_accuser_wins_nothing(case: Enrolment) -> None:
    method, farm = case.method, case.farm
    accuser = farm.independents[0]
    his_own = stolen_from(accuser, farm.attacker, 3)
    siblings = farm.siblings  # the accuser learnt from the same images by the same recipe, or passes them off as his
    _, key = method.protect(accuser, farm.data(method), secret=b"1" * 32, siblings=siblings, thieves=his_own, rng=generator(5))
    accused = sum(case.ask(suspect, key).found for suspect in (farm.source, case.model, *case.thieves))
    assert case.method.variant == "paper" or accused <= 1


@every
def test_a_key_of_another_method_is_refused(case: Enrolment) -> None:
    key = dataclasses.replace(case.key, method="someone-else")
    suspect = Suspect.of_model(case.farm.source)
    with pytest.raises(InputError, match="made by 'someone-else'"):
        case.method.verify(suspect, key)
    assert suspect.queries == 0


@every
def test_models_and_data_that_cannot_be_enrolled_are_refused(
    number: int, farms: Callable[[str], Farm], train_net: Callable[..., Net]
) -> None:
    method, farm = OURS[ROWS[number].name].configured(ROWS[number].fields), farms(ROWS[number].arch)
    broken = train_net(ROWS[number].arch, farm.probes, 0, epochs=0)
    with torch.no_grad():
        weight = next(broken.parameters())
        weight[(0,) * weight.ndim] = float("inf")
    with pytest.raises(InputError, match="NaN or infinite"):
        method.protect(broken, farm.probes, rng=generator(0))
    with pytest.raises(InputError, match="no images"):
        method.protect(farm.source, farm.probes.take(slice(0)), rng=generator(0))


@every
def test_the_published_model_can_be_kept_and_read_back(case: Enrolment) -> None:
    again = unpack(*pack(case.model), "again")
    assert torch.equal(predict(again, case.farm.probes.pixels), predict(case.model, case.farm.probes.pixels))


@every
def test_there_are_adaptive_attacks_and_they_exist(case: Enrolment) -> None:
    attacks = case.method.adaptive_attacks()
    assert attacks
    for attack in attacks:
        method = find(attack.method).configured(dict(attack.settings))
        assert isinstance(method, TheftMethod)
        assert Labels(attack.labels) in method.labels


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


def test_a_key_read_in_another_process_gives_the_same_verdicts(tmp_path: Path, enrolled: Callable[[int], Enrolment]) -> None:
    cases = [enrolled(number) for number in range(len(ROWS)) if ROWS[number].arch == ARCH]
    farm = cases[0].farm
    models = {str(tmp_path / f"{name}.safetensors"): model for name, model in (("thief", farm.thieves[0]), ("other", farm.independents[0]))}
    keys = {str(tmp_path / f"{number}.mw"): case for number, case in enumerate(cases)}
    for path, model in models.items():
        save_model(path, model)
    for path, case in keys.items():
        write_key(path, case.key)
        assert contents(read_key(path)) == contents(case.key)
    command = [sys.executable, "-c", READER, json.dumps(list(models)), json.dumps(list(keys))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    expected = [[plain(e.method.verify(model, e.key)) for model in models.values()] for e in keys.values()]
    assert json.loads(done.stdout) == json.loads(json.dumps(expected))


@every
def test_the_variant_of_the_key_decides_not_that_of_the_verifier(case: Enrolment) -> None:
    verdict: Verdict = type(case.method)().verify(case.thieves[0], case.key)
    assert verdict == case.method.verify(case.thieves[0], case.key)
    assert verdict.variant == case.key.variant
