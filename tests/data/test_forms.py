"""What eight bits of grey or RGB cannot hold of an image file."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from modelward.data.forms import Form, form_of


def encoded(mode: str, kind: str = "PNG", **words: Any) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (2, 2)).save(stream, kind, **words)
    return stream.getvalue()


def deep_rgb() -> bytes:
    """Return a PNG of 16 bits a channel, which Pillow opens as RGB and does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(26))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "lost"),
    [
        (encoded("RGBA"), "transparency"),
        (encoded("LA"), "transparency"),
        (encoded("P", transparency=0), "transparency"),
        (encoded("RGB", transparency=(0, 0, 0)), "transparency"),
        (encoded("RGBA", "WEBP", lossless=True), "transparency"),
        (encoded("I;16"), "more than 8 bits a channel"),
        (deep_rgb(), "more than 8 bits a channel"),
        (b"P6 2 1 65535\n" + bytes(12), "more than 8 bits a channel"),
        (b"P5 2 1 1023\n" + bytes(4), "more than 8 bits a channel"),
        (encoded("CMYK", "JPEG"), "CMYK colours"),
        (encoded("RGB", save_all=True, append_images=[Image.new("RGB", (2, 2), "red")]), "several frames"),
    ],
)
def test_what_is_lost_is_named(data: bytes, lost: str) -> None:
    assert form_of(data).lost == lost


@pytest.mark.parametrize(
    ("data", "recoded"),
    [
        (encoded("RGB"), False),
        (encoded("L"), False),
        (encoded("RGB", "JPEG"), False),
        (encoded("RGB", "WEBP"), False),
        (b"P5 2 1 15\n" + bytes(2), False),
        (encoded("P"), True),
        (encoded("1"), True),
        (b"no image", False),
    ],
)
def test_what_keeps_its_colours(data: bytes, recoded: bool) -> None:
    assert form_of(data) == Form("", recoded)
