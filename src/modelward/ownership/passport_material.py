"""Passports as key material: which a key holds, and how the others come from its secret and its message."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from modelward.core.errors import FormatError, InputError
from modelward.core.key import REMEDY
from modelward.keys.derive import stream
from modelward.marking.passports import Gate, conv_of, from_maps, patch_means
from modelward.ownership.weighing import bits_in, bound_secret

KINDS = ("flat", "random", "image", "shuffle")
DRAWN = ("flat", "random")
WIDEST = 4096  # channels and pixels a side of a passport
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
    gates, shapes = layout(facts)
    bits = bits_in(tensors, int(facts["signs"]))
    bound = "" if own else "".join(map(str, bits.tolist()))
    made: Means = []
    for index, (gate, shape) in enumerate(zip(gates, shapes, strict=True)):
        conv = conv_of(model, gate)
        pair = [_passport(tensors, index, name, shape, bound, kind) for name in ("scale", "shift")]
        if pair[0].shape[0] != conv.in_channels:
            message = f"{gate.conv} reads {conv.in_channels} channels, the passport has {pair[0].shape[0]}; this is another architecture"
            raise InputError(message)
        made.append((patch_means(conv, pair[0]), patch_means(conv, pair[1])))
    return gates, made


def layout(facts: Mapping[str, Any]) -> tuple[list[Gate], list[tuple[int, int, int]]]:
    """Return the gates of a key and the shapes (c, h, w) of their passports; raises `FormatError` when it does not tell them, or how many signs it has.

    >>> layout({"gates": [["a", "b"]], "shapes": [[3, 4, 4]], "signs": 8})
    ([Gate(conv='a', norm='b')], [(3, 4, 4)])
    """
    gates, shapes, signs = (facts.get(name) for name in ("gates", "shapes", "signs"))
    if not (
        _rows(gates, 2, lambda name: isinstance(name, str))
        and _rows(shapes, 3, lambda side: type(side) is int and 1 <= side <= WIDEST)
        and len(gates) == len(shapes)
        and type(signs) is int
    ):
        message = f"this passport key does not tell where its passports go and how large they are: {REMEDY}"
        raise FormatError(message)
    return [Gate(conv, norm) for conv, norm in gates], [(c, h, w) for c, h, w in shapes]


def _rows(found: Any, width: int, good: Callable[[Any], bool]) -> TypeGuard[list[list[Any]]]:
    """Return whether these are rows of ``width`` good entries."""
    return isinstance(found, list | tuple) and all(
        isinstance(row, list | tuple) and len(row) == width and all(map(good, row)) for row in found
    )


def _passport(tensors: Mapping[str, Tensor], index: int, name: str, shape: Sequence[int], bound: str, kind: str) -> Tensor:
    """Return one passport (c, h, w): the key's own, or what the secret gives."""
    found = tensors.get(f"passport/{index}/{name}")
    if found is not None:
        return found
    if kind not in DRAWN:
        message = f"this passport key lacks the passports of gate {index}: {REMEDY}"
        raise FormatError(message)
    size = [shape[0], 1, 1] if kind == "flat" else list(shape)
    drawn = 2 * torch.rand(size, generator=stream(bound_secret(tensors), "passport", name, str(index), bound)) - 1
    return drawn.expand(*shape).contiguous()
