"""Passports as key material: which a key holds, and how the others come from its secret and its message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modelward.core.errors import FormatError, InputError
from modelward.core.key import REMEDY
from modelward.keys.derive import stream
from modelward.marking.passports import Gate, conv_of, from_maps, patch_means
from modelward.ownership.weighing import bits_in, secret_of

KINDS = ("flat", "random", "image", "shuffle")
DRAWN = ("flat", "random")
Means = list[tuple[Tensor, Tensor]]


def held(maps: Sequence[Tensor], kind: str, secret: bytes) -> dict[str, Tensor]:
    """Return the passports that a key keeps, by name, made of the feature maps (N, c, h, w) of every gate; none of a kind that is drawn."""
    if kind in DRAWN:
        return {}
    return {
        f"passport/{index}/{name}": from_maps(found, kind, rng=stream(secret, name, str(index)))
        for index, found in enumerate(maps)
        for name in ("scale", "shift")
    }


def mean_passports(
    model: nn.Module, facts: Mapping[str, Any], tensors: Mapping[str, Tensor], *, kind: str, own: bool
) -> tuple[list[Gate], Means]:
    """Return the gates of a key and the mean patches of their passports for scale and shift.

    Parameters
    ----------
    facts, tensors
        of the key.
    own
        a key may bring passports; without it they come from the secret and the message.

    Raises
    ------
    InputError
        for passports that the key may not bring, or a network of another architecture.
    FormatError
        for a key that lacks them.
    """
    if not own and any(name.startswith("passport/") for name in tensors):
        raise InputError(
            "this key brings passports of its own; they come from the secret and the message, or anybody could make some that fit"
        )
    gates = [Gate(str(conv), str(norm)) for conv, norm in facts["gates"]]
    bits = bits_in(tensors, int(facts["signs"]))
    bound = "" if own else "".join(map(str, bits.tolist()))
    made: Means = []
    for index, (gate, shape) in enumerate(zip(gates, facts["shapes"], strict=True)):
        conv = conv_of(model, gate)
        pair = [_passport(tensors, index, name, shape, bound, kind) for name in ("scale", "shift")]
        if pair[0].shape[0] != conv.in_channels:
            message = f"{gate.conv} reads {conv.in_channels} channels, the passport has {pair[0].shape[0]}; this is another architecture"
            raise InputError(message)
        made.append((patch_means(conv, pair[0]), patch_means(conv, pair[1])))
    return gates, made


def _passport(tensors: Mapping[str, Tensor], index: int, name: str, shape: Sequence[int], bound: str, kind: str) -> Tensor:
    """Return one passport (c, h, w): the key's own, or what the secret gives."""
    found = tensors.get(f"passport/{index}/{name}")
    if found is not None:
        return found
    if kind not in DRAWN:
        message = f"this passport key lacks the passports of gate {index}: {REMEDY}"
        raise FormatError(message)
    size = [shape[0], 1, 1] if kind == "flat" else list(shape)
    drawn = 2 * torch.rand(size, generator=stream(secret_of(tensors), "passport", name, str(index), bound)) - 1
    return drawn.expand(*shape).contiguous()
