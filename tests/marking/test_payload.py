"""Bits in images: what is written is read again, and nothing else is believed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from modelward.core.errors import InputError, UsageError
from modelward.core.rng import generator
from modelward.imaging.abstract import abstract_images
from modelward.imaging.codecs import roundtrip
from modelward.marking import lsb, qim
from modelward.marking.codewords import Codeword
from modelward.marking.payload import Payload, state_of

SECRET = b"7" * 32
SHAPES = st.tuples(st.sampled_from([1, 3]), st.integers(8, 20), st.integers(8, 20))
NAMES = st.text(min_size=1, max_size=40)


def images(count: int, shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, *shape), generator=generator(seed), dtype=torch.uint8)


def bits(count: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(0, 2, (count, length), generator=generator(seed), dtype=torch.uint8)


@settings(deadline=None, max_examples=40)
@given(shape=SHAPES, share=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_lowest_bits_come_back_and_pixels_move_by_one_at_most(shape: tuple[int, int, int], share: float, seed: int) -> None:
    order = lsb.pixel_order(seed.to_bytes(8) * 2, shape)
    assert sorted(order.tolist()) == list(range(len(order)))
    x = images(3, shape, seed)
    message = bits(3, round(share * len(order)), seed)
    made = lsb.embed_bits(x, message, order)
    assert torch.equal(lsb.extract_bits(made, message.shape[1], order), message)
    assert int((made.int() - x.int()).abs().max()) <= 1
    assert torch.equal(made >> 1, x >> 1)
    untouched = torch.ones(len(order), dtype=torch.bool)
    untouched[order[: message.shape[1]]] = False
    assert torch.equal(made.flatten(1)[:, untouched], x.flatten(1)[:, untouched])


def test_another_order_reads_coin_flips() -> None:
    shape = (3, 32, 32)
    message = bits(1, 2000)
    made = lsb.embed_bits(images(1, shape), message, lsb.pixel_order(SECRET, shape))
    wrong = (lsb.extract_bits(made, 2000, lsb.pixel_order(b"8" * 32, shape)) != message).double().mean()
    assert 0.4 < wrong < 0.6


@settings(deadline=None, max_examples=25)
@given(shape=st.tuples(st.sampled_from([1, 3]), st.integers(16, 40), st.integers(16, 40)), seed=st.integers(0, 2**32))
def test_bits_in_the_dct_live_through_jpeg(shape: tuple[int, int, int], seed: int) -> None:
    order = qim.bit_order(SECRET, shape)
    assert len(order) == qim.capacity(shape)
    message = bits(2, len(order), seed)
    made = qim.embed_bits(abstract_images(2, shape, rng=generator(seed)), message, order)
    for quality, most in ((100, 0.0), (75, 0.03), (50, 0.1)):
        assert (qim.extract_bits(roundtrip(made, "jpeg", quality), len(order), order) != message).double().mean() <= most


@settings(deadline=None, max_examples=60)
@given(length=st.integers(1, 30), capacity=st.integers(8, 4000), seed=st.integers(0, 2**32))
def test_a_codeword_mends_what_it_promises(length: int, capacity: int, seed: int) -> None:
    if 8 * length > capacity:
        with pytest.raises(InputError, match="does not fit"):
            Codeword.fitting(length, capacity)
        return
    plan = Codeword.fitting(length, capacity)
    assert plan.bits <= capacity
    assert plan.copies % 2 == 1
    rng = generator(seed)
    message = bytes(torch.randint(0, 256, (length,), generator=rng).tolist())
    written = plan.encode(message)
    assert plan.decode(written) == message
    copies = written.view(plan.copies, -1)
    hurt = torch.randperm(plan.copies, generator=rng)[: plan.copies // 2]
    copies[hurt] ^= 1  # all but half of the copies, whole
    words = torch.randperm(length + plan.parity, generator=rng)[: plan.parity // 2]
    for word in words.tolist():
        copies[:, 8 * word : 8 * word + 8] ^= 1  # and as many bytes of every copy as the parity mends
    assert plan.decode(written) == message


@settings(deadline=None, max_examples=25)
@given(
    user=NAMES, other=NAMES, index=st.integers(0, 2**16 - 1), seed=st.integers(0, 2**32), codec=st.sampled_from(["lsb", "lsb-ecc", "qim"])
)
def test_a_payload_names_its_user_and_nobody_else(user: str, other: str, index: int, seed: int, codec: str) -> None:
    payload = Payload(SECRET, (1, 24, 24), codec=codec)
    issued = roundtrip(payload.write(abstract_images(1, (1, 24, 24), rng=generator(seed)), [user], [index]), "png")
    found = payload.read(issued, [other, user])[0]
    assert (found.user, found.index) == (user, index)
    if other != user:
        assert payload.read(issued, [other])[0].user is None
    assert Payload(b"8" * 32, (1, 24, 24), codec=codec).read(issued, [user])[0].user is None


@pytest.mark.parametrize("place", range(0, 576, 64))
def test_a_bent_pixel_or_another_image_breaks_the_mac(place: int) -> None:
    payload = Payload(SECRET, (1, 24, 24))
    plain = abstract_images(2, (1, 24, 24), rng=generator(0))
    issued = payload.write(plain, ["ann", "bob"], [0, 1])
    bent = issued.clone()
    bent[0].view(-1)[place] ^= 2
    moved = lsb.embed_bits(plain[:1], payload.extract(issued[1:]), payload._order)  # bob's bits in ann's image
    for image in (bent[:1], moved):
        found = payload.read(image, ["ann", "bob"])[0]
        assert found.user is None
        assert "forged" in found.reason


def test_every_bit_of_a_bare_payload_counts_and_parity_mends_a_few() -> None:
    plain = abstract_images(1, (1, 24, 24), rng=generator(0))
    bare, mended = Payload(SECRET, (1, 24, 24), codec="lsb"), Payload(SECRET, (1, 24, 24))
    for payload, read in ((bare, None), (mended, "ann")):
        issued = payload.write(plain, ["ann"], [3])
        for bit in range(0, payload.count, 7):
            flipped = issued.clone()
            flipped[0].view(-1)[payload._order[bit]] ^= 1
            assert payload.read(flipped, ["ann"])[0].user == read


def test_pictures_tell_a_hundred_users_apart_and_strangers_from_all() -> None:
    payload = Payload(SECRET, (1, 24, 24), kind="image")
    users = [f"user {number}" for number in range(100)]
    issued = payload.write(images(100, (1, 24, 24)), users, range(100))
    assert [reading.user for reading in payload.read(issued, users)] == users
    assert payload.read(issued[:1], users[1:])[0].user is None
    assert {reading.user for reading in payload.read(images(50, (1, 24, 24), 5), users)} == {None}


def test_jpeg_kills_the_lowest_bits_and_it_is_said_why() -> None:
    payload = Payload(SECRET, (1, 24, 24))
    issued = payload.write(abstract_images(6, (1, 24, 24), rng=generator(0)), ["ann"] * 6, range(6))
    written = payload.extract(issued)
    assert state_of(payload, roundtrip(issued, "png"), written) == ""
    lossy = roundtrip(issued, "jpeg", 90)
    said = state_of(payload, lossy, written)
    assert said.startswith("the payload died in 6 of 6 key images")
    assert "JPEG" in said
    assert "PNG" in said
    reading = payload.read(lossy, ["ann"])[0]
    assert reading.user is None
    assert "no payload can be read" in reading.reason


def test_what_does_not_fit_is_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="144 bits does not fit an image that holds 64"):
        Payload(SECRET, (1, 8, 8)).write(images(1, (1, 8, 8)), ["ann"], [0])
    with pytest.raises(InputError, match="picture of 5x5 bits"):
        Payload(SECRET, (3, 5, 5), kind="image")
    with pytest.raises(UsageError, match="a payload is bits or image"):
        Payload(SECRET, (1, 24, 24), codec="dct")
    with pytest.raises(InputError, match=r"0\.\.65535"):
        Payload(SECRET, (1, 24, 24)).write(images(1, (1, 24, 24)), ["ann"], [2**16])
    with pytest.raises(InputError, match="bits do not fit"):
        lsb.embed_bits(images(1, (1, 2, 2)), bits(1, 5), torch.arange(4))
    with pytest.raises(InputError, match="uint8 images"):
        lsb.extract_bits(images(1, (1, 2, 2)).float(), 2, torch.arange(4))
    with pytest.raises(InputError, match="28 coefficients"):
        qim.embed_bits(images(1, (1, 8, 8)), bits(1, 29), qim.bit_order(SECRET, (1, 8, 8)))
    with pytest.raises(InputError, match="18 bytes"):
        Codeword(18).encode(b"short")


def test_the_secret_is_not_shown() -> None:
    assert "7777" not in repr(Payload(SECRET, (1, 24, 24)))
