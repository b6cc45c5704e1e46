"""Model files: safetensors with the architecture in the metadata."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from modelward.core import consent
from modelward.core.errors import UnsafeFileError, UsageError
from modelward.core.guard import require_finite, state_digest
from modelward.core.lineage import lineage_of
from modelward.io.safetensors import load_tensors, save_tensors
from modelward.models.custom import is_custom
from modelward.models.filling import fill
from modelward.models.intake import Convention
from modelward.models.nets import ARCHITECTURES, Net, infer

if TYPE_CHECKING:
    from modelward.models.assembly import Assembly  # it reads networks from files itself

CAP_BYTES = 2**31
_SIDE = re.compile("[0-9]{1,4}")  # isdigit() knows digits that int() does not, and thousands of them


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model with what its file says of itself.

    Parameters
    ----------
    model
        the network, or an assembly of networks that a theft made, in eval mode.
    arch
        name with arguments; of an assembly, that of the first network inside.
    digest
        SHA-256 over its tensors.
    facts
        the file's metadata: ``trained_on`` (digest of the training images), ``data``, ``source`` and the like.
    """

    model: Net | Assembly
    arch: str
    digest: str
    facts: dict[str, str] = field(default_factory=dict)


def save_model(path: Path | str, model: nn.Module, facts: dict[str, str] | None = None) -> None:
    """Write ``model``'s state to a safetensors file, with its architecture, how `modelward.fit` trained it, and ``facts`` in the metadata."""
    from modelward.models.assembly import Assembly, pack

    metadata = {"format": "pt", **lineage_of(model), **(facts or {})}
    if isinstance(model, Net):
        metadata |= {"arch": model.arch, "size": f"{model.size[0]},{model.size[1]}", "classes": str(model.classes)}
    elif isinstance(model, Assembly):
        metadata |= pack(model)[1]
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_tensors(Path(path), tensors, metadata)


def _size(text: str | None) -> tuple[int, int] | None:
    """Read ``"28,28"``; anything else is no size."""
    parts = (text or "").split(",")
    return (int(parts[0]), int(parts[1])) if len(parts) == 2 and all(_SIDE.fullmatch(p) and 0 < int(p) < 4096 for p in parts) else None


def load_model(
    path: Path | str,
    arch: str | None = None,
    *,
    size: tuple[int, int] | None = None,
    like: tuple[int, int, int] | None = None,
    convention: Convention | None = None,
) -> LoadedModel:
    """Read a model from a safetensors file.

    Parameters
    ----------
    path
        the file.
    arch
        architecture name; may be left out for files that modelward saved. ``package.module:function`` is imported, with the current folder
        on the path, and called without arguments; the weights must fit the module it returns name by name.
    size
        (height, width) of the input, where neither the file nor the weights tell.
    like
        (channels, height, width) of the images it will see: a function's net is tried with it first.
    convention
        what the net expects where that is not RGB in [0, 1]; see `Convention`.

    Raises
    ------
    UsageError
        no architecture was given and the file names none.
    InputError
        the weights are of another architecture, or NaN.
    UnsafeFileError
        the file itself names a function as its architecture: code is imported only when you name it.
    FormatError
        from the reader.
    """
    tensors, facts = load_tensors(Path(path), cap=CAP_BYTES)
    if arch is not None:
        consent.give([arch])
    arch = arch or facts.get("arch")
    if not arch and "plan" in facts:
        return _assembled(tensors, facts, Path(path).name, convention)
    if not arch:
        message = f"{Path(path).name} does not say its architecture; pass --arch, for example --arch resnet8"
        raise UsageError(message)
    if is_custom(arch) and arch.partition(":")[0] not in ARCHITECTURES and not consent.is_given(arch):
        message = f"{Path(path).name} names the function {arch} as its architecture; that is code, pass --arch {arch} if you trust it"
        raise UnsafeFileError(message)
    model = infer(arch, tensors, size or _size(facts.get("size")), like)
    fill(model, tensors, Path(path).name)
    require_finite(model)
    if convention is not None:
        model = convention.around(model)
    return LoadedModel(model, model.arch, state_digest(model), facts)


def _assembled(tensors: dict[str, Tensor], facts: dict[str, str], name: str, convention: Convention | None) -> LoadedModel:
    """Return a model made of models, as its description says."""
    from modelward.models.assembly import unpack

    if convention is not None:
        message = f"{name} is a net inside a wrapper, its convention lies inside; leave the convention away"
        raise UsageError(message)
    made = unpack(tensors, facts, name)
    require_finite(made)
    return LoadedModel(made, made.arch, state_digest(made), facts)
