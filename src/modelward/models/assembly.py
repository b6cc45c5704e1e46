"""Models made of whole models: a wrapper around one, a vote of several; stored as tensors and a description, never as code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

from modelward.core.canonical import canonical_json
from modelward.core.card import Card
from modelward.core.catalogue import find
from modelward.core.errors import FormatError, InputError, UsageError
from modelward.models.filling import fill, place
from modelward.models.net import Net
from modelward.models.nets import infer

DEEPEST, BFLOAT16 = 8, "bfloat16"


class Maker(Protocol):
    """A method of the catalogue that puts models together and answers for them."""

    card: ClassVar[Card]

    def settings(self) -> dict[str, Any]:
        """Return the hyper-parameters by name."""
        ...

    def assemble(self, parts: Sequence[nn.Module]) -> Assembly:
        """Return the assembly of ``parts``, its own tensors not yet filled."""
        ...

    def answer(self, assembly: Assembly, x: Tensor) -> Tensor:
        """Return the logits (N, K)."""
        ...


class Assembly(nn.Module):
    """Models behind one door: image batch (N, C, H, W) in [0, 1] -> logits (N, K).

    Parameters
    ----------
    maker
        the method that answers; its name and settings describe the assembly.
    parts
        the models inside, untouched.
    tools
        other networks it uses, such as an autoencoder.
    numbers
        names of scalars that are fitted, such as a threshold; kept as buffers of that name, 0 at first.
    """

    casts_images: ClassVar[bool] = True  # the networks inside do

    def __init__(
        self, maker: Maker, parts: Sequence[nn.Module], *, tools: Mapping[str, nn.Module] | None = None, numbers: Sequence[str] = ()
    ) -> None:
        super().__init__()
        if not parts:
            message = f"{maker.card.name} needs a model to stand around"
            raise InputError(message)
        self.maker = maker
        self.parts = nn.ModuleList(parts)
        self.tools = nn.ModuleDict(dict(tools or {}))
        for name in numbers:
            self.register_buffer(name, torch.zeros(()))

    @property
    def first(self) -> Net:
        """The first network inside; raises `InputError` where there is none of a named architecture."""
        part = self.parts[0]
        if isinstance(part, Assembly):
            return part.first
        if not isinstance(part, Net):
            message = f"the {type(part).__name__} inside does not say how it is built"
            raise InputError(message)
        return part

    @property
    def arch(self) -> str:
        """Architecture of the first network inside."""
        return self.first.arch

    @property
    def classes(self) -> int:
        """Number of outputs."""
        return self.first.classes

    @property
    def channels(self) -> int:
        """Number of input channels."""
        return self.first.channels

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the input."""
        return self.first.size

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) for images (N, C, H, W) in [0, 1]."""
        return self.maker.answer(self, x)


def plan_of(model: nn.Module) -> dict[str, Any]:
    """Return how ``model`` is built, as plain data.

    Raises
    ------
    InputError
        for a network that did not come from a named architecture.
    """
    if isinstance(model, Net):
        return {"arch": model.arch, "size": list(model.size)}
    if isinstance(model, Assembly):
        return {"method": model.maker.card.name, "fields": model.maker.settings(), "parts": [plan_of(part) for part in model.parts]}
    message = (
        f"a {type(model).__name__} does not say how it is built; models of named architectures do (modelward.build, modelward.load_model)"
    )
    raise InputError(message)


def rebuild(plan: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str = "the model") -> Net | Assembly:
    """Return the model that ``plan`` describes with its tensors filled in, in eval mode.

    Raises
    ------
    FormatError
        for a description that is none, or tensors that do not fit it.
    """
    model = _build(plan, tensors, name, 0)
    return model.eval()


def _build(plan: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str, depth: int) -> Net | Assembly:
    """Build one level: a network, or an assembly of what is one level below."""
    try:
        if "arch" in plan:
            height, width = plan["size"]
            net = infer(str(plan["arch"]), tensors, (int(height), int(width)))
            fill(net, dict(tensors), name)
            return net
        maker = _maker(plan, depth)
        parts = [_build(part, _under(f"parts.{index}.", tensors), name, depth + 1) for index, part in enumerate(plan["parts"])]
        made = maker.assemble(parts)
    except (KeyError, TypeError, ValueError, InputError, UsageError) as error:
        message = f"{name}: its description does not fit: {error}"
        raise FormatError(message) from error
    return _filled(made, tensors, name)


def _maker(plan: Mapping[str, Any], depth: int) -> Maker:
    """Return the method that a description names."""
    maker = find(str(plan["method"])).configured(dict(plan["fields"]))
    if depth >= DEEPEST or not hasattr(maker, "assemble"):
        message = f"{plan['method']} puts no models together" if depth < DEEPEST else "it is nested too deeply"
        raise InputError(message)
    return cast("Maker", maker)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose name starts with ``prefix``, without it."""
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _filled(made: Assembly, tensors: Mapping[str, Tensor], name: str) -> Assembly:
    """Copy every tensor to its place."""
    wanted = made.state_dict()
    odd = sorted(set(wanted) ^ set(tensors)) or sorted(key for key in wanted if wanted[key].shape != tensors[key].shape)
    if odd:
        message = f"{name}: tensor {odd[0]!r} does not fit its description"
        raise FormatError(message)
    place(made, tensors, name)
    return made


def pack(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a network or an assembly, of types that numpy knows, and facts from which `unpack` builds it again.

    Examples
    --------
    >>> from modelward.core.rng import generator
    >>> from modelward.models.nets import build
    >>> net = build("mlp:width=4", classes=2, size=(4, 4), rng=generator(0))
    >>> tensors, facts = pack(net)
    >>> facts
    {'arch': 'mlp:width=4', 'size': '[4, 4]'}
    >>> type(unpack(tensors, facts)).__name__
    'Net'
    """
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in model.state_dict().items()}
    plan = plan_of(model)
    facts = {"arch": plan["arch"], "size": json.dumps(plan["size"])} if "arch" in plan else {"plan": canonical_json(plan).decode()}
    unknown = sorted(key for key, tensor in tensors.items() if tensor.dtype == torch.bfloat16)  # numpy does not know it
    tensors |= {key: tensors[key].view(torch.int16) for key in unknown}
    return tensors, facts | ({BFLOAT16: json.dumps(unknown)} if unknown else {})


def unpack(tensors: Mapping[str, Tensor], facts: Mapping[str, str], name: str = "the model") -> Net | Assembly:
    """Return the model that `pack` took apart, in eval mode; raises `FormatError` for facts or tensors that do not fit."""
    try:
        plan = json.loads(facts["plan"]) if "plan" in facts else {"arch": facts["arch"], "size": json.loads(facts["size"])}
        coarse = set(json.loads(facts.get(BFLOAT16, "[]")))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        message = f"{name} does not say how it is built"
        raise FormatError(message) from error
    tensors = {
        key: tensor.view(torch.bfloat16) if key in coarse and tensor.dtype == torch.int16 else tensor for key, tensor in tensors.items()
    }
    if not isinstance(plan, dict):
        message = f"{name} does not say how it is built"
        raise FormatError(message)
    return rebuild(plan, tensors, name)
