"""Write and read keys as ``.mw`` files: safetensors with a canonical JSON header, digests of every part, optionally inside age."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from modelward._version import __version__
from modelward.core.canonical import digest_of
from modelward.core.errors import FormatError
from modelward.core.guard import state_digest
from modelward.core.key import Key
from modelward.io.age import Secret
from modelward.io.container import pack, read_mw, unpack, write_mw

IDENTITY = "AGE-SECRET-KEY-1"


def _content(key: Key) -> tuple[dict[str, Any], dict[str, NDArray[np.generic]]]:
    """Return a key as the header and the arrays of a container."""
    header = {
        "method": key.method, "variant": key.variant, "modelward": __version__, "model_digest": key.model_digest, "facts": dict(key.facts),
    }  # fmt: skip
    return header, {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in key.tensors.items()}


def write_key(path: Path | str, key: Key, *, passphrase: Secret | None = None, recipients: Sequence[str] = ()) -> None:
    """Write ``key`` to ``path`` (mode 0600), encrypted with age for a passphrase, or for the holders of age public keys (``age1...``)."""
    write_mw(Path(path), *_content(key), passphrase=passphrase, recipients=recipients)


def pack_key(key: Key) -> bytes:
    """Return the bytes of an unencrypted key file."""
    return pack(*_content(key))


def key_digest(key: Key) -> str:
    """Return the SHA-256 of what is in a key: its facts and its arrays, whichever version wrote the file and however it is encrypted.

    Examples
    --------
    >>> one, other = (Key("sac", "hardened", "00" * 32, {"n": 1}, {"probes": torch.full((2,), value)}) for value in (0, 1))
    >>> key_digest(one) == key_digest(other)
    False
    """
    content = {"method": key.method, "variant": key.variant, "model_digest": key.model_digest, "facts": dict(key.facts)}
    return digest_of(content | {"tensors": state_digest(dict(key.tensors))})


def read_key(path: Path | str, *, passphrase: Secret | None = None) -> Key:
    """Read a key; an altered, newer or foreign file is refused.

    Parameters
    ----------
    passphrase
        of an encrypted file; an age identity (``AGE-SECRET-KEY-1...``) opens what was written for its public key.

    Raises
    ------
    FormatError, UnsafeFileError, UsageError
        as `modelward.io.container.read_mw` says.
    """
    if passphrase is not None and passphrase.reveal().startswith(IDENTITY):
        return _key(*read_mw(Path(path), identities=(passphrase,)), Path(path).name)
    return _key(*read_mw(Path(path), passphrase=passphrase), Path(path).name)


def unpack_key(data: bytes, name: str = "the key") -> Key:
    """Return the key in the bytes of an unencrypted key file, checked as `read_key` does."""
    return _key(*unpack(data, name), name)


def _key(header: dict[str, Any], arrays: dict[str, NDArray[np.generic]], name: str) -> Key:
    """Return the key in a container."""
    missing = [field for field in ("method", "variant", "model_digest", "facts") if field not in header]
    if missing:
        message = f"{name} is no key: its header lacks {missing[0]!r}"
        raise FormatError(message)
    if not isinstance(header["facts"], dict):
        message = f"{name} is no key: its facts are not a table"
        raise FormatError(message)
    tensors = {part: torch.from_numpy(array.copy()) for part, array in arrays.items()}
    return Key(str(header["method"]), str(header["variant"]), str(header["model_digest"]), dict(header["facts"]), tensors)
