"""Builds and who opens them: the owner by a secret, a user by a credential of probes, MAC and slot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from modelward.core.canonical import canonical_json
from modelward.core.errors import InputError
from modelward.core.guard import predict, private_copy, state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.keys.derive import derive
from modelward.keys.files import pack_key, unpack_key
from modelward.locks.advparams import AdvParams
from modelward.locks.control_layer import SEALED, ControlLayer, layer_of
from modelward.locks.gate import answered
from modelward.locks.sealing import MAC, SlotKey, sealed, unsealed
from modelward.locks.windows import inside, require_windows
from modelward.models.assembly import Assembly


@dataclass(frozen=True, eq=False)
class Build:
    """One locked network: its control layer, what lies inside, and the digest that slots are bound to."""

    layer: ControlLayer
    assembly: Assembly
    inner: nn.Module
    digest: str

    @classmethod
    def of(cls, locked: nn.Module) -> Build:
        """Return the build in a locked model; raises `InputError` for one that has no control layer."""
        layer, assembly = layer_of(locked)
        return cls(layer, assembly, assembly.parts[0], state_digest(assembly.parts[0]))

    def opened(self, content_key: bytes) -> nn.Module:
        """Return the network that the sealed parameter key opens; a copy of the one inside where nothing is sealed."""
        blob = bytes(self.assembly.get_buffer(SEALED).tolist())
        content = unsealed(content_key, blob, self.digest)
        return (
            AdvParams().unlock(self.inner, unpack_key(content, "the sealed parameter key")) if content else private_copy(self.inner).eval()
        )

    def with_slots(self, slots: Mapping[str, str]) -> Assembly:
        """Return the same locked network with other slots."""
        made = replace(self.layer, slots=dict(slots)).assemble([private_copy(self.inner)])
        made.get_buffer(SEALED).copy_(self.assembly.get_buffer(SEALED))
        return made.requires_grad_(requires_grad=False).eval()


def delivered(
    marked: nn.Module, layer: ControlLayer, lock: AdvParams | None, data: ImageSet, secret: bytes, *, rng: torch.Generator
) -> Assembly:
    """Return a network behind a control layer: locked by ``lock``, where there is one, and its parameter key sealed inside.

    Parameters
    ----------
    marked
        the network as its users are to have it.
    data
        labelled images for the lock.
    secret
        the owner's; it opens what is sealed.
    """
    inner, content = private_copy(marked), b""
    if lock is not None:
        inner, inner_key = lock.lock(marked, data, rng=rng)
        content = pack_key(inner_key)
    digest = state_digest(inner)
    blob = sealed(derive(secret, "content", digest, state_digest(marked)), content, digest)
    made = replace(layer, sealed=len(blob)).assemble([inner])
    made.get_buffer(SEALED).copy_(torch.tensor(list(blob), dtype=torch.uint8))
    return made.eval()


def opened_by_owner(locked: nn.Module, key: Key, *, bare: bool = False) -> nn.Module:
    """Return the network as the owner's key opens it; a ``bare`` one stands behind a gate, without a layer.

    Raises
    ------
    InputError
        when key or network are not what they were.
    """
    secret_of(key)
    if bare:
        net = private_copy(locked).eval()
    else:
        build = Build.of(locked)
        net = build.opened(content_key(key, build.digest))
    if state_digest(net) != key.fact(str, "original"):
        raise InputError("the opened network is not the one that was locked")
    return net


def secret_of(key: Key) -> bytes:
    """Return the secret in an owner's key, once the key is found to be whole."""
    secret = bytes(key.tensor("secret").to(torch.uint8).tolist())
    whole = {name: tensor for name, tensor in key.tensors.items() if name != "tag"}
    if state_digest(whole) != key.fact(str, "content"):
        raise InputError("this key lacks a part, or a part of it was altered")
    return secret


def content_key(key: Key, build: str) -> bytes:
    """Return the key of what is sealed in a build, from the owner's."""
    return derive(secret_of(key), "content", build, key.fact(str, "original"))


def opened_by(locked: nn.Module, made: Key) -> nn.Module:
    """Return the network that a credential opens.

    The credential leads to its slot, the slot to the sealed parameter key, that to the network, and the network has to know the probes.

    Raises
    ------
    InputError
        when there is no slot, since the user was revoked or never enrolled; when credential or slot were altered; or when the opened network
        does not answer the probes from inside their windows.
    """
    build, pixels = Build.of(locked), probes_of(made)
    key = slot_key(made, build)
    slot = build.layer.slots.get(key.tag) or (made.fact(str, "slot") if "slot" in made.facts else None)
    if slot is None:
        raise InputError("this network has no slot for this credential: its user was revoked, or never enrolled in this build")
    rows = made.fact(list, "windows")
    windows = require_windows(rows, build.assembly.classes)
    net = build.opened(key.opened(slot, about(made.fact(str, "user"), rows)))
    if len(windows) != len(pixels) or not answered(net, pixels, windows):
        raise InputError("the opened network does not know these probes: it was changed since they were made; ask for a new credential")
    return net


def opened_by_window(locked: nn.Module, made: Key) -> nn.Module:
    """Return the network of the paper's variant, to whoever brings one image that falls into any user's window."""
    build, pixels = Build.of(locked), probes_of(made)
    windows = require_windows(build.layer.windows, build.assembly.classes)
    logits = predict(build.inner, pixels[:1])
    if not bool(inside(logits.expand(len(windows), -1), windows, slack=1e-3).any()):
        raise InputError("the network does not answer this probe from inside a window")
    return private_copy(build.inner).eval()


def slot_key(made: Key, build: Build) -> SlotKey:
    """Return the key of a credential's slot in a build."""
    mac = bytes(made.tensor("mac").to(torch.uint8).tolist())
    if len(mac) != MAC:
        message = f"the MAC of this credential has {len(mac)} bytes, not {MAC}"
        raise InputError(message)
    return SlotKey(mac, probes_of(made), build.digest)


def probes_of(made: Key) -> Tensor:
    """Return the probes of a credential; raises `InputError` for what are no images."""
    pixels = made.tensor("probes")
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or not len(pixels):
        message = f"probes are uint8 images (m, C, H, W), this credential has {pixels.dtype} of shape {tuple(pixels.shape)}"
        raise InputError(message)
    return pixels


def about(user: str, windows: object) -> bytes:
    """Return what a slot is bound to besides its key."""
    return canonical_json([user, windows])
