"""What a mark carries: its payload read back after key, model and key images were written to files and read again."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

from modelward.core.key import Key
from modelward.core.ownership import OwnershipMethod
from modelward.core.suspect import Suspect
from modelward.evaluation.rows import Row, rate
from modelward.io.images import png_bytes, read_image
from modelward.keys.files import read_key, write_key
from modelward.marking.payload import LENGTH
from modelward.models.assembly import pack, unpack
from modelward.ownership.additional_class import AdditionalClass
from modelward.ownership.deepmarks import DeepMarks
from modelward.ownership.issuing import OWNER, carrier_of, keys_of
from modelward.ownership.passport import Passport
from modelward.ownership.uchida import Uchida


def capacity(method: OwnershipMethod, model: nn.Module, key: Key) -> list[Row]:
    """Return the bits that came back right, null where the mark carries none; of payloads in images, how many could not be read as well."""
    with tempfile.TemporaryDirectory() as folder:
        write_key(Path(folder) / "key.mw", key)
        stored = read_key(Path(folder) / "key.mw")
    if isinstance(method, AdditionalClass):
        return _in_images(method, stored)
    bits = _in_weights(method, unpack(*pack(model)), stored)
    if bits is None:
        return [Row(metric="capacity_bits", value=float("nan"), n=0, unit="bits", extra={"payload": 0})]
    right, written = bits
    return [Row(metric="capacity_bits", value=float(right), n=1, unit="bits", extra={"payload": written})]


def _in_weights(method: OwnershipMethod, model: nn.Module, key: Key) -> tuple[int, int] | None:
    """Return how many bits are read rightly from weights, and how many were written; ``None`` for a mark that writes none."""
    if not isinstance(method, DeepMarks | Passport | Uchida):
        return None
    written = key.tensor("bits").bool()
    if isinstance(method, Uchida):  # its statistic is the share of wrong bits
        return len(written) - round(method.verify(Suspect.of_model(model), key).statistic * len(written)), len(written)
    found = (
        method.trace(model, key).code
        if isinstance(method, DeepMarks)
        else method.observe(Suspect.of_model(model), key).tensors["scales"] > 0
    )
    return int((written == found.bool()).sum()), len(written)


def _in_images(method: AdditionalClass, key: Key) -> list[Row]:
    """Return what is read from the key images as PNG files: the bits of one payload where all can be read, and how many cannot."""
    enrolled = method.enrolled(key)
    images = [torch.from_numpy(read_image(png_bytes(image.numpy())).copy()) for image in keys_of(key)]
    readings = [method.read(image, key) for image in images]
    whose = enrolled.user or OWNER
    lost = sum(found.user != whose or found.index not in {None, number} for number, found in enumerate(readings))
    bits = 8 * LENGTH if enrolled.payload == "bits" else carrier_of(key, enrolled.payload, enrolled.codec).count
    extra = {"payload": bits, "images": len(images), "unread": lost}
    return [
        Row(metric="capacity_bits", value=0.0 if lost else float(bits), n=len(images), unit="bits", extra=extra),
        rate("payload_errors", lost, len(images)),
    ]
