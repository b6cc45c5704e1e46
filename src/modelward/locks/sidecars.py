"""Originals that lie beside locked images: compressed and sealed, the pixels or the whole file."""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

from modelward.core.errors import FormatError, InputError
from modelward.core.image_locks import LockedImages
from modelward.io.images import read_image
from modelward.keys.cipher import seal, unseal

FILE, PIXELS = "file", "pixels"


def of_pixels(image: Tensor, index: int, secret: bytes) -> bytes:
    """Return the sidecar of an image (C, H, W), uint8."""
    return seal(secret, zlib.compress(image.contiguous().numpy().tobytes(), 9), PIXELS, str(index))


def with_files(locked: LockedImages, files: Mapping[int, bytes], secret: bytes) -> LockedImages:
    """Return a locked set whose sidecars hold whole files, by position, so that those come back byte for byte."""
    beside = {index: seal(secret, zlib.compress(data, 9), FILE, str(index)) for index, data in files.items()}
    return LockedImages(locked.images, {**locked.sidecars, **beside}, locked.manifest)


def opened(locked: LockedImages, index: int, secret: bytes, *, cap: int) -> tuple[str, bytes]:
    """Return what the sidecar of an image holds, ``"file"`` or ``"pixels"``, and its bytes.

    Raises
    ------
    InputError
        when it is missing.
    FormatError
        when it was changed, or holds more than ``cap`` bytes.
    """
    if index not in locked.sidecars:
        message = f"the sidecar of image {index} is missing: without it the original is lost; bring the set as it was published"
        raise InputError(message)
    for kind in (FILE, PIXELS):
        with contextlib.suppress(FormatError):
            packed = unseal(secret, locked.sidecars[index], kind, str(index))
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(packed, cap)
            if unpacker.unconsumed_tail:
                message = f"the sidecar of image {index} holds more than the {cap:,} bytes that are read"
                raise InputError(message)
            return kind, data
    message = f"the sidecar of image {index} was changed since the set was locked; bring the set as it was published"
    raise FormatError(message)


def pixels_of(locked: LockedImages, index: int, secret: bytes) -> Tensor:
    """Return the original image (C, H, W), uint8, from its sidecar."""
    shape = locked.images.shape
    kind, data = opened(locked, index, secret, cap=2**28)
    if kind == FILE:
        found = torch.from_numpy(read_image(data, name=f"the original of image {index}").copy())
        return found.expand(shape) if found.shape[1:] == torch.Size(shape[1:]) and len(found) == 1 else found
    if len(data) != math.prod(shape):
        message = f"the sidecar of image {index} holds another image"
        raise FormatError(message)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).reshape(shape)
