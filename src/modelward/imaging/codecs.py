"""Real encoders: JPEG, JPEG 2000, WebP, AVIF and PNG round trips of 8-bit images through their bytes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from modelward.core.errors import InputError, UsageError

# quality of the five severities of JPEG compression in ImageNet-C (Hendrycks and Dietterich 2019)
JPEG_SEVERITY = (25, 18, 15, 10, 7)
CODECS = ("jpeg", "jpeg2000", "webp", "avif", "png")


def _options(codec: str, quality: int) -> dict[str, Any]:
    """Return Pillow's format name and options for one codec and a quality from 1 to 100."""
    if codec not in CODECS or not 1 <= quality <= 100:
        message = f"codec is {', '.join(CODECS)} and quality lies in 1..100, got {codec!r} and {quality}"
        raise UsageError(message)
    if codec == "jpeg2000":  # its own scale: peak signal to noise in dB, from 21 to 60
        return {"format": "JPEG2000", "quality_mode": "dB", "quality_layers": [20 + 0.4 * quality], "irreversible": True}
    return {"format": "PNG"} if codec == "png" else {"format": codec.upper(), "quality": quality}


def encode(pixels: NDArray[np.uint8], codec: str = "jpeg", quality: int = 75) -> bytes:
    """Return one image uint8 (C, H, W), one or three channels, as encoded bytes."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[0] not in {1, 3}:
        message = f"codecs take uint8 images (C, H, W) with 1 or 3 channels, got {pixels.dtype} {pixels.shape}"
        raise InputError(message)
    flat = pixels[0] if pixels.shape[0] == 1 else pixels.transpose(1, 2, 0)
    image, stream = Image.fromarray(np.ascontiguousarray(flat)), io.BytesIO()
    image.save(stream, **_options(codec, quality))
    return stream.getvalue()


def decode(data: bytes, channels: int) -> NDArray[np.uint8]:
    """Return encoded bytes of our own making as uint8 (C, H, W)."""
    with Image.open(io.BytesIO(data)) as image:
        array = np.asarray(image.convert("L" if channels == 1 else "RGB"), dtype=np.uint8)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def roundtrip(pixels: Tensor, codec: str = "jpeg", quality: int = 75) -> Tensor:
    """Return uint8 images (N, C, H, W) after encoding and decoding each.

    Examples
    --------
    >>> import torch
    >>> images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    >>> bool((roundtrip(images, "png") == images).all())
    True
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4:
        message = f"codecs take uint8 images (N, C, H, W), got {pixels.dtype} {tuple(pixels.shape)}"
        raise InputError(message)
    _options(codec, quality)
    images = pixels.numpy()
    out = np.empty_like(images)
    for index, image in enumerate(images):
        out[index] = decode(encode(image, codec, quality), image.shape[0])
    return torch.from_numpy(out)
