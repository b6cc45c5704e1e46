"""Work: train one sibling of the owner's model, by the owner's own code or by the recipe that the model's file carries."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from modelward.core import consent
from modelward.core.errors import InputError, UnsafeFileError
from modelward.core.guard import private_copy
from modelward.core.images import ImageSet
from modelward.core.nearest import nearest
from modelward.core.rng import forked, generator
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_model, pack_model
from modelward.models import build
from modelward.models.custom import aligned, here
from modelward.models.filling import place
from modelward.models.net import Net
from modelward.models.nets import ARCHITECTURES, describe
from modelward.models.parts import fresh_like
from modelward.training import Extras, Recipe, accuracy, fit

Train = Callable[[Tensor, Tensor, int], object]  # what a user's function returns is looked at before it is believed


def train(job: Job) -> Outcome:
    """Train a sibling; return it with its accuracy on the images that it was trained on.

    Settings: ``train`` (``package.module:function`` or ``None``), ``recipe`` (fields of `Recipe` or ``None``), ``matched``. Inputs: ``images``; ``model``, the
    owner's, whose shape the sibling has; ``start``, where training begins at weights that others may have.
    """
    torch.set_num_threads(job.threads)
    images, owner = get_images(job.store, job.inputs["images"]), get_model(job.store, job.inputs["model"])
    start = get_model(job.store, job.inputs["start"]) if "start" in job.inputs else None
    name, recipe = job.settings["train"], job.settings["recipe"]
    if name:
        made = by_code(name, owner, images, job.seed)
    elif job.settings.get("matched"):
        made = matched(Recipe(**recipe), owner, start, images, job.seed)
    else:
        made = by_recipe(Recipe(**recipe), owner, start, images, job.seed)
    require_trained(made)
    packed = pack_model(made, {"accuracy": str(accuracy(made, images.few(2000)))})
    return Outcome([], packed.arrays, packed.facts)


def require_trained(made: nn.Module) -> None:
    """Raise `InputError` when a sibling's weights are no numbers: it diverged, and its answers would be no draw of anything."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in made.state_dict().values() if tensor.is_floating_point()):
        raise InputError("training diverged: the sibling's weights are not finite")


def by_recipe(recipe: Recipe, owner: nn.Module, start: nn.Module | None, images: ImageSet, seed: int) -> nn.Module:
    """Return a sibling that our own loop trains: from ``start``, or from weights drawn anew."""
    rng = generator(seed)
    made = fresh(owner, rng=rng) if start is None else private_copy(start)
    with forked(rng):
        fit(made, images.pixels, images.labels, recipe, rng=rng)
    return made.eval()


def matched(recipe: Recipe, owner: nn.Module, start: nn.Module | None, images: ImageSet, seed: int) -> nn.Module:
    """Return what our loop trains until it knows as many training images as ``owner``, at the epoch that comes nearest."""
    rng, part = generator(seed), images.few(2000)
    goal, seen = accuracy(owner, part), list[tuple[float, dict[str, Tensor]]]()

    def enough(net: nn.Module) -> bool:
        seen.append((accuracy(net, part), {name: tensor.clone() for name, tensor in net.state_dict().items()}))
        del seen[:-2]
        return seen[-1][0] >= goal

    made = fresh(owner, rng=rng) if start is None else private_copy(start)
    with forked(rng):
        fit(made, images.pixels, images.labels, recipe, rng=rng, extras=Extras(until=enough))
    made.load_state_dict(min(seen, key=lambda pair: abs(pair[0] - goal))[1])
    return made.eval()


def fresh(owner: nn.Module, *, rng: torch.Generator) -> nn.Module:
    """Return an untrained network like ``owner``, behind the same normalisation."""
    if isinstance(owner, Net) and describe(owner.arch)[0] in ARCHITECTURES and owner.order is None:
        mean, std = owner.mean.flatten().tolist(), owner.std.flatten().tolist()
        return build(owner.arch, classes=owner.classes, channels=owner.channels, size=owner.size, rng=rng, mean=mean, std=std)
    return fresh_like(owner, rng=rng)


def by_code(name: str, owner: nn.Module, images: ImageSet, seed: int) -> nn.Module:
    """Return what the owner's function trains, as a network of the owner's shape.

    Raises
    ------
    InputError
        when it cannot be imported, fails, or returns something that does not have the owner's weights.
    """
    function = imported(name)
    try:
        with forked(generator(seed)), here():
            made = function(images.pixels.clone(), images.labels.clone(), seed)
    except (Exception, SystemExit) as error:
        lines = str(error).splitlines()
        message = f"--train {name}, seed {seed}: it raised {type(error).__name__}{': ' + lines[0][:200] if lines else ''}"
        raise InputError(message) from error
    if not isinstance(made, nn.Module):
        message = f"--train {name}: it returned a {type(made).__name__}; it takes (images, labels, seed) and returns a torch.nn.Module"
        raise InputError(message)
    return like(owner, made, f"--train {name}")


def like(owner: nn.Module, made: nn.Module, who: str) -> nn.Module:
    """Return a copy of ``owner`` with the weights of ``made``; raises `InputError` when they are not those of the same architecture."""
    tensors = {key: tensor.detach().cpu() for key, tensor in made.state_dict().items()}
    wanted = owner.state_dict()
    if isinstance(owner, Net) and set(tensors) != set(wanted):
        tensors = {**{key: wanted[key] for key in ("mean", "std", "order") if key in wanted}, **aligned(owner.body, tensors)}
    odd = sorted(set(tensors) ^ set(wanted)) or [key for key in wanted if wanted[key].shape != tensors[key].shape]
    if odd:
        message = f"{who}: it returned a network of another shape than the owner's model ({odd[0].removeprefix('body.')!r} differs)"
        raise InputError(message)
    copied = private_copy(owner)
    place(copied, tensors, who)
    return copied.eval()


def imported(name: str) -> Train:
    """Return the function called ``package.module:function``; the current folder is the last place that is searched.

    Raises
    ------
    UnsafeFileError
        when nobody named it in this process: code runs only because a person asked for it.
    InputError
        when there is none.
    """
    if not consent.is_given(name):
        message = f"{name} is code, and it is imported only when you name it: pass --train {name} if you trust it"
        raise UnsafeFileError(message)
    module_name, _, attribute = name.partition(":")
    importlib.invalidate_caches()
    try:
        with forked(generator(0)), here():
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        message = f"--train {name}: importing it raised {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
        raise InputError(message) from error
    function: Any = getattr(module, attribute, None)
    if not callable(function):
        known = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        message = f"--train {name}: the module has no function {attribute!r}{nearest(attribute, known)}"
        raise InputError(message)
    found: Train = function
    return found
