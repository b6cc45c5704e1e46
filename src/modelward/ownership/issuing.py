"""Key images for users: issue them, read whom one was issued to, and admit a user whose image the network knows too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from modelward.core.errors import InputError
from modelward.core.key import Key
from modelward.core.suspect import Suspect
from modelward.keys.registry import Registry
from modelward.marking.payload import Payload, Reading, state_of

OWNER = "owner"


def carrier_of(key: Key, payload: str, codec: str) -> Payload:
    """Return what writes and reads the payloads of ``key``."""
    _, *shape = key.tensor("probes").shape
    secret = key.tensor("secret").to(torch.uint8).numpy().tobytes()
    return Payload(secret, (shape[0], shape[1], shape[2]), payload, codec)


def keys_of(key: Key) -> Tensor:
    """Return the key images (n, C, H, W) without the decoys.

    Raises
    ------
    InputError
        for half a key.
    """
    images, count, decoys = (len(key.tensor(name)) for name in ("probes", "labels", "kinds"))
    if images != count + decoys or not count or len(key.tensor("written")) != count:
        message = (
            f"this is half of a {key.method} key: {count} labels and {decoys} decoys for {images} images; use the file that protect wrote"
        )
        raise InputError(message)
    return key.tensor("probes")[:count]


def issue_images(carrier: Payload, keys: Tensor, users: Sequence[str], first: int = 0) -> Tensor:
    """Return one key image (C, H, W) for each of ``users``, (N, C, H, W), uint8, in order from the ``first`` on, beginning anew after the last."""
    numbers = [(first + position) % len(keys) for position in range(len(users))]
    return carrier.write(keys[numbers], users, numbers)


def read_image(
    carrier: Payload, keys: Tensor, image: Tensor, users: Sequence[str], registry: Registry | None, purpose: str
) -> Reading:  # fmt: skip
    """Return whom one image (C, H, W), uint8, was issued to; a registry's users are known, and must hold a grant that is active.

    Of an image that looks like one of the ``keys`` (n, C, H, W) and names nobody it is said that its payload died, and why.

    Raises
    ------
    InputError
        for an image of another shape.
    """
    if image.dtype != torch.uint8 or tuple(image.shape) != carrier.shape:
        message = f"a key image of this key is uint8 of shape {carrier.shape}, got {image.dtype} {tuple(image.shape)}; present it as it was issued"
        raise InputError(message)
    known = [grant.user for grant in registry.grants(purpose=purpose)] if registry is not None else []
    named = list(dict.fromkeys([*known, *users]))
    found = carrier.read(image[None], named)[0]
    if found.user is None and found.index is None:
        return replace(found, reason=_died(carrier, keys, image, named) or found.reason)
    if registry is None or found.user is None:
        return found
    try:
        registry.require(found.user, purpose)
    except InputError as error:
        return Reading(None, found.index, str(error))
    return found


def _died(carrier: Payload, keys: Tensor, image: Tensor, users: Sequence[str]) -> str:
    """Return in words what became of the payload of an image that was a key image; empty for one that was none."""
    which = _lookalike(image, keys)
    if which is None:
        return ""
    whole = torch.equal(image >> 1, keys[which] >> 1)
    if carrier.kind == "image" and (whole or carrier.codec == "qim"):  # may hold a stranger's picture, which is no damage
        return ""
    # whose payload it was cannot be told any more: the nearest of all that it may have been is the one that is damaged least
    written = torch.stack([carrier.bits(keys[which], user, which) for user in users])
    nearest = (carrier.extract(image[None]) != written).sum(1).argmin()
    return state_of(carrier, image[None], written[nearest][None])


def _lookalike(image: Tensor, keys: Tensor) -> int | None:
    """Return which of ``keys`` (n, C, H, W) an image is a changed copy of: it lies nearer than half way to the next, so that it can be no other."""
    points = keys.flatten(1).to(torch.float64)
    which = int(torch.cdist(image.reshape(1, -1).to(torch.float64), points).argmin())
    others = torch.cdist(points[which][None], points)[0]
    others[which] = torch.inf
    away = float((image.flatten().to(torch.float64) - points[which]).norm())
    return which if away < float(others.min()) / 2 else None


def answered(suspect: Suspect | nn.Module, image: Tensor, label: int) -> bool:
    """Return whether a network answers one image (C, H, W), uint8, with ``label``."""
    asked = suspect if isinstance(suspect, Suspect) else Suspect.of_model(suspect)
    return int(asked.labels(image[None].to(torch.float32).div(255))[0]) == label
