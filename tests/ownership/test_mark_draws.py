"""What the p-values of marks are drawn over: every secret in the owner's role, fresh secrets against fixed suspects, and the owner's own model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from modelward.core.commitment import Commitment
from modelward.core.deciding import OLD, Finding
from modelward.core.errors import FormatError, InputError, UsageError
from modelward.core.guard import state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import Observation
from modelward.core.rng import derive_seed, generator
from modelward.core.suspect import Access, Suspect
from modelward.core.verdict import ALPHA, Decision
from modelward.models import Net, build
from modelward.ownership import EWE, Adi, DeepMarks, Frontier, Passport, Uchida, Zhang
from modelward.ownership import frontier as frontier_module
from modelward.ownership import passport as passport_module
from modelward.ownership.additional_class import AdditionalClass
from modelward.ownership.adi import PART
from modelward.ownership.deepmarks import chance_of_bits
from modelward.ownership.drawing import other_secrets
from modelward.ownership.frontier import bound
from modelward.ownership.mark import Mark, MarkMethod, with_power
from modelward.ownership.ranking import COVERS, RankedTrigger
from modelward.ownership.weighing import WeightMethod, realigned, with_reference

SECRET = b"7" * 32
OLDER = Commitment("00" * 32, "publication", "2020-01-01T00:00:00+00:00", "a gazette", "2026-01-01")
RANKED: dict[str, RankedTrigger] = {
    "zhang": Zhang(count=20, side=0.5, asked=6), "zhang, noise": Zhang(count=20, kind="noise", asked=6),
    "zhang, paper": Zhang(variant="paper", count=20, asked=6), "zhang, unrelated": Zhang(count=20, kind="unrelated", asked=6),
    "ewe": EWE(count=20, side=3, asked=6, rounds=2),
}  # fmt: skip
TRIES = 1_000


def secrets(count: int) -> list[bytes]:
    return [derive_seed("secret", number).to_bytes(8, "big") * 4 for number in range(count)]


def most(count: int) -> float:
    """Return the share of ``count`` innocent trials that may come out below alpha, three standard errors up."""
    return ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / count)


@pytest.fixture(scope="module")
def data(make_blobs: Callable[..., ImageSet]) -> ImageSet:
    return make_blobs(256, 40, noise=75)


@pytest.fixture(scope="module")
def source(data: ImageSet, train_net: Callable[..., Net]) -> Net:
    return train_net("mlp:width=24", data, 1)


@pytest.fixture(scope="module")
def strangers(data: ImageSet, make_blobs: Callable[..., ImageSet], train_net: Callable[..., Net]) -> list[nn.Module]:
    """Return models that do not know the secret: another, one that was hardly trained, one that is sure of itself, one that answers one class."""
    sure, constant = train_net("mlp:width=24", data, 50), train_net("mlp:width=24", data, 51)
    with torch.no_grad():
        for parameter in sure.parameters():
            parameter.mul_(20)
        list(constant.parameters())[-1].copy_(torch.tensor([1e4, 0.0, 0.0]))
    return [train_net("mlp:width=24", make_blobs(256, 41, noise=75), 52), train_net("mlp:width=24", data, 53, epochs=0), sure, constant]


# draws: every secret in the owner's role


@pytest.mark.parametrize("name", RANKED)
def test_each_secret_in_the_owners_role_gets_each_rank(name: str, source: Net, data: ImageSet, strangers: list[nn.Module]) -> None:
    method = RANKED[name]
    key = method.claim(source, data, secret=SECRET, rng=generator(0))
    total = method.others + 1
    for suspect in strangers:
        observed = method.observe(suspect, key)
        assert observed.queries == len(method.probes(key)) <= (total + COVERS) * method.asked
        found = [method._found(observed, placed(key, own)) for own in range(total)]
        require_ranks([one.p for one in found])
        assert [(one.statistic, *sorted(one.others)) for one in found] == [
            (one.statistic, *rest(found, own)) for own, one in enumerate(found)
        ]


def rest(found: list[Finding], own: int) -> list[float]:
    """Return the statistics of all secrets but one, sorted."""
    return sorted(one.statistic for place, one in enumerate(found) if place != own)


def placed(key: Key, own: int) -> Key:
    """Return a key in which another secret is the owner's."""
    return dataclasses.replace(key, facts={**key.facts, "draws": {**key.facts["draws"], "own": own}})


def require_ranks(found: list[float | None]) -> None:
    """Fail unless the p-values are 1/n, ..., 1, or, with ties, not below."""
    values = sorted(value for value in found if value is not None)
    assert len(values) == len(found)
    assert all(value >= (place + 1) / len(found) - 1e-12 for place, value in enumerate(values))
    assert values[-1] == 1


def test_answers_that_differ_for_every_secret_give_every_rank(source: Net, data: ImageSet) -> None:
    method = Zhang(count=20, side=0.5, asked=6)
    key = method.claim(source, data, secret=SECRET, rng=generator(0))
    key = dataclasses.replace(key, tensors={**key.tensors, "asked_of": torch.arange(1200) // 6})
    shares = torch.randperm(200, generator=generator(1)).double() / 200  # finer than six answers can be: of the ranks themselves
    found = [Finding(float(shares[own]), "", tuple(shares[torch.arange(200) != own].tolist())).p for own in range(200)]
    assert sorted(found) == [pytest.approx((place + 1) / 200) for place in range(200)]


@pytest.mark.parametrize("name", RANKED)
def test_what_is_asked_of_the_owner_is_made_as_what_is_asked_of_others(name: str, source: Net, data: ImageSet) -> None:
    method = RANKED[name]
    key = method.claim(source, data, secret=SECRET, rng=generator(0))
    draws, of = key.facts["draws"], key.tensors["asked_of"]
    own = method._own(SECRET, generator(0))
    blocks = {digest_of_block(*method._block(source, data, one)) for one in (own, *other_secrets(draws["digest"], method.others))}
    asked, labels = key.tensors["asked"], key.tensors["asked_labels"]
    kept = [digest_of_block(asked[of == place], labels[of == place]) for place in range(method.others + 1)]
    assert set(kept) == blocks
    assert kept == sorted(kept)  # the order does not tell which is the owner's
    mine = of == draws["own"]
    assert torch.equal(key.tensors["asked"][mine], key.tensors["probes"][: method.asked])
    assert torch.equal(key.tensors["asked_labels"][mine], key.tensors["labels"][: method.asked])
    other = method.claim(source, data, secret=b"8" * 32, rng=generator(0))
    assert other.facts["draws"]["digest"] != draws["digest"]


def digest_of_block(pixels: torch.Tensor, labels: torch.Tensor) -> str:
    return state_digest({"probes": pixels, "labels": labels})


@pytest.mark.slow
def test_subsets_of_the_pool_are_drawn_alike(
    source: Net, data: ImageSet, strangers: list[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variant in ("hardened", "paper"):
        method = Frontier(variant=variant, count=20, eps=0.1)
        key = method.claim(source, data, secret=SECRET, rng=generator(0))
        pool, size = key.facts["pool"], len(key.tensors["pool"])
        assert size >= 10 * len(key.tensors["chosen"])
        assert torch.equal(key.tensors["pool"][key.tensors["chosen"]], key.tensors["probes"])
        own = method._own(SECRET, generator(0))
        assert torch.equal(method._subset(size, pool["true"], bound(own, pool["digest"], pool["true"])), key.tensors["chosen"])
        again = method.claim(source, data, secret=b"8" * 32, rng=generator(0))
        assert again.facts["pool"] == pool  # no secret chose it
        for suspect in strangers:
            observed = method.observe(suspect, key)
            assert observed.queries == size
            found = method._judge(observed, key)
            assert len(found.others) == 999
            values = [found.statistic, *found.others]
            require_ranks([Finding(value, "", tuple(values[:place] + values[place + 1 :])).p for place, value in enumerate(values)])
    monkeypatch.setattr(frontier_module, "OTHERS", 99)
    method, answers = Frontier(count=20, eps=0.1), torch.randint(0, 3, (size,), generator=generator(3))
    key = method.claim(source, data, secret=SECRET, rng=generator(0))
    found_p = [
        method._judge(Observation(Access.LABEL, {"answers": answers}), chosen_by(method, key, secret)).p or 0 for secret in secrets(TRIES)
    ]
    assert sum(p <= ALPHA + 1e-12 for p in found_p) / TRIES <= most(TRIES)


def chosen_by(method: Frontier, key: Key, secret: bytes) -> Key:
    """Return a key of the same pool in which another secret chose."""
    chosen = method._subset(len(key.tensors["pool"]), key.facts["pool"]["true"], secret)
    return dataclasses.replace(key, tensors={**key.tensors, "chosen": chosen})


def test_a_pool_that_was_changed_is_refused(source: Net, data: ImageSet) -> None:
    method = Frontier(count=20, eps=0.1)
    key = method.claim(source, data, secret=SECRET, rng=generator(0))
    for damage in (
        {"pool_labels": 2 - key.tensors["pool_labels"]},
        {"chosen": key.tensors["chosen"] + 10_000},
        {"chosen": key.tensors["chosen"][:3]},
    ):
        with pytest.raises(FormatError, match="pool"):
            method.verify(source, dataclasses.replace(key, tensors={**key.tensors, **damage}))


# exact distributions: fresh secrets against fixed suspects


def require_rare(method: MarkMethod, source: nn.Module, data: ImageSet, suspects: list[nn.Module], count: int = TRIES) -> None:
    """Fail where fresh secrets accuse an innocent suspect more often than alpha."""
    accused = [0] * len(suspects)
    seen: list[Observation] = []  # what is read of a filter mean hangs on no secret
    for secret in secrets(count):
        key = method.claim(source, data, secret=secret, rng=generator(0))
        if not seen or not isinstance(method, WeightMethod):
            seen = [method.observe(suspect, key) for suspect in suspects]
        for place, observed in enumerate(seen):
            p = method._judge(observed, key).p
            accused[place] += p is None or p <= ALPHA + 1e-12
    assert max(accused) / count <= most(count)


@pytest.mark.slow
def test_labels_of_abstract_images_are_hit_by_chance(source: Net, data: ImageSet, strangers: list[nn.Module]) -> None:
    require_rare(Adi(variant="paper", count=12), source, data.take(slice(4)), strangers)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_bits_are_read_by_chance(number: int, source: Net, data: ImageSet, strangers: list[nn.Module]) -> None:
    method = (Uchida(bits=24), Uchida(variant="paper", bits=32, text="me", kind="diff"), DeepMarks(users=7), DeepMarks(users=7, tau=0.02))[
        number
    ]
    require_rare(method, source, data.take(slice(4)), strangers)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["paper", "hardened"])
def test_signs_are_read_by_chance(variant: str, data: ImageSet, train_net: Callable[..., Net], monkeypatch: pytest.MonkeyPatch) -> None:
    net, other = (train_net("cnn:width=4", data, seed, epochs=2) for seed in (1, 2))
    kept = realigned(other, with_reference(Mark({}), net).tensors)  # the same for every secret
    monkeypatch.setattr(passport_module, "realigned", lambda model, *_: kept if variant == "hardened" else model)
    method = Passport(variant=variant, layers=1, checks=2, text="a", kind="flat" if variant == "hardened" else "random")
    require_rare(method, net, data.take(slice(4)), [other])


@pytest.mark.slow
def test_keys_are_told_from_decoys_of_their_family_by_chance(data: ImageSet) -> None:
    marked = build(
        "mlp:width=24", classes=4, channels=3, size=(8, 8), rng=generator(5)
    )  # somebody else's extra class, which takes what it likes
    taken = Suspect.of_model(marked).labels(torch.rand(200, 3, 8, 8, generator=generator(0)))
    assert 3 in taken.tolist()
    require_rare(AdditionalClass(count=8, checks=16, codec="lsb"), marked, data.take(slice(4)), [marked])


def test_where_nothing_is_there_to_project_nothing_is_read() -> None:
    assert chance_of_bits(31, 25, 6, 0.0, 0.0) == 1
    assert chance_of_bits(20, 25, 6, 0.0, 3.0) == pytest.approx(sum(math.comb(31, k) for k in range(20, 32)) / 2**31)
    assert chance_of_bits(25, 25, 6, -9.0, 1.0) == pytest.approx(1)  # every bit reads as 1, under every secret


# the owner's own model, forged keys, old keys, and what cannot be decided

SMALL: dict[str, MarkMethod] = {
    "adi": Adi(count=30, epochs=30, batch=32, lr=0.05), "zhang": Zhang(count=40, side=0.5, epochs=12, batch=32),
    "frontier": Frontier(count=25, eps=0.1, epochs=20, batch=32), "uchida": Uchida(bits=32, lam=0.5, epochs=6, batch=32, text="a"),
    "deepmarks": DeepMarks(users=31, epochs=6, batch=32), "additional-class": AdditionalClass(count=30, epochs=15, batch=32, lr=0.05),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(source: Net, data: ImageSet, strangers: list[nn.Module]) -> dict[str, tuple[nn.Module, Key]]:
    return {name: method.protect(source, data, secret=SECRET, nulls=strangers[:2], rng=generator(0)) for name, method in SMALL.items()}


@pytest.mark.parametrize("name", SMALL)
def test_the_published_model_reaches_alpha_and_strangers_do_not(
    name: str, source: Net, strangers: list[nn.Module], made: dict[str, tuple[nn.Module, Key]]
) -> None:
    method, (model, key) = SMALL[name], made[name]
    own = method.verify(model, key, commitment=OLDER)
    assert own.p_value is not None
    assert own.p_value <= ALPHA
    assert own.decision is Decision.STOLEN
    assert method.verify(model, key).decision is Decision.UNDECIDED
    assert not any(method.verify(net, key, commitment=OLDER).found for net in (source, *strangers))
    assert (own.nulls, own.false_claims) == (2, 0)


@pytest.mark.parametrize("name", SMALL)
def test_forged_keys_are_worth_nothing_without_an_older_date(name: str, source: Net, data: ImageSet) -> None:
    for number in range(3):
        forged = SMALL[name].forge(source, data, secret=bytes([number]) * 32, rng=generator(number))
        undated = dataclasses.replace(OLDER, kind="undated")
        younger = dataclasses.replace(OLDER, seen=None)
        for commitment in (None, undated, younger):
            assert not SMALL[name].verify(source, forged, commitment=commitment).found


@pytest.mark.parametrize("name", ["adi", "frontier", "zhang"])
def test_a_forged_key_with_an_older_date_is_not_what_its_secret_draws(name: str, source: Net, data: ImageSet) -> None:
    forged = SMALL[name].forge(source, data, secret=SECRET, rng=generator(1))
    verdict = SMALL[name].verify(source, forged, commitment=OLDER)
    assert not verdict.found
    assert verdict.caveats[0].startswith("The ") or name == "zhang"


def changed(key: Key, **tensors: torch.Tensor) -> Key:
    return dataclasses.replace(key, tensors={**key.tensors, **tensors})


def test_material_that_suits_every_model_is_not_believed_however_old(
    made: dict[str, tuple[nn.Module, Key]], source: Net, data: ImageSet
) -> None:
    chosen = data.take(slice(30))
    adi, key = SMALL["adi"], made["adi"][1]
    for tensors in (
        {"probes": chosen.pixels, "labels": chosen.labels},  # ordinary images with their true labels
        {"probes": chosen.pixels},
        {"labels": (key.tensors["labels"] + 1) % 3},
        {"probes": key.tensors["probes"].roll(1, 0), "labels": key.tensors["labels"].roll(1, 0)},
        {"seed": key.tensors["seed"] ^ 1},
    ):
        verdict = adi.verify(source, changed(key, **tensors), commitment=OLDER)
        assert verdict.caveats[0].startswith("The pictures and labels in this key are not those that its secret gives")
    bare = dataclasses.replace(key, tensors={name: value for name, value in key.tensors.items() if name != "seed"})
    assert "not those that its secret gives" in adi.verify(made["adi"][0], bare, commitment=OLDER).caveats[0]
    part = adi.opened(key, 0, size=20)
    assert adi.verify(made["adi"][0], part, commitment=OLDER).caveats[0] == PART
    frontier, key = SMALL["frontier"], made["frontier"][1]
    best = (
        (frontier.observe(source, key).tensors["answers"] != key.tensors["pool_labels"])
        .long()
        .argsort(stable=True)[: len(key.tensors["chosen"])]
    )
    verdict = frontier.verify(source, changed(key, chosen=best.sort().values), commitment=OLDER)
    assert verdict.caveats[0].startswith("The keys in this key are not those")
    zhang, key = SMALL["zhang"], made["zhang"][1]
    mine = key.tensors["asked_of"] == key.facts["draws"]["own"]
    asked, labels = key.tensors["asked"].clone(), key.tensors["asked_labels"].clone()
    asked[mine], labels[mine] = data.pixels[: int(mine.sum())], data.labels[: int(mine.sum())]
    for tensors in ({"asked": asked}, {"asked_labels": labels}, {"asked": asked, "asked_labels": labels}, {"probes": data.pixels[:40]}):
        assert "not those that its secret gives" in zhang.verify(source, changed(key, **tensors), commitment=OLDER).caveats[0]
    extra, key = SMALL["additional-class"], made["additional-class"][1]
    turned = changed(key, probes=key.tensors["probes"].flip(2))
    assert "not those that its secret gives" in " ".join(extra.verify(made["additional-class"][0], turned, commitment=OLDER).caveats)


@pytest.mark.parametrize("name", SMALL)
def test_keys_of_earlier_versions_stay_readable_and_decide_nothing(name: str, made: dict[str, tuple[nn.Module, Key]]) -> None:
    method, (model, key) = SMALL[name], made[name]
    settings = {**key.facts["settings"], "alpha": 0.05} | ({"references": 6} if name == "frontier" else {})
    facts = {fact: value for fact, value in key.facts.items() if fact != "draws"} | {"settings": settings}
    tensors = {tensor: value for tensor, value in key.tensors.items() if not tensor.startswith(("asked", "pool", "chosen"))}
    verdict = method.verify(model, dataclasses.replace(key, facts=facts, tensors=tensors), commitment=OLDER)
    assert verdict.decision is Decision.UNDECIDED
    assert OLD in verdict.caveats


def test_thieves_of_the_published_model_tell_how_many_would_be_missed(
    made: dict[str, tuple[nn.Module, Key]], source: Net, strangers: list[nn.Module], data: ImageSet, train_net: Callable[..., Net]
) -> None:
    for name in ("adi", "uchida"):
        method, (model, key) = SMALL[name], made[name]
        caught = with_power(key, [("copy", model)] * 14 + [("extraction", strangers[0])])
        row = caught.facts["draws"]["thieves"]["weights"]
        assert row == {"tried": 15, "missed": 1, "kinds": {"copy": [0, 14], "extraction": [1, 1]}}
        assert set(caught.facts["draws"]["thieves"]) == ({"weights"} if name == "uchida" else {"weights", "probabilities", "label"})
        assert method.verify(source, key).decision is Decision.UNDECIDED
        assert method.verify(source, with_power(key, [("copy", model)] * 14)).decision is Decision.NOT_STOLEN
        assert method.verify(source, with_power(key, [("extraction", strangers[0])] * 14)).decision is Decision.UNDECIDED
    other = train_net("cnn:width=4", data, 1, epochs=0)
    assert with_power(made["uchida"][1], [("distilled", other)]).facts["draws"]["thieves"]["weights"]["missed"] == 1
    with pytest.raises(UsageError, match="sac is no mark"):
        with_power(dataclasses.replace(made["adi"][1], method="sac"), [])


def test_a_key_of_a_smoke_run_decides_nothing(made: dict[str, tuple[nn.Module, Key]]) -> None:
    model, key = made["adi"]
    smoke = dataclasses.replace(key, facts={**key.facts, "draws": {**key.facts["draws"], "smoke": True}})
    assert SMALL["adi"].verify(model, smoke, commitment=OLDER).decision is Decision.UNDECIDED


def told(verdict: Any) -> str:
    return " ".join((*verdict.headlines, *verdict.caveats))


def test_bits_of_a_text_count_for_nothing(source: Net, data: ImageSet, made: dict[str, tuple[nn.Module, Key]]) -> None:
    whole = Uchida(bits=24, text="abc", lam=0.5, epochs=6, batch=32)
    model, key = whole.protect(source, data, secret=SECRET, rng=generator(0))
    verdict = whole.verify(model, key, commitment=OLDER)
    assert verdict.decision is Decision.UNDECIDED
    assert "none was drawn from the secret" in told(verdict)
    model, key = made["uchida"]
    assert "of 24 drawn" in SMALL["uchida"].verify(model, key).statistic_name
    chosen = dataclasses.replace(key, tensors={**key.tensors, "bits": 1 - key.tensors["bits"]})
    assert "are not those that its secret gives" in told(SMALL["uchida"].verify(model, chosen, commitment=OLDER))


def test_marks_are_read_right_through_the_order_of_the_unmarked_source(source: Net, data: ImageSet) -> None:
    for method in (Uchida(bits=24, lam=0.5, epochs=6, batch=32), DeepMarks(users=7, epochs=4, batch=32)):
        model, key = method.protect(source, data, secret=SECRET, rng=generator(0))
        for name, parameter in source.named_parameters():
            assert torch.equal(key.tensors[f"reference/{name}"], parameter.detach())
        assert method.verify(model, key).statistic == 0
        scratch = dataclasses.replace(method, start="scratch")
        model, key = scratch.protect(source, data, secret=SECRET, rng=generator(0))
        assert not any(name.startswith("reference/") for name in key.tensors)
        assert "read as they are" in told(scratch.verify(model, key))


def test_bits_that_do_not_take_are_told(source: Net, data: ImageSet) -> None:
    with pytest.raises(InputError, match="proves nothing; train longer, or raise lam above 1e-06"):
        Uchida(bits=24, lam=1e-6, epochs=1).protect(source, data, secret=SECRET, rng=generator(0))


def test_a_word_on_given_classes_leaves_nothing_to_draw(source: Net, data: ImageSet) -> None:
    method = Zhang(variant="paper", count=10, source=0, target=1)
    key = method.claim(source, data, secret=SECRET, rng=generator(0))
    said = told(method.verify(source, key, commitment=OLDER))
    assert "nothing is drawn that another secret would draw otherwise" in said
    assert "fix the source and target" in said


def test_images_without_their_secret_are_refused(source: Net, data: ImageSet) -> None:
    method = RANKED["zhang"]
    key = method.claim(source, data, secret=SECRET, rng=generator(0))
    for own in (-1, 200, 0.5):
        with pytest.raises(FormatError, match="which of its secrets"):
            method.verify(source, placed(key, own))  # type: ignore[arg-type]
    observed = Observation(Access.LABEL, {"answers": torch.zeros(3, dtype=torch.int64)})
    with pytest.raises(InputError, match="need as many labels"):
        method.judge(observed, key)
