"""Whether siblings began where their owner says: by the order of their hidden units, which training keeps."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence

from torch import nn

from modelward.core.errors import InputError, Undecided
from modelward.core.rng import generator
from modelward.core.siblings import Siblings
from modelward.marking.unit_orders import same_start_p

SAME_START, ORDERS = 0.001, 1999


def require_start(about: Siblings, models: Sequence[nn.Module], owner: nn.Module | None, begin: nn.Module | None) -> None:
    """Raise `InputError` when siblings by the owner's code did not begin where he says; those by our recipe do so by construction.

    Parameters
    ----------
    about
        what is said of the siblings.
    models, owner
        the siblings, and the owner's model where it is there.
    begin
        the named weights; ``None`` where none are named, and then no two models may stand in one order.
    """
    if about.origin != "code" or not models:
        return
    try:
        if begin is None:
            _require_apart(models, owner)
        else:
            _require_from(about.start, models, owner, begin)
    except Undecided as error:
        warnings.warn(f"whether the siblings began where you say could not be tried: {error}", stacklevel=4)


def _in_order(model: nn.Module, other: nn.Module) -> bool:
    """Return whether the units of both stand in one order."""
    return same_start_p(model, other, rng=generator(0), draws=ORDERS) <= SAME_START


def _require_apart(models: Sequence[nn.Module], owner: nn.Module | None) -> None:
    """Raise `InputError` when two models that are said to have begun at weights drawn anew stand in one order."""
    pairs = list(itertools.pairwise(models))[:3] + ([(models[0], owner)] if owner is not None else [])
    if any(_in_order(one, other) for one, other in pairs):
        raise InputError(
            "--base none: two siblings, or one and your model, stand in one order of hidden units, so they began at the same weights: pass those with "
            "--start FILE or --base FILE"
        )


def _require_from(start: str, models: Sequence[nn.Module], owner: nn.Module | None, begin: nn.Module) -> None:
    """Raise `InputError` when the owner's model began at the named weights and a sibling did not, or the other way round."""
    mine = owner is None or _in_order(owner, begin)
    theirs = [_in_order(model, begin) for model in models]
    if not mine and (start == "base" or any(theirs)):
        message = f"--{start}: your model's hidden units do not stand in the order of those weights, so its training did not begin there"
        raise InputError(message)
    if mine and owner is not None and not all(theirs):
        count = theirs.count(False)
        message = f"--{start}: {count} of {len(models)} siblings do not stand in the order of those weights as your model does: --train has to begin there"
        raise InputError(message)
