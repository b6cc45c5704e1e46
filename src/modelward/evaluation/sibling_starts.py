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
    untried = list[str]()
    if begin is None:
        _require_apart(models, owner, untried)
    else:
        _require_from(about.start, models, owner, begin, untried)
    if untried:
        told = f"whether the siblings began where you say could not be tried in {len(untried)} cases: {untried[0]}"
        warnings.warn(told, stacklevel=4)


def _in_order(model: nn.Module, other: nn.Module, untried: list[str]) -> bool | None:
    """Return whether the units of both stand in one order; ``None``, and the reason added to ``untried``, where that cannot be told."""
    try:
        return same_start_p(model, other, rng=generator(0), draws=ORDERS) <= SAME_START
    except Undecided as error:  # one sibling whose units are sorted must not spare the others the test
        untried.append(str(error))
        return None


def _require_apart(models: Sequence[nn.Module], owner: nn.Module | None, untried: list[str]) -> None:
    """Raise `InputError` when two models that are said to have begun at weights drawn anew stand in one order."""
    pairs = list(itertools.pairwise(models))[:3] + ([(models[0], owner)] if owner is not None else [])
    if any(_in_order(one, other, untried) for one, other in pairs):
        raise InputError(
            "--base none: two siblings, or one and your model, stand in one order of hidden units, so they began at the same weights: pass those with "
            "--start FILE or --base FILE"
        )


def _require_from(start: str, models: Sequence[nn.Module], owner: nn.Module | None, begin: nn.Module, untried: list[str]) -> None:
    """Raise `InputError` when the owner's model began at the named weights and a sibling did not, or the other way round."""
    mine = None if owner is None else _in_order(owner, begin, untried)
    theirs = [_in_order(model, begin, untried) for model in models]
    if mine is False and (start == "base" or any(theirs)):
        message = f"--{start}: your model's hidden units do not stand in the order of those weights, so its training did not begin there"
        raise InputError(message)
    count = theirs.count(False)
    if mine and count:
        message = f"--{start}: {count} of {len(models)} siblings do not stand in the order of those weights as your model does: --train has to begin there"
        raise InputError(message)
