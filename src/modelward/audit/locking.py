"""Lock a model, and open a locked one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from modelward.audit.question import Question, cell_seed, prepare
from modelward.core.catalogue import find
from modelward.core.errors import UsageError
from modelward.core.key import Key
from modelward.core.locking import LockMethod, ModelLock, right_answers
from modelward.core.rng import generator
from modelward.evaluation.store import Store
from modelward.models import load_model
from modelward.models.assembly import Assembly
from modelward.statistics import wilson

WEAK = 0.15


@dataclass(frozen=True, eq=False)
class Locked:
    """What locking gives: the model to hand out, the key to keep, accuracy on the test images before and after, and what guessing reaches.

    ``stripped`` is the accuracy of whoever cuts the lock out of the file; ``None`` where there is nothing to cut out, or nothing handed out.
    """

    model: nn.Module
    key: Key
    before: float
    after: float
    images: int
    chance: float
    stripped: float | None = None

    @property
    def weak(self) -> bool:
        """Whether whoever lacks the key still has a good part of the model, as it is or with the lock cut out."""
        return max(self.after, self.stripped or 0.0) > self.chance + WEAK

    @property
    def idle(self) -> bool:
        """Whether the model was no better than guessing before it was locked, as one that is locked already."""
        return wilson(round(self.before * self.images), self.images).low <= self.chance


def locking(method: str, settings: dict[str, Any]) -> LockMethod:
    """Return the lock called ``method``; raises `UsageError` for another family."""
    found = find(method).configured(settings)
    if not isinstance(found, LockMethod):
        message = f"{method} is of the family {found.family}, it locks nothing; `modelward methods` lists the locks"
        raise UsageError(message)
    return found


def _of_models(method: str, settings: dict[str, Any]) -> ModelLock:
    """Return a lock of models; raises `UsageError` for one of images."""
    found = locking(method, settings)
    if not isinstance(found, ModelLock):
        message = f"{method} locks images, not a model"
        raise UsageError(message)
    return found


def lock(method: str, settings: dict[str, Any], question: Question, *, store: Store, secret: bytes | None = None) -> Locked:
    """Return the locked model of a question, and its key.

    Parameters
    ----------
    method, settings
        a lock by name, and its hyper-parameters.
    question
        the model and its data.
    secret
        what the lock is derived from; drawn when absent.
    """
    chosen = _of_models(method, settings)
    ground = prepare(question, store)
    model, test = ground.loaded.model, ground.study.test
    if isinstance(model, Assembly):
        message = f"this file is locked or wrapped already, by {model.maker.card.name}: lock the network that lies inside, `modelward unlock` gives it back"
        raise UsageError(message)
    locked, key = chosen.lock(model, ground.study.owner, secret=secret, rng=generator(cell_seed(ground, "lock")))
    rest = None if getattr(chosen, "delivery", "") == "server" else chosen.stripped(locked)
    before, after = (float(right_answers(one, test).float().mean()) for one in (model, locked))
    cut = None if rest is None else float(right_answers(rest, test).float().mean())
    facts = {**key.facts, "data": ground.splits.name, "arch": ground.loaded.arch}
    chance = float(test.labels.bincount().max() / len(test))
    return Locked(locked, replace(key, facts=facts), before, after, len(test), chance, cut)


@dataclass(frozen=True, eq=False)
class Opened:
    """What unlocking gives: a model, and whether it is the original byte for byte."""

    model: nn.Module
    exact: bool


def unlock(path: Path, key: Key, arch: str | None = None) -> Opened:
    """Return the model in ``path``, opened with ``key``.

    Raises
    ------
    InputError
        for a key of another model, or one that lacks entries.
    """
    method = _of_models(key.method, {})
    return Opened(method.unlock(load_model(path, arch).model, key), method.exact)
