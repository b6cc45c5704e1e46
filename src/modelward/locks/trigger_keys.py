"""What stands in a sample-specific lock's keys: the owner's makes and reads every word, a user's draws one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from modelward.core.errors import FormatError, InputError, UsageError
from modelward.core.guard import state_digest
from modelward.core.key import REMEDY, Key
from modelward.core.locking import TAG
from modelward.core.rng import generator
from modelward.locks.trigger_kit import readers
from modelward.marking.codes import BitReader, Codes, Hinting
from modelward.models.unet import TriggerNet, empty_trigger_net

TRIGGER, HINTING, READER, SECRET = "trigger/", "hinting/", "reader/", "secret"


def sealed(key: Key) -> Key:
    """Return a key that says the digest of its arrays."""
    return replace(key, facts={**key.facts, "digest": state_digest(_content(key))})


def generator_in(key: Key) -> TriggerNet:
    """Return the generator in a key, the owner's or a user's; raises `InputError` for a key that was changed."""
    if state_digest(_content(key)) != key.fact(str, "digest"):
        raise InputError("this key's arrays are not those it was made with; open with the file as it was issued")
    channels, height, width = _shape(key)
    reach = float(key.fact(float, "settings", "reach"))
    net = empty_trigger_net(channels, (height, width), width=int(key.fact(float, "settings", "width")), reach=reach)
    _fill(net, key, TRIGGER)
    return net


def codes_in(key: Key) -> Codes:
    """Return the words that belong to an owner's key; raises `UsageError` for a user's."""
    if SECRET not in key.tensors:
        raise UsageError("a user's key knows one word alone; pass the owner's, which lock wrote")
    return Codes(bytes(key.tensor(SECRET).tolist()), int(key.fact(float, "settings", "identity_bits")))


def readers_in(key: Key) -> tuple[Hinting, BitReader]:
    """Return what makes hints of words, and what reads words from images."""
    made = readers(codes_in(key), _shape(key), width=int(key.fact(float, "settings", "width")), rng=generator(0))
    for part, prefix in zip(made, (HINTING, READER), strict=True):
        _fill(part, key, prefix)
    return made


def _shape(key: Key) -> tuple[int, int, int]:
    """Return (C, H, W) of the images."""
    found = [int(n) for n in key.fact(list, "shape")]
    if len(found) != 3 or not all(1 <= n <= 4096 for n in found):
        message = f"this {key.method} key draws on images of no shape: {REMEDY}"
        raise FormatError(message)
    return found[0], found[1], found[2]


def _content(key: Key) -> dict[str, Tensor]:
    """Return the arrays that a key's digest is over."""
    return {name: tensor for name, tensor in key.tensors.items() if name != TAG}


def _fill(part: nn.Module, key: Key, prefix: str) -> None:
    """Fill a part with its arrays; raises `FormatError` where they do not fit."""
    with torch.no_grad():
        for name, tensor in part.state_dict().items():
            found = key.tensor(prefix + name)
            if found.shape != tensor.shape:
                message = f"the array {prefix + name!r} of this {key.method} key has shape {tuple(found.shape)}: {REMEDY}"
                raise FormatError(message)
            tensor.copy_(found)
