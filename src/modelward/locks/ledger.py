"""What is said of a locked set beside its images: enough to open it with the key, and to notice a changed image without."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from modelward.core.canonical import canonical_json, digest_bytes, plain
from modelward.core.errors import FormatError, InputError
from modelward.keys.cipher import mac

SCHEMA, VERSION = "modelward/locked-images", 1
SIDECAR = -1
SHOWN = 5


def content(pixels: Tensor) -> list[bytes]:
    """Return what digests of images (N, C, H, W), uint8, are taken over: shape and pixels."""
    head = f"{tuple(pixels.shape[1:])}\n".encode()
    return [head + image.tobytes() for image in pixels.contiguous().numpy()]


def digests(pixels: Tensor) -> list[str]:
    """Return 16 bytes of SHA-256 of each image, in hex: of what is published, so it betrays nothing."""
    return [digest_bytes(data)[:32] for data in content(pixels)]


def originals(pixels: Tensor, secret: bytes, names: Sequence[str]) -> list[str]:
    """Return a keyed digest of each original: nobody who lacks the secret can test whether he has it."""
    return [mac(secret, data, "original", name) for data, name in zip(content(pixels), names, strict=True)]


def signed(manifest: Mapping[str, Any], secret: bytes) -> dict[str, Any]:
    """Return a manifest with its tag, as JSON values."""
    whole: dict[str, Any] = plain(dict(manifest))
    return {**whole, "tag": mac(secret, canonical_json(whole), "manifest")}


def require_signed(manifest: Mapping[str, Any], secret: bytes) -> None:
    """Raise `InputError` unless the tag of a manifest was made with ``secret`` over all that it says."""
    rest = {name: value for name, value in manifest.items() if name != "tag"}
    if not hmac.compare_digest(str(manifest.get("tag", "")), mac(secret, canonical_json(rest), "manifest")):
        raise InputError("the key does not open this set: the tag of its manifest was made with another key, or the manifest was altered")


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """Return the digest by which a key knows its set."""
    return digest_bytes(canonical_json(plain(dict(manifest))))


def require_manifest(manifest: Mapping[str, Any], count: int) -> None:
    """Raise unless a manifest can be read and speaks of ``count`` images.

    Raises
    ------
    FormatError
        for a manifest that lacks something or is damaged.
    InputError
        for another number of images.
    """
    fields = {"how": int, "room": list, "locked": str, "original": str}
    lists = {name: manifest.get(name) for name in fields}
    whole = all(isinstance(values, list) and all(isinstance(v, fields[name]) for v in values) for name, values in lists.items())
    numbers = whole and all(len(room) == 3 and all(isinstance(v, int) and v >= 0 for v in room) for room in manifest["room"])
    if not numbers or manifest.get("schema") != SCHEMA or not isinstance(manifest.get("settings"), dict):
        raise FormatError("this is no manifest of a locked image set, or it is damaged")
    sizes = {len(manifest[name]) for name in fields}
    if sizes != {count}:
        message = f"the manifest speaks of {min(sizes)} images and {count} are here; bring the set as it was published"
        raise InputError(message)


def changed(pixels: Tensor, manifest: Mapping[str, Any]) -> list[int]:
    """Return the positions of images that are not what was published; needs no key."""
    return [i for i, (found, said) in enumerate(zip(digests(pixels), manifest["locked"], strict=True)) if found != said]


def require_unchanged(pixels: Tensor, manifest: Mapping[str, Any], named: Sequence[str] | None = None) -> None:
    """Raise `InputError` that names the images that were resized or encoded anew since they were locked."""
    shape = list(pixels.shape[1:])
    if shape != manifest.get("shape"):
        told = ["x".join(map(str, value)) for value in (shape, manifest.get("shape", []))]
        message = f"the images are {told[0]}, they were locked as {told[1]} (channels x height x width): resized images cannot be unlocked"
        raise InputError(message)
    bad = changed(pixels, manifest)
    if bad:
        shown = ", ".join(named[i] if named else f"number {i}" for i in bad[:SHOWN]) + (", ..." if len(bad) > SHOWN else "")
        message = (
            f"{len(bad)} of {len(pixels)} images were changed since they were locked (encoded anew, or edited): {shown}; "
            "bring them as they were published"
        )
        raise InputError(message)


def counts(how: Sequence[int], plans: Sequence[str]) -> dict[str, int]:
    """Return how many images lie how, in words.

    >>> counts([0, 0, -1], ["blocks of 4"])
    {'blocks of 4': 2, 'sidecar': 1}
    """
    said = {words: sum(number == k for number in how) for k, words in enumerate(plans)}
    return {words: count for words, count in {**said, "sidecar": sum(number == SIDECAR for number in how)}.items() if count}


def names(count: int) -> list[str]:
    """Return the names that the keys of images are derived from."""
    return [str(i) for i in range(count)]
