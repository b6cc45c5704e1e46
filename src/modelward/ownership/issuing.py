"""Key images for users: issue them, read whom one was issued to, and admit a user whose image the network knows too."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modelward.core.errors import InputError
from modelward.core.key import Key
from modelward.core.suspect import Suspect
from modelward.keys.registry import Registry
from modelward.marking.payload import Payload, Reading

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


def issue_images(carrier: Payload, keys: Tensor, users: Sequence[str]) -> Tensor:
    """Return one key image (C, H, W) for each of ``users``, (N, C, H, W), uint8: the n-th gets the n-th, beginning anew after the last."""
    numbers = [position % len(keys) for position in range(len(users))]
    return carrier.write(keys[numbers], users, numbers)


def read_image(carrier: Payload, image: Tensor, users: Sequence[str], registry: Registry | None, purpose: str) -> Reading:
    """Return whom one image (C, H, W), uint8, was issued to; a registry's users are known, and must hold a grant that is active.

    Raises
    ------
    InputError
        for an image of another shape.
    """
    if image.dtype != torch.uint8 or tuple(image.shape) != carrier.shape:
        message = f"a key image of this key is uint8 of shape {carrier.shape}, got {image.dtype} {tuple(image.shape)}; present it as it was issued"
        raise InputError(message)
    known = [grant.user for grant in registry.grants(purpose=purpose)] if registry is not None else []
    found = carrier.read(image[None], list(dict.fromkeys([*known, *users])))[0]
    if registry is None or found.user is None:
        return found
    try:
        registry.require(found.user, purpose)
    except InputError as error:
        return Reading(None, found.index, str(error))
    return found


def answered(suspect: Suspect | nn.Module, image: Tensor, label: int) -> bool:
    """Return whether a network answers one image (C, H, W), uint8, with ``label``."""
    asked = suspect if isinstance(suspect, Suspect) else Suspect.of_model(suspect)
    return int(asked.labels(image[None].to(torch.float32).div(255))[0]) == label
