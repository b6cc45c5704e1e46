"""How image sets and models travel through the store: as arrays by digest."""

from __future__ import annotations

import functools
import json

import torch
from torch import nn

from modelward.core.images import ImageSet
from modelward.evaluation.cell import Outcome
from modelward.evaluation.code import code_digest
from modelward.evaluation.store import Store
from modelward.models.custom import modules_of
from modelward.models.files import fill
from modelward.models.nets import Net, infer


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
    """Return a model as an outcome: its state and how to build it again."""
    assert isinstance(model, Net)  # noqa: S101  # every model of a farm comes from our builders
    arrays = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in model.state_dict().items()}
    own = {"code": code_digest(*modules)} if (modules := modules_of(model.arch)) else {}  # another function makes another artefact of it
    return Outcome(arrays=arrays, facts={"arch": model.arch, "size": json.dumps(list(model.size)), **own, **(facts or {})})


def put_model(store: Store, model: Net) -> str:
    """Keep a model in the store and return its digest."""
    packed = pack_model(model)
    return store.put(packed.arrays, packed.facts)


def get_model(folder: str, digest: str) -> Net:
    """Return the model with ``digest``, in eval mode; one of the user's own architecture only when the user named that in this run."""
    arrays, facts = Store(folder).get(digest)
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    height, width = json.loads(facts["size"])
    model = infer(facts["arch"], tensors, (height, width))
    fill(model, tensors, digest[:12])
    return model.eval()
