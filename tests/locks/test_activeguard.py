"""ActiveGuard: who is let in, who is not, and what a file is worth to whoever takes the layer off."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from modelward.audit import write_probes
from modelward.core.commitment import Commitment
from modelward.core.errors import AccessError, InputError, ModelwardError, UsageError
from modelward.core.guard import predict, state_digest
from modelward.core.key import Key
from modelward.core.rng import derive_seed, generator
from modelward.core.verdict import Decision
from modelward.data.study import Study
from modelward.imaging.codecs import roundtrip
from modelward.io.images import read_image
from modelward.keys import read_key, write_key
from modelward.keys.grants import Request
from modelward.keys.registry import Registry
from modelward.locks.activeguard import ActiveGuard
from modelward.locks.control_layer import ANSWERS, ControlLayer, layer_of, stripped
from modelward.locks.credentials import Build
from modelward.locks.enrolment import Desk
from modelward.locks.gate import PURPOSE, Gate, Roster
from modelward.locks.watermark import Watermark
from modelward.locks.windows import inside
from modelward.models import Net, load_model, save_model
from modelward.training import accuracy

SMALL: dict[str, Any] = {"users": 6, "nulls": 32, "steps": 60, "seeds": 32, "bits": 8, "epochs": 1, "share": 0.02, "images": 64}
SECRET = b"owner's secret, 32 bytes of it.."
USERS = {name: name.encode() * 8 for name in ("ann-", "bob-", "eve-")}
Q = 3


@dataclass(frozen=True)
class Bound:
    method: ActiveGuard
    locked: nn.Module
    key: Key
    file: nn.Module
    credentials: dict[str, Key]
    net: nn.Module


@pytest.fixture(scope="module")
def bound(victim: Net, parts: Study) -> Bound:
    method = ActiveGuard(**SMALL)
    locked, key = method.lock(victim, parts.owner, secret=SECRET, rng=generator(0))
    file, credentials = method.enrol(locked, key, USERS, rng=generator(1))
    return Bound(method, locked, key, file, credentials, method.unlock(locked, key))


def changed(credential: Key, **tensors: torch.Tensor) -> Key:
    return dataclasses.replace(credential, tensors={**credential.tensors, **tensors})


# the file that is handed out


def test_every_user_opens_the_file_and_gets_the_owners_logits_bit_for_bit(bound: Bound, parts: Study) -> None:
    whole = predict(bound.net, parts.test.pixels)
    for credential in bound.credentials.values():
        opened = bound.method.unlock(bound.file, credential)
        assert state_digest(opened) == state_digest(bound.net) == bound.key.facts["original"]
        assert torch.equal(predict(opened, parts.test.pixels), whole)


def test_without_the_layer_a_bound_file_is_useless_and_a_layer_file_is_whole(bound: Bound, victim: Net, parts: Study) -> None:
    original, chance = accuracy(bound.net, parts.test), 1 / 3
    assert original > 0.8
    assert accuracy(bound.file, parts.test) < chance + 0.1
    assert accuracy(stripped(bound.file), parts.test) < (original + chance) / 2
    assert bound.method.stripped(bound.file) is stripped(bound.file)
    locked, _ = ActiveGuard(mode="layer", **SMALL).lock(victim, parts.owner, secret=SECRET, rng=generator(0))
    assert accuracy(locked, parts.test) < chance + 0.1
    assert accuracy(stripped(locked), parts.test) > 0.8


def test_file_and_credential_survive_the_disk(bound: Bound, tmp_path: Path) -> None:
    save_model(tmp_path / "file.safetensors", bound.file)
    write_key(tmp_path / "ann.mw", bound.credentials["ann-"])
    again, credential = load_model(tmp_path / "file.safetensors").model, read_key(tmp_path / "ann.mw")
    assert state_digest(bound.method.unlock(again, credential)) == state_digest(bound.net)
    x = torch.rand(5, 3, 8, 8, generator=generator(0))
    assert torch.equal(again(x), bound.file(x))


def test_a_credential_opens_only_whole(bound: Bound) -> None:
    ann, bob = bound.credentials["ann-"], bound.credentials["bob-"]
    pixel = ann.tensor("probes").clone()
    pixel[0, 0, 0, 0] ^= 1
    rows = [list(row) for row in ann.fact(list, "windows")]
    rows[0][1] -= 1.0
    for wrong in (
        changed(ann, probes=pixel),
        changed(ann, probes=bob.tensor("probes")),
        changed(ann, mac=bob.tensor("mac")),
        changed(ann, mac=torch.zeros(32, dtype=torch.uint8)),
    ):
        with pytest.raises(InputError, match="no slot for this credential"):
            bound.method.unlock(bound.file, wrong)
    for facts in ({**ann.facts, "windows": rows}, {**ann.facts, "user": "bob-"}):
        with pytest.raises(InputError, match="does not open its slot"):
            bound.method.unlock(bound.file, dataclasses.replace(ann, facts=facts))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mac": torch.zeros(31, dtype=torch.uint8)}, "31 bytes"), ({"probes": torch.zeros(4, 3, 8, 8)}, "uint8 images"),
        ({"probes": torch.zeros(0, 3, 8, 8, dtype=torch.uint8)}, "uint8 images"),
    ],
)  # fmt: skip
def test_a_credential_of_odd_content_is_refused_in_a_sentence(bound: Bound, change: dict[str, torch.Tensor], words: str) -> None:
    with pytest.raises(InputError, match=words):
        bound.method.unlock(bound.file, changed(bound.credentials["ann-"], **change))


def test_the_opened_network_has_to_know_the_probes(bound: Bound) -> None:
    build = Build.of(bound.locked)
    desk = Desk(bound.key, bound.net, build, None, 4, {"settings": bound.method.settings()})  # type: ignore[arg-type]
    noise = torch.randint(0, 256, (4, 3, 8, 8), generator=generator(3), dtype=torch.uint8)
    made, slots = desk._one("mallory", b"m" * 32, noise, bound.key.tensor("windows")[:4], desk.facts)
    named = dataclasses.replace(made, facts={**made.facts, "user": "mallory"})
    with pytest.raises(InputError, match="does not know these probes"):
        bound.method.unlock(build.with_slots(slots), named)


def test_a_revoked_user_is_refused_by_the_next_file_alone(bound: Bound) -> None:
    ann, bob = bound.credentials["ann-"], bound.credentials["bob-"]
    after = bound.method.revoke(bound.file, ann)
    assert state_digest(after) == state_digest(bound.file)  # slots are no weights: nobody else needs a new key
    with pytest.raises(InputError, match="revoked, or never enrolled"):
        bound.method.unlock(after, ann)
    assert state_digest(bound.method.unlock(after, bob)) == state_digest(bound.net)
    assert state_digest(bound.method.unlock(bound.file, ann)) == state_digest(bound.net)
    with pytest.raises(UsageError, match="no slot of that credential"):
        bound.method.revoke(after, ann)


def test_a_new_user_gets_a_slot_and_nobodys_windows(bound: Bound) -> None:
    file, fresh = bound.method.enrol(bound.file, bound.key, {"zoe-": b"z" * 32}, taken=list(bound.credentials.values()), rng=generator(4))
    for credential in (*bound.credentials.values(), *fresh.values()):
        assert state_digest(bound.method.unlock(file, credential)) == state_digest(bound.net)
    windows = Roster.of({**bound.credentials, **fresh}).windows
    for one in range(4):
        for other in range(one):
            assert int((windows[one] == windows[other]).all(1).sum()) <= 2
    alone = bound.method.issue(bound.file, bound.key, "tim-", secret=b"t" * 32, rng=generator(5))
    assert state_digest(bound.method.unlock(bound.locked, alone)) == state_digest(bound.net)  # it brings its slot along


def test_credentials_of_another_build_open_nothing_and_reissuing_mends_it(bound: Bound, parts: Study) -> None:
    tuned = bound.method.unlock(bound.locked, bound.key)
    with torch.no_grad():
        next(tuned.parameters()).mul_(1.01)
    file, key, credentials = bound.method.reissue(bound.key, tuned, parts.owner, {"ann-": USERS["ann-"]}, rng=generator(6))
    with pytest.raises(InputError, match="another build"):
        bound.method.unlock(file, bound.credentials["ann-"])
    forced = dataclasses.replace(bound.credentials["ann-"], model_digest=key.model_digest)
    with pytest.raises(InputError, match="no slot"):
        bound.method.unlock(file, forced)
    assert state_digest(bound.method.unlock(file, credentials["ann-"])) == key.facts["original"]
    assert torch.equal(key.tensor("secret"), bound.key.tensor("secret"))


# probes and windows


def test_probes_fall_into_their_windows_after_png_and_name_their_user_alone(bound: Bound) -> None:
    roster = Roster.of(bound.credentials)
    for number, (user, credential) in enumerate(bound.credentials.items()):
        logits = predict(bound.net, roundtrip(credential.tensor("probes"), "png"))
        assert bool(inside(logits, roster.windows[number]).all())
        assert roster.identify(logits) == user
        bent = predict(bound.net, (credential.tensor("probes").int() + 25).clamp(0, 255).to(torch.uint8))
        assert roster.identify(bent) is None
    seeds = predict(bound.net, bound.key.tensor("seeds")[:32])  # the images that probes began as are nobody's
    assert not bool(roster.fits(seeds.view(8, 4, -1)).any())


def test_labels_alone_name_the_user_with_a_p(bound: Bound) -> None:
    roster = Roster.of(bound.credentials)
    labels = predict(bound.net, bound.credentials["bob-"].tensor("probes")).argmax(1)
    user, matches, p = roster.by_labels(labels, 0.1)
    assert (matches, p) == (4, pytest.approx(3 * 0.1**4))
    assert user in {"bob-", None}  # three classes: two users may have the same ones


def test_keys_without_images_say_so(bound: Bound, tmp_path: Path) -> None:
    for key in (bound.key, Key("advparams", "hardened", "0" * 64, {}, {})):
        with pytest.raises(UsageError, match="holds no images"):
            write_probes(key, tmp_path / "probes")
    assert not (tmp_path / "probes").exists()


def test_a_users_probes_are_written_as_png_files(bound: Bound, tmp_path: Path) -> None:
    credential = bound.credentials["ann-"]
    assert write_probes(credential, tmp_path / "probes") == 4
    again = torch.stack([torch.from_numpy(read_image(tmp_path / "probes" / f"{number:05d}.png")) for number in range(4)])
    assert torch.equal(again, credential.tensor("probes"))
    assert Roster.of(bound.credentials).identify(predict(bound.net, again)) == "ann-"


# the owner's bits


def test_the_owners_bits_are_there_and_nobody_elses(bound: Bound, victim: Net, parts: Study, train_net: Callable[..., Net]) -> None:
    method = bound.method
    assert method.verify_owner(bound.net, bound.key).statistic == 0
    assert method.verify_owner(bound.file, bound.key).decision is Decision.UNDECIDED
    nulls = [train_net("cnn:width=4", parts.attacker, seed, epochs=0) for seed in range(20)]
    verdict = method.verify_owner(bound.net, bound.key, nulls=nulls)
    mean = sum(method.verify_owner(null, bound.key).statistic for null in nulls) / 20
    assert 0.3 < mean < 0.7
    assert (verdict.nulls, verdict.false_claims) == (20, 0)
    assert verdict.p_value == pytest.approx(2**-8)
    older = Commitment("00" * 32, "publication", "2020-01-01", "a gazette", "2026-01-01")
    for commitment in (None, older):  # eight bits prove nothing at one in a million
        assert method.verify_owner(bound.net, bound.key, commitment=commitment).decision is Decision.UNDECIDED
    assert method.verify_owner(victim, bound.key, nulls=nulls).statistic > 0
    silent = dataclasses.replace(bound.key, facts={**bound.key.facts, "watermark": {}})
    with pytest.raises(InputError, match="without bits"):
        method.verify_owner(bound.net, silent)


def test_bits_enough_are_a_claim_with_an_older_date(victim: Net, parts: Study) -> None:
    mark = Watermark(bits=24)
    net, facts = mark.embed(victim, parts.owner, SECRET, rng=generator(0))
    key = Key("activeguard", "hardened", state_digest(net), {"watermark": facts})
    older = Commitment("00" * 32, "publication", "2020-01-01", "a gazette", "2026-01-01")
    assert mark.verdict(net, key, SECRET, commitment=older).decision is Decision.STOLEN
    assert mark.verdict(net, key, SECRET).decision is Decision.UNDECIDED
    assert mark.verdict(victim, key, SECRET, commitment=older).decision is Decision.UNDECIDED
    accused = [mark.verdict(victim, key, derive_seed(number).to_bytes(8, "big") * 4).p_value or 0 for number in range(1_000)]
    assert sum(p <= 0.05 for p in accused) / 1_000 <= 0.05 + 3 * (0.05 * 0.95 / 1_000) ** 0.5


# the layer


@pytest.mark.parametrize("answers", ANSWERS[:-1])
def test_a_layer_answers_at_chance_and_the_same_twice(answers: str, victim: Net, parts: Study) -> None:
    layer = ControlLayer(answers=answers, seed=7).assemble([victim])
    found = accuracy(layer, parts.test)
    assert abs(found - 1 / 3) < 0.1
    x = parts.test.batch(slice(0, 8))
    assert torch.equal(layer(x), layer(x))
    assert torch.equal(layer(x)[3:], layer(x[3:]))  # an answer hangs on its image, not on its neighbours


def test_a_layer_that_refuses_says_so(victim: Net) -> None:
    with pytest.raises(AccessError, match="bring a credential"):
        ControlLayer(answers="refuse").assemble([victim])(torch.zeros(1, 3, 8, 8))
    with pytest.raises(InputError, match="has no control layer"):
        layer_of(victim)
    with pytest.raises(UsageError, match="answers must be constant"):
        ControlLayer(answers="silence")


# the paper's variant, and the server


def test_the_papers_gate_lets_in_whoever_brings_an_image_in_any_window(victim: Net, parts: Study) -> None:
    method = ActiveGuard(variant="paper", **SMALL)
    locked, key = method.lock(victim, parts.owner, secret=SECRET, rng=generator(0))
    file, credentials = method.enrol(locked, key, USERS, rng=generator(1))
    assert set(locked(parts.test.batch(slice(0, 9))).argmax(1).tolist()) == {0}
    forged = changed(credentials["ann-"], probes=credentials["bob-"].tensor("probes"), mac=torch.zeros(32, dtype=torch.uint8))
    assert accuracy(method.unlock(file, forged), parts.test) > 0.8  # a window is a tag, no credential
    with pytest.raises(InputError, match="from inside a window"):
        method.unlock(file, changed(credentials["ann-"], probes=torch.zeros(1, 3, 8, 8, dtype=torch.uint8)))
    assert credentials["ann-"].tensor("probes").shape[0] == 1


def test_a_server_hands_out_nothing(victim: Net, parts: Study) -> None:
    method = ActiveGuard(mode="server", **SMALL)
    locked, key = method.lock(victim, parts.owner, secret=SECRET, rng=generator(0))
    ann = method.issue(locked, key, "ann-", secret=USERS["ann-"], rng=generator(1))
    with pytest.raises(InputError, match="stays on its owner's server"):
        method.unlock(locked, ann)
    door = method.gate(locked, key, USERS.__getitem__).authenticate(ann)
    x = parts.test.batch(slice(0, 20))
    assert torch.equal(door(x), method.unlock(locked, key)(x))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path / "registry.sqlite", create=True)
    made.issue(
        [Request("ann-", "00" * 32), Request("bob-", "11" * 32), Request("eve-", "22" * 32, "2001-01-01")], purpose=PURPOSE, generation=1
    )
    return made


@pytest.fixture
def gate(bound: Bound, registry: Registry) -> Gate:
    return bound.method.gate(bound.locked, bound.key, USERS.__getitem__, registry=registry, attempts=Q)


def test_the_gate_admits_users_and_answers_as_the_network_does(bound: Bound, gate: Gate, parts: Study) -> None:
    for _ in range(Q + 2):  # success forgives: a user may come as often as he likes
        door = gate.authenticate(bound.credentials["ann-"])
    assert door.user == "ann-"
    x = parts.test.batch(slice(0, 30))
    assert torch.equal(door(x), bound.net(x))


def test_strangers_revoked_and_expired_users_are_refused(bound: Bound, gate: Gate, registry: Registry) -> None:
    with pytest.raises(InputError, match="expired"):
        gate.authenticate(bound.credentials["eve-"])
    stranger = dataclasses.replace(bound.credentials["ann-"], facts={**bound.credentials["ann-"].facts, "user": "mallory"})
    with pytest.raises(InputError, match="no user 'mallory'"):
        gate.authenticate(stranger)
    gate.authenticate(bound.credentials["bob-"])
    registry.revoke("bob-", purpose=PURPOSE)
    with pytest.raises(InputError, match="revoked"):
        gate.authenticate(bound.credentials["bob-"])


def forgeries(bound: Bound) -> dict[str, Key]:
    """What somebody sends who lacks ann's secret, by what it is."""
    ann, bob = bound.credentials["ann-"], bound.credentials["bob-"]
    bent = ann.tensor("probes").clone()
    bent[0, 0, 0, 0] ^= 1
    return {
        "shared: bob's file under ann's name": dataclasses.replace(bob, facts={**bob.facts, "user": "ann-"}),
        "bob's probes in ann's file": changed(ann, probes=bob.tensor("probes")),
        "one bit of one pixel": changed(ann, probes=bent),
        "another MAC": changed(ann, mac=bob.tensor("mac")),
        "another tag": changed(ann, tag=bob.tensor("tag")),
        "another network": dataclasses.replace(ann, model_digest="0" * 64),
        "no windows": dataclasses.replace(ann, facts={name: value for name, value in ann.facts.items() if name != "windows"}),
        "windows of no class": dataclasses.replace(ann, facts={**ann.facts, "windows": [[99, 0.0, 9.0]] * 4}),
        "images of another shape": changed(ann, probes=torch.zeros(4, 1, 3, 3, dtype=torch.uint8)),
        "no MAC": dataclasses.replace(ann, tensors={name: tensor for name, tensor in ann.tensors.items() if name != "mac"}),
    }


def test_forged_and_shared_credentials_are_refused_without_saying_why(bound: Bound, gate: Gate, registry: Registry) -> None:
    for what, forged in forgeries(bound).items():
        with pytest.raises(ModelwardError) as caught:
            gate.authenticate(forged)
        assert str(caught.value) == "this credential is refused", what
        registry.pardon("ann-", PURPOSE)


def test_after_too_many_failures_even_the_right_credential_is_refused_until_the_owner_pardons(
    bound: Bound, gate: Gate, registry: Registry
) -> None:
    forged = forgeries(bound)["another MAC"]
    for _ in range(Q):
        with pytest.raises(InputError, match="is refused"):
            gate.authenticate(forged)
    with pytest.raises(InputError, match="locked out"):
        gate.authenticate(bound.credentials["ann-"])  # a replay of what once came in
    assert gate.authenticate(bound.credentials["bob-"]).user == "bob-"
    registry.pardon("ann-", PURPOSE)
    assert gate.authenticate(bound.credentials["ann-"]).user == "ann-"


def test_guesses_side_by_side_count_as_guesses_one_after_the_other(registry: Registry) -> None:
    others = [registry, *(Registry(registry.path) for _ in range(3))]

    def tries(desk: Registry) -> int:
        let = 0
        for _ in range(5):
            try:
                let += desk.attempt("ann-", PURPOSE, most=10) > 0
            except InputError:
                continue
        return let

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(tries, others)) == 10
