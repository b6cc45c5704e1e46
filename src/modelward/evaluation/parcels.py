"""How image sets and models travel through the store: as arrays by digest."""

from __future__ import annotations

import functools
import json

import torch
from torch import nn

from modelward.core.canonical import canonical_json, plain
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.evaluation.cell import Outcome
from modelward.evaluation.code import code_digest
from modelward.evaluation.store import Store
from modelward.models.assembly import Assembly, pack, unpack
from modelward.models.custom import modules_of
from modelward.models.net import Net

_KEY = "key/"


def put_images(store: Store, images: ImageSet) -> str:
    """Keep an image set in the store and return its digest."""
    facts = {"classes": json.dumps(list(images.classes)), "name": images.name}
    return store.put({"pixels": images.pixels.contiguous().numpy(), "labels": images.labels.contiguous().numpy()}, facts)


@functools.lru_cache(maxsize=16)
def get_images(folder: str, digest: str) -> ImageSet:
    """Return the image set with ``digest``; kept in memory, since neighbouring cells share it."""
    arrays, facts = Store(folder).get(digest)
    pixels, labels = torch.from_numpy(arrays["pixels"].copy()), torch.from_numpy(arrays["labels"].copy())
    return ImageSet(pixels, labels, tuple(json.loads(facts["classes"])), facts["name"])


def pack_model(model: nn.Module, facts: dict[str, str] | None = None) -> Outcome:
    """Return a network, or an assembly of networks, as an outcome: its state and how to build it again.

    Raises
    ------
    InputError
        for a module that does not say how it is built.
    """
    tensors, plan = pack(model)
    modules = sorted({name for part in model.modules() if isinstance(part, Net) for name in modules_of(part.arch)})
    own = {"code": code_digest(*modules)} if modules else {}  # another function makes another artefact of it
    return Outcome(arrays={name: tensor.numpy() for name, tensor in tensors.items()}, facts={**plan, **own, **(facts or {})})


def put_model(store: Store, model: nn.Module) -> str:
    """Keep a model in the store and return its digest."""
    packed = pack_model(model)
    return store.put(packed.arrays, packed.facts)


def get_model(folder: str, digest: str) -> Net | Assembly:
    """Return the model with ``digest``, in eval mode; one of the user's own architecture only when the user named that in this run."""
    arrays, facts = Store(folder).get(digest)
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items() if not name.startswith(_KEY)}
    return unpack(tensors, facts, digest[:12])


def pack_key(key: Key, model: nn.Module | None = None) -> Outcome:
    """Return a key as an outcome, together with the model that it was made for where protecting made that model."""
    packed = Outcome() if model is None else pack_model(model)
    said = {"method": key.method, "variant": key.variant, "model_digest": key.model_digest, "facts": plain(dict(key.facts))}
    arrays = {f"{_KEY}{name}": tensor.detach().contiguous().numpy() for name, tensor in key.tensors.items()}
    return Outcome(arrays={**packed.arrays, **arrays}, facts={**packed.facts, "key": canonical_json(said).decode()})


def get_key(folder: str, digest: str) -> Key:
    """Return the key in the artefact with ``digest``."""
    arrays, facts = Store(folder).get(digest)
    said = json.loads(facts["key"])
    tensors = {name.removeprefix(_KEY): torch.from_numpy(array.copy()) for name, array in arrays.items() if name.startswith(_KEY)}
    return Key(said["method"], said["variant"], said["model_digest"], said["facts"], tensors)
