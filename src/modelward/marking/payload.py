"""What a key image says of its user: a name's tag, a number, a MAC and a checksum, or a picture; written into pixels in a secret order."""

from __future__ import annotations

import functools
import hashlib
import hmac
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelward.core.canonical import canonical_json
from modelward.core.errors import InputError, UsageError
from modelward.imaging.abstract import abstract_images
from modelward.keys.derive import derive, stream
from modelward.marking import lsb, qim
from modelward.marking.codewords import Codeword

KINDS, CODECS = ("bits", "image"), ("lsb", "lsb-ecc", "qim")
TAG, MAC, LENGTH = 4, 8, 18
SAME_PICTURE, LEAST_SIDE = 0.1, 8
GONE = "the payload is gone: {:.0%} of its bits are wrong, where chance gives 50 %; "
WHY = {
    "lsb": "the lowest bit of a pixel does not live through JPEG, resizing or noise, so keep and send key images as PNG",
    "qim": "the image was changed more than JPEG of quality 50 does, so send it as PNG",
}


@dataclass(frozen=True)
class Reading:
    """What was read from one image: the user it was issued to and its number, or ``None`` and the reason in words."""

    user: str | None
    index: int | None = None
    reason: str = ""


@dataclass(frozen=True, repr=False)
class Payload:
    """Write to images whom they were issued to, and read it again.

    It proves who was ISSUED an image, not who leaked a model: a network does not depend on these bits.

    Parameters
    ----------
    secret
        orders the pixels and keys the MAC.
    shape
        (C, H, W) of the images.
    kind
        ``"bits"``: 4 bytes of the user's name hashed, 2 of the image's number, 8 of HMAC-SHA256 over name, number and, for the lowest bits, the
        other seven of every pixel, 4 of CRC-32. ``"image"``: a picture that secret and user give, as the paper embeds one; it is bound to no image.
    codec
        ``"lsb"``, the lowest bits as in the paper; ``"lsb-ecc"``, with Reed-Solomon parity and repetition; ``"qim"``, in DCT coefficients with
        the same, for channels that are JPEG.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> images = abstract_images(2, (1, 28, 28), rng=generator(0))
    >>> payload = Payload(b"0" * 32, (1, 28, 28))
    >>> written = payload.write(images, ["ann", "bob"], [0, 1])
    >>> payload.read(written, ["ann", "bob"])
    [Reading(user='ann', index=0, reason=''), Reading(user='bob', index=1, reason='')]
    >>> payload.read(written[:1], ["bob"])[0].user is None
    True
    """

    secret: bytes
    shape: tuple[int, int, int]
    kind: str = "bits"
    codec: str = "lsb-ecc"

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.codec not in CODECS:
            message = f"a payload is {' or '.join(KINDS)} in {', '.join(CODECS)}, not {self.kind!r} in {self.codec!r}"
            raise UsageError(message)
        if self.kind == "image" and self.side < LEAST_SIDE:
            message = f"a picture of {self.side}x{self.side} bits tells nobody from another; use larger images or payload='bits'"
            raise InputError(message)

    @property
    def _channel(self) -> str:
        return "qim" if self.codec == "qim" else "lsb"

    @functools.cached_property
    def _order(self) -> Tensor:
        secret = derive(self.secret, "order")
        return qim.bit_order(secret, self.shape) if self.codec == "qim" else lsb.pixel_order(secret, self.shape)

    @functools.cached_property
    def _plan(self) -> Codeword:
        return Codeword.fitting(LENGTH, len(self._order), mended=self.codec != "lsb")

    @property
    def side(self) -> int:
        """Side of the picture that is written where ``kind="image"``."""
        return min(*self.shape[1:], math.isqrt(len(self._order)))

    @property
    def count(self) -> int:
        """Number of bits that are written to an image."""
        return self.side**2 if self.kind == "image" else self._plan.bits

    def picture(self, user: str) -> Tensor:
        """Return a user's picture as bits (side, side), uint8: a random field in black and white, half of it white."""
        field = abstract_images(1, (1, self.side, self.side), rng=stream(self.secret, "picture", user))[0, 0].float()
        return (field > field.median()).to(torch.uint8)

    def write(self, pixels: Tensor, users: Sequence[str], indices: Sequence[int]) -> Tensor:
        """Return images (N, C, H, W), uint8, that carry a user and a number below 65,536 each."""
        if not len(pixels) == len(users) == len(indices) or not all(0 <= index < 2**16 for index in indices):
            message = f"{len(pixels)} images need as many users and numbers in 0..65535, got {len(users)} and {len(indices)}"
            raise InputError(message)
        if not len(pixels):
            return pixels
        bits = torch.stack([self.bits(image, user, index) for image, user, index in zip(pixels, users, indices, strict=True)])
        return qim.embed_bits(pixels, bits, self._order) if self.codec == "qim" else lsb.embed_bits(pixels, bits, self._order)

    def bits(self, image: Tensor, user: str, index: int) -> Tensor:
        """Return the bits (B,), uint8, that are written to one image (C, H, W)."""
        return self.picture(user).flatten() if self.kind == "image" else self._plan.encode(self._message(image, user, index))

    def extract(self, pixels: Tensor) -> Tensor:
        """Return the bits (N, B), uint8, that images hold."""
        extract = qim.extract_bits if self.codec == "qim" else lsb.extract_bits
        return extract(pixels, self.count, self._order)

    def read(self, pixels: Tensor, users: Sequence[str]) -> list[Reading]:
        """Return whom of ``users`` each image (N, C, H, W), uint8, was issued to."""
        found = self.extract(pixels)
        if self.kind == "image":
            pictures = {user: self.picture(user).flatten() for user in users}
            return [self._pictured(bits, pictures) for bits in found]
        return [self._spelt(image, bits, users) for image, bits in zip(pixels, found, strict=True)]

    def _pictured(self, bits: Tensor, pictures: dict[str, Tensor]) -> Reading:
        """Return the user whose picture is nearest, if it is near."""
        errors = {user: float((bits != picture).float().mean()) for user, picture in pictures.items()}
        user = min(errors, key=errors.__getitem__, default=None)
        if user is None or errors[user] > SAME_PICTURE:
            return Reading(None, reason=f"it holds the picture of nobody who is known ({len(pictures)} tried)")
        return Reading(user)

    def _spelt(self, image: Tensor, bits: Tensor, users: Sequence[str]) -> Reading:
        """Return the user whose name, number and MAC are in the bits."""
        message = self._plan.decode(bits)
        if message is None or zlib.crc32(message[:-4]) != int.from_bytes(message[-4:]):
            return Reading(None, reason=f"no payload can be read; {WHY[self._channel]}")
        index = int.from_bytes(message[TAG : TAG + 2])
        named = [user for user in users if _tag(user) == message[:TAG]]
        for user in named:
            if hmac.compare_digest(self._message(image, user, index), message):
                return Reading(user, index)
        if named:
            return Reading(None, index, f"it names {named[0]}, but its MAC belongs to another image or user: it was forged")
        return Reading(None, index, "it names nobody who is known")

    def _message(self, image: Tensor, user: str, index: int) -> bytes:
        """Return what is written for a user to an image (C, H, W): tag, number, MAC, CRC."""
        content = b"" if self.codec == "qim" else hashlib.sha256((image >> 1).contiguous().numpy().tobytes()).digest()
        said = canonical_json([user, index]) + content
        code = hmac.digest(derive(self.secret, "payload MAC"), said, "sha256")[:MAC]
        head = _tag(user) + index.to_bytes(2) + code
        return head + zlib.crc32(head).to_bytes(4)


def _tag(user: str) -> bytes:
    """Return four bytes that stand for a user's name."""
    return hashlib.sha256(user.encode()).digest()[:TAG]


def state_of(payload: Payload, pixels: Tensor, written: Tensor) -> str:
    """Return in words what became of payloads ``written`` (N, B) to images: how many bits are wrong, and why; empty when none is.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> from modelward.imaging.codecs import roundtrip
    >>> payload, images = Payload(b"0" * 32, (1, 28, 28)), abstract_images(4, (1, 28, 28), rng=generator(0))
    >>> issued = payload.write(images, ["ann"] * 4, range(4))
    >>> state_of(payload, issued, payload.extract(issued))
    ''
    >>> state_of(payload, roundtrip(issued, "jpeg", 90), payload.extract(issued))[:45]
    'the payload died in 4 of 4 key images: the pa'
    """
    wrong = (payload.extract(pixels) != written).float().mean(1)
    dead = int((wrong > SAME_PICTURE).sum())
    if not dead:
        return ""
    return f"the payload died in {dead} of {len(pixels)} key images: {GONE.format(float(wrong.mean()))}{WHY[payload._channel]}"  # noqa: SLF001
