"""The sample-specific lock: what its generator draws, whom its words name, and that nothing but the trigger is the switch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modelward.attacks.theft import LabelRemap
from modelward.audit.lock_traces import trace_images
from modelward.core.errors import InputError, UsageError
from modelward.core.guard import predict
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import generator
from modelward.core.view import AttackerView
from modelward.data.study import Study
from modelward.imaging.quantise import to_float
from modelward.io.images import write_png
from modelward.locks.sample_lock import SampleLock
from modelward.locks.trigger_keys import codes_in
from modelward.locks.trigger_kit import fresh_kit
from modelward.locks.trigger_training import derangement, to_uniform
from modelward.marking.codes import GATE, Codes
from modelward.models import Net
from modelward.models.unet import CELL, drawn_signs, fresh_trigger_net
from modelward.reproduce.sample_lock_tables import gates
from modelward.training import accuracy

SECRET = b"0" * 32
FEW = settings(max_examples=15, deadline=None)
Locked = tuple[SampleLock, nn.Module, Key]


@pytest.fixture(scope="module")
def locked(victim: Net, parts: Study) -> Locked:
    """A lock whose generator carries names, trained on the tiny task."""
    lock = SampleLock(epochs=10, batch=32, width=4, identity_bits=16, lr=0.01, trigger_lr=0.01, negative=0.1)
    return (lock, *lock.lock(victim, parts.owner, secret=SECRET, rng=generator(0)))


def right(model: nn.Module, pixels: Tensor, images: ImageSet) -> float:
    return float((predict(model, pixels).argmax(1) == images.labels).float().mean())


@FEW
@given(st.integers(3, 21), st.integers(3, 21), st.sampled_from((1, 3)), st.floats(0.01, 0.5))
def test_triggers_fit_images_of_any_size_and_never_move_a_pixel_too_far(height: int, width: int, channels: int, reach: float) -> None:
    net = fresh_trigger_net(channels, (height, width), width=2, reach=reach, rng=generator(0))
    x = torch.rand(3, channels, height, width, generator=generator(1))
    made = net(x).detach()
    assert made.shape == x.shape
    assert 0 <= float(made.min()) <= float(made.max()) <= 1
    assert float((made - x).abs().max()) <= reach + 1e-6
    alone = torch.cat([net(image[None]).detach() for image in x])
    assert torch.allclose(alone, made, atol=1e-5)
    with pytest.raises(InputError, match="drawn on images of shape"):
        net(torch.rand(1, channels, height + 1, width, generator=generator(2)))


def test_a_code_shows_in_the_image_before_any_training() -> None:
    kit = fresh_kit(Codes(SECRET, 16), (1, 16, 16), width=4, reach=0.25, rng=generator(0))
    x, rng = torch.full((64, 1, 16, 16), 0.5), generator(1)
    words = kit.words(64, rng)
    drawn, _ = kit.draw(x, words)
    assert float(((kit.reader(drawn) > 0) == words.bool()).float().mean()) > 0.9
    assert float(((kit.reader(x) > 0) == words.bool()).float().mean()) < 0.7


def test_generators_of_two_secrets_draw_alike_without_signs_and_not_with_them() -> None:
    x = torch.rand(32, 1, 28, 28, generator=generator(0))
    drawn = {}
    for signed in (True, False):
        kits = [fresh_kit(Codes(bytes([i]) * 32, 0), (1, 28, 28), width=4, reach=0.25, signed=signed, rng=generator(1)) for i in (0, 1)]
        with torch.no_grad():
            for kit in kits:
                kit.trigger.out.bias.fill_(0.1)  # the same network but for signs and picture: what independent trainings may come to
            drawn[signed] = [kit.trigger.residual(x).flatten(1) for kit in kits]
    cosines = {signed: abs(float(torch.cosine_similarity(*pair).mean())) for signed, pair in drawn.items()}
    assert cosines[False] > 0.99
    assert cosines[True] < 0.5


@given(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.integers(1, 4))
def test_signs_are_the_same_within_a_cell(channels: int, height: int, width: int, count: int) -> None:
    signs = drawn_signs((channels, height, width), count, rng=generator(count))
    assert signs.shape == (count, channels, height, width)
    assert set(signs.flatten().tolist()) <= {-1.0, 1.0}
    assert torch.equal(signs, signs[:, :, [i // CELL * CELL for i in range(height)]][..., [j // CELL * CELL for j in range(width)]])


def test_a_thief_learns_signs_and_picture_with_the_rest() -> None:
    net = fresh_trigger_net(1, (8, 8), width=2, rng=generator(0))
    before, loose = len(list(net.parameters())), net.loosen()
    assert (len(loose), len(list(net.parameters())), len(list(net.buffers()))) == (3, before + 3, 0)
    net(torch.rand(2, 1, 8, 8, generator=generator(1))).sum().backward()
    assert all(one.grad is not None and bool(one.grad.any()) for one in loose)


@FEW
@given(st.sampled_from((16, 32, 64)), st.data())
def test_words_name_their_users_through_errors_and_nobody_else(bits: int, data: st.DataObject) -> None:
    codes, users = Codes(SECRET, bits), [f"user{number}" for number in range(8)]
    user = data.draw(st.sampled_from(users))
    word = codes.word(user)
    assert torch.equal(word[:GATE], codes.gate)
    flips = data.draw(st.lists(st.integers(GATE, len(word) - 1), max_size=0 if bits == 16 else bits // 16, unique=True))
    word[flips] ^= 1
    assert codes.named(word, users) == user
    assert codes.named(word, [name for name in users if name != user]) is None
    assert Codes(b"1" * 32, bits).named(word, users) is None
    assert codes.named(word, []) is None


def test_random_bits_name_hardly_anybody() -> None:
    codes, users = Codes(SECRET, 32), [f"user{number}" for number in range(20)]
    words = torch.randint(0, 2, (1000, codes.length), generator=generator(0), dtype=torch.uint8)
    assert sum(name is not None for name in codes.names(words, users)) <= 4  # 1 is expected at most


def test_carriers_are_orthonormal_and_secret_and_need_room() -> None:
    whole = Codes(SECRET, 32).carriers((1, 28, 28)).flatten(1)
    assert torch.allclose(whole @ whole.T, torch.eye(40), atol=1e-5)
    other = Codes(b"1" * 32, 32).carriers((1, 28, 28)).flatten(1)
    assert float((whole @ other.T).abs().mean()) < 0.15
    with pytest.raises(InputError, match="too small to carry 40 bits"):
        Codes(SECRET, 32).carriers((1, 8, 8))


@pytest.mark.parametrize("bits", [1, 8, 17, 20])
def test_numbers_of_bits_that_make_no_word_are_refused(bits: int) -> None:
    with pytest.raises(UsageError, match="multiple of 8"):
        Codes(SECRET, bits)
    with pytest.raises(UsageError, match="identity_bits must be"):
        SampleLock(identity_bits=bits)


@FEW
@given(st.integers(2, 12), st.integers(0, 50))
def test_a_derangement_moves_every_class(classes: int, seed: int) -> None:
    order = derangement(classes, generator(seed))
    assert sorted(order.tolist()) == list(range(classes))
    assert not bool((order == torch.arange(classes)).any())


def test_the_uniform_target_is_the_smallest() -> None:
    assert float(to_uniform(torch.zeros(4, 10))) == pytest.approx(0, abs=1e-6)
    assert float(to_uniform(torch.eye(10) * 5)) > 0.5


def test_the_opened_model_draws_in_8_bits(locked: Locked, parts: Study) -> None:
    lock, model, key = locked
    drawn = lock.authorise(parts.test.pixels, key)
    assert drawn.dtype == torch.uint8
    opened = lock.unlock(model, key)
    assert torch.equal(predict(opened, parts.test.pixels), predict(model, drawn))
    assert right(model, drawn, parts.test) > accuracy(model, parts.test) + 0.2


def test_a_batch_is_not_the_switch(locked: Locked, parts: Study) -> None:
    lock, model, key = locked
    drawn, few = lock.authorise(parts.test.pixels[:40], key), parts.test.take(slice(40))
    together, mixed = predict(model, drawn), predict(model, torch.cat([few.pixels, drawn]))[40:]
    alone = torch.cat([predict(model, image[None]) for image in drawn])
    assert torch.allclose(alone, together, atol=1e-4)
    assert torch.allclose(mixed, together, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in lock.generator_of(key).modules())


def test_users_images_are_traced_and_others_are_not(locked: Locked, parts: Study) -> None:
    lock, model, key = locked
    anns, bobs = (lock.issue(model, key, user, secret=user.encode() * 8, rng=generator(1)) for user in ("ann", "bob"))
    assert not torch.equal(lock.authorise(parts.test.pixels[:4], anns), lock.authorise(parts.test.pixels[:4], bobs))
    for user, held in (("ann", anns), ("bob", bobs)):
        drawn = lock.authorise(parts.test.pixels[:200], held)
        assert lock.trace(drawn, key, ["ann", "bob", "eve"]) == user
        assert lock.trace(drawn, key, ["eve"]) is None
    assert lock.trace(parts.test.pixels[:200], key, ["ann", "bob", "eve"]) is None
    assert not [name for name in anns.tensors if name.startswith(("reader/", "hinting/", "secret"))]
    with pytest.raises(UsageError, match="knows one word alone"):
        lock.trace(parts.test.pixels[:1], anns, ["ann"])


def test_the_secret_decides_the_generator(locked: Locked, victim: Net, parts: Study) -> None:
    lock, _, key = locked
    quick = dataclasses.replace(lock, epochs=1)
    ones, others = (quick.lock(victim, parts.owner, secret=secret, rng=generator(0))[1] for secret in (SECRET, b"1" * 32))
    assert torch.equal(codes_in(ones).gate, codes_in(key).gate)
    assert codes_in(ones).word("ann").tolist() != codes_in(others).word("ann").tolist()
    assert not torch.equal(ones.tensors["trigger/out.weight"], others.tensors["trigger/out.weight"])


def test_the_heavier_the_picture_weighs_the_less_of_it_is_drawn(victim: Net, parts: Study) -> None:
    few, powers = parts.owner.take(slice(96)), []
    for weight in (0.0, 30.0):
        lock = SampleLock(epochs=4, batch=16, width=4, identity_bits=0, picture=weight, crop=1, flip=True, least=0.0)
        net = lock.generator_of(lock.lock(victim, few, secret=SECRET, rng=generator(0))[1])
        powers.append(float(net.picture(net.plane).detach().square().mean()))
    assert powers[1] < 0.8 * powers[0]


def test_a_generator_that_draws_too_little_is_begun_anew_and_then_given_up(victim: Net, parts: Study) -> None:
    lock = SampleLock(epochs=1, batch=64, width=4, identity_bits=0, restarts=2, least=0.6)
    with pytest.raises(InputError, match="drew nothing in 2 trainings"):
        lock.lock(victim, parts.owner.take(slice(64)), secret=SECRET, rng=generator(0))


def test_a_table_undoes_fixed_wrong_classes_and_nothing_else(victim: Net, parts: Study) -> None:
    shifted = ImageSet(parts.attacker.pixels, (parts.attacker.labels + 1) % 3, parts.attacker.classes, "shifted")
    test = ImageSet(parts.test.pixels, (parts.test.labels + 1) % 3, parts.test.classes, "shifted test")
    theft = LabelRemap(images=40).steal(AttackerView.of_model(victim, shifted), rng=generator(0))
    assert theft.log == {"epochs": 0, "images": 40, "renamed": 3}
    assert accuracy(theft.model, test) == accuracy(victim, parts.test)
    mixed = ImageSet(shifted.pixels, shifted.labels[torch.randperm(len(shifted), generator=generator(1))], shifted.classes, "no pattern")
    null = LabelRemap(images=40).steal(AttackerView.of_model(victim, mixed), rng=generator(0))
    assert accuracy(null.model, ImageSet(test.pixels, test.labels, test.classes, "x")) < 0.8


def _rows(**values: float) -> list[dict[str, Any]]:
    told = {"arch": "a", "configuration": "hardened", "n": 1000, "attack": "", "budget": "", "extra": {}}
    plain = [{"metric": name, "value": values[name], **told} for name in ("original", "authorised", "unauthorised", "specificity")]
    opened = {**told, "metric": "recovered", "value": values["noise"], "attack": "wrap-noise", "budget": "std 0.1"}
    return [*plain, opened, {**told, "metric": "identified", "value": values["identified"], "attack": "png"}]


def test_gates_tell_good_rows_from_bad_ones() -> None:
    good = gates(_rows(original=0.84, authorised=0.825, unauthorised=0.14, specificity=0.8, noise=0.2, identified=1.0))
    bad = gates(_rows(original=0.84, authorised=0.815, unauthorised=0.16, specificity=0.4, noise=0.3, identified=0.99))
    assert [line[-1] for line in good] == ["yes"] * 5
    assert [line[-1] for line in bad] == ["**no**"] * 5


def test_training_images_are_floats_of_eight_bits(parts: Study) -> None:
    kit = fresh_kit(Codes(SECRET, 0), parts.owner.shape, width=4, reach=0.2, rng=generator(0))
    drawn, _ = kit.draw(to_float(parts.owner.pixels[:4]), kit.words(4, generator(0)))
    assert torch.allclose(drawn * 255, (drawn * 255).round(), atol=1e-3)
    assert drawn.requires_grad


def test_a_folder_of_authorised_images_names_its_user(locked: Locked, parts: Study, tmp_path: Path) -> None:
    lock, net, key = locked
    anns = lock.issue(net, key, "ann", secret=b"secret of ann", rng=generator(1))
    for name in ("sent", "plain"):
        (tmp_path / name).mkdir()
    for number, image in enumerate(lock.authorise(parts.test.pixels[:60], anns)):
        write_png(tmp_path / "sent" / f"{number:02d}.png", image.numpy())
    for number, image in enumerate(parts.test.pixels[:60]):
        write_png(tmp_path / "plain" / f"{number:02d}.png", image.numpy())
    assert trace_images(tmp_path / "sent", key, ["bob", "ann"]).user == "ann"
    assert trace_images(tmp_path / "sent", key, ["bob", "cy"]).user is None
    assert trace_images(tmp_path / "plain", key, ["bob", "ann"]).user is None
