"""The entropy coder and reversible data hiding: whatever the images and the bits, all of both comes back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelward.core.errors import FormatError, InputError, UsageError
from modelward.marking import rans, rdh

quick = settings(max_examples=30, deadline=None)


@quick
@given(st.integers(0, 2**32), st.integers(1, 17), st.integers(12, 16), st.booleans())
def test_symbols_and_checksums_come_back(seed: int, alphabet: int, width: int, contexts: bool) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 60, 7)
    meant = np.arange(60) < lengths[:, None]
    symbols = np.where(meant, rng.integers(0, alphabet, (7, 60)) // rng.integers(1, alphabet + 1), 0)
    where = np.where(meant, rng.integers(0, 3, (7, 60)), 0) if contexts else None
    checks = rng.integers(0, 2**width, 7)
    code, sizes = rans.encode(symbols, lengths, alphabet, contexts=where, checks=checks, width=width)
    garbage = rng.integers(0, 2, (7, 9)).astype(np.uint8)
    found, ends, used = rans.decode(np.c_[code, garbage], lengths, alphabet, contexts=where, width=width)
    assert np.array_equal(found, symbols[:, : found.shape[1]])
    assert np.array_equal(ends, checks)
    assert np.array_equal(used, sizes)


def test_codes_are_near_the_entropy() -> None:
    rng = np.random.default_rng(0)
    for shares in ((0.5, 0.5), (0.97, 0.03), (0.4, 0.1, 0.1, 0.4)):
        symbols = rng.choice(len(shares), (50, 2000), p=shares)
        _, sizes = rans.encode(symbols, np.full(50, 2000), len(shares))
        entropy = -sum(p * math.log2(p) for p in shares) * 2000
        assert entropy * 0.97 < sizes.mean() < entropy * 1.02 + 16 + 2 * len(shares) * math.log2(2000)


def test_alphabets_and_states_that_cannot_be_are_refused() -> None:
    for alphabet, width in ((0, 16), (5000, 16), (2, 11), (2, 17)):
        with pytest.raises(UsageError):
            rans.encode(np.zeros((1, 1), np.int64), np.ones(1, np.int64), alphabet, width=width)
    with pytest.raises(FormatError, match="too early"):
        rans.decode(np.zeros((1, 4), np.uint8), np.array([500]), 16)


def picture(rng: np.random.Generator, kind: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return images that are smooth, noisy, flat at an end, or black and white."""
    noise = rng.integers(0, 256, shape)
    ramp = np.add.outer(np.arange(shape[2]), np.arange(shape[3])) * 4 + rng.integers(0, 5, shape)
    made = (ramp, noise, np.where(noise > 250, noise, 0), np.where(noise > 127, 255, 0), np.full(shape, 255))[kind]
    return np.clip(made, 0, 255).astype(np.uint8)


@quick
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 13), st.integers(1, 13), st.sampled_from([0, 2, 3, 4]), st.integers(0, 200))
def test_pixels_and_bits_come_back(seed: int, channels: int, height: int, width: int, block: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    pixels = np.concatenate([picture(rng, kind, (1, channels, height, width)) for kind in range(5)])
    lengths = rng.integers(0, most + 1, 5)
    bits = rng.integers(0, 2, (5, most)).astype(np.uint8)
    marked, room = rdh.embed(pixels, bits, lengths, block=block)
    assert np.array_equal(marked[~room.fits], pixels[~room.fits])
    assert (np.abs(marked.astype(int) - pixels).reshape(5, -1).max(1) <= 2 * room.threshold).all()
    found, again = rdh.extract(marked, room, block=block)
    assert np.array_equal(again, pixels)
    for row in np.flatnonzero(room.fits):
        assert found[row, : lengths[row]].tolist() == bits[row, : lengths[row]].tolist()


def test_smooth_images_hold_much_and_noise_holds_little() -> None:
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2, (3, 700)).astype(np.uint8)
    images = np.concatenate([picture(rng, kind, (1, 1, 32, 32)) for kind in (0, 1, 4)])
    _, room = rdh.embed(images, bits, np.full(3, 700))
    assert room.threshold[0] <= 6
    assert room.threshold[1] == 0 or room.threshold[1] >= 16
    assert room.threshold[2] == 1


def test_a_block_keeps_its_prediction_to_itself() -> None:
    rng = np.random.default_rng(2)
    flat = np.full((1, 1, 32, 32), 128, np.uint8)
    steps = (flat + 16 * rng.integers(-1, 2, (1, 1, 8, 8)).repeat(4, 2).repeat(4, 3)).astype(np.uint8)
    bits = rng.integers(0, 2, (1, 600)).astype(np.uint8)
    inside, across = (rdh.embed(steps, bits, np.array([600]), block=block)[1] for block in (4, 0))
    assert inside.threshold[0] == 1
    assert across.threshold[0] > 1 or across.threshold[0] == 0


def test_foreign_rooms_and_arrays_are_refused() -> None:
    flat = np.full((1, 1, 8, 8), 128, np.uint8)
    with pytest.raises(InputError, match="uint8"):
        rdh.embed(flat.astype(np.int16), np.zeros((1, 4), np.uint8), np.array([4]))  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="could hold"):
        rdh.extract(flat, rdh.Room(np.array([1]), np.array([60]), np.array([60])))
    noise = np.random.default_rng(0).integers(0, 256, (1, 1, 8, 8)).astype(np.uint8)
    with pytest.raises(FormatError, match="too early"):
        rdh.extract(noise, rdh.Room(np.array([1]), np.array([32]), np.array([32])))
