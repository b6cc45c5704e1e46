"""Work: lock a model, and measure what its key's holder and everybody else can do with it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from modelward.core.catalogue import find
from modelward.core.errors import ModelwardError, UsageError
from modelward.core.guard import state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.locking import ModelLock, issued_to, right_answers
from modelward.core.rng import derive_seed, generator
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_model, pack_key
from modelward.evaluation.rows import Row, points_lost, rate
from modelward.keys.derive import derive

GUESSES, USERS, RUNS, ASKED = 20, 3, 9, 256


def configured(settings: Mapping[str, Any]) -> ModelLock:
    """Return the lock of a cell's settings."""
    method = find(settings["method"]).configured(dict(settings["fields"]))
    if not isinstance(method, ModelLock):
        message = f"{settings['method']} locks no model"
        raise UsageError(message)
    return method


def lock(job: Job) -> Outcome:
    """Lock, and measure without any attack; the artefact holds the locked model and its key.

    Settings: ``method``, ``fields``. Inputs: ``victim``, ``owner``, ``test``.
    """
    torch.set_num_threads(job.threads)
    method, victim = configured(job.settings), get_model(job.store, job.inputs["victim"])
    data, test = get_images(job.store, job.inputs["owner"]), get_images(job.store, job.inputs["test"])
    secret = derive(derive_seed(job.seed, "secret").to_bytes(8, "big") * 4, "lock")
    started = time.perf_counter()
    locked, key = method.lock(victim, data, secret=secret, rng=generator(job.seed))
    spent = time.perf_counter() - started
    opened = method.unlock(locked, key)
    found = [
        *_accuracies(method, victim, locked, opened, test),
        *_fidelity(victim, opened, test),
        *_stealth(method, victim, locked, key, test),
    ]
    found += [*_guessing(method, locked, key, victim, test, job), *_users(method, locked, key, job), _latency(victim, opened, test)]
    found.append(Row(metric="lock_seconds", value=spent, n=1, unit="seconds", seconds=spent, extra={"entries": key.facts.get("entries")}))
    same = state_digest(opened) == state_digest(victim)
    found.append(rate("restored", int(same), 1, extra={"exact": method.exact}))
    told = {"method": method.card.name, "variant": method.variant, "seed": job.seed, "data": test.name}
    rest = method.stripped(locked)
    packed = pack_key(key, locked if rest is None else rest)  # thieves begin with what is left when the lock is cut out
    return Outcome([{**row.as_json(), **told} for row in found], packed.arrays, packed.facts)


def _accuracies(method: ModelLock, victim: nn.Module, locked: nn.Module, opened: nn.Module, test: ImageSet) -> list[Row]:
    """Return the accuracy of the original, of who holds the key, of who lacks it, and of who cuts the lock out of the file."""
    models = {"original": victim, "authorised": opened, "unauthorised": locked, "stripped": method.stripped(locked)}
    extra = {"chance": float(test.labels.bincount().max() / len(test))}
    return [
        rate(name, int(right_answers(model, test).sum()), len(test), extra=extra) for name, model in models.items() if model is not None
    ]


def _fidelity(victim: nn.Module, opened: nn.Module, test: ImageSet) -> list[Row]:
    """Return what locking costs whoever holds the key, paired over the test images."""
    before, after = (right_answers(model, test).numpy().astype(float) for model in (victim, opened))
    return [points_lost(before, after)]


def _stealth(method: ModelLock, victim: nn.Module, locked: nn.Module, key: Key, test: ImageSet) -> list[Row]:
    """Return what gives the lock away, in the unit that the method says."""
    found = method.stealth(victim, locked, key, test)
    return [Row(metric="stealth", value=value, n=1, unit=unit) for unit, value in found.items()]


def _guessing(method: ModelLock, locked: nn.Module, key: Key, victim: nn.Module, test: ImageSet, job: Job) -> list[Row]:
    """Return how many keys of the right form and random content open the model, or open it half."""
    rng, opens, best = generator(derive_seed(job.seed, "guesses")), 0, 0.0
    whole, chance = float(right_answers(victim, test).float().mean()), float(test.labels.bincount().max() / len(test))
    for _ in range(GUESSES):
        try:
            reached = float(right_answers(method.unlock(locked, shuffled(key, rng=rng)), test).float().mean())
        except ModelwardError:
            continue
        best, opens = max(best, reached), opens + (reached > (whole + chance) / 2)
    return [rate("guessed_keys_open", opens, GUESSES, extra={"best": best})]


def shuffled(key: Key, *, rng: torch.Generator) -> Key:
    """Return a key of the right form and random content: every array in a random order.

    >>> key = Key("advparams", "hardened", "0" * 64, {}, {"index": torch.arange(50)})
    >>> guess = shuffled(key, rng=generator(0)).tensors["index"]
    >>> bool((guess == key.tensors["index"]).all()), bool((guess.sort()[0] == key.tensors["index"]).all())
    (False, True)
    """
    made = {
        name: tensor.reshape(-1)[torch.randperm(tensor.numel(), generator=rng)].view(tensor.shape) for name, tensor in key.tensors.items()
    }
    return replace(key, tensors=made)


def _users(method: ModelLock, locked: nn.Module, key: Key, job: Job) -> list[Row]:
    """Return what issuing a user's key takes, and whether each key names its own user."""
    named, spent = 0, []
    for number in range(USERS):
        secret = derive(derive_seed(job.seed, "user", number).to_bytes(8, "big") * 4, "user")
        started = time.perf_counter()
        made = method.issue(locked, key, f"user{number}", secret=secret, rng=generator(derive_seed(job.seed, "issue", number)))
        spent.append(time.perf_counter() - started)
        named += issued_to(made, secret) == f"user{number}"
    return [
        rate("users_named", named, USERS),
        Row(metric="issue_seconds", value=statistics.median(spent), n=USERS, unit="seconds", seconds=sum(spent)),
    ]


def _latency(victim: nn.Module, opened: nn.Module, test: ImageSet) -> Row:
    """Return how long an authorised answer takes beside a plain one: the median over runs that take turns."""
    x, ratios = test.batch(slice(0, ASKED)), []
    with torch.inference_mode():
        for _ in range(RUNS):
            spent = []
            for model in (victim, opened):
                started = time.perf_counter()
                model(x)
                spent.append(time.perf_counter() - started)
            ratios.append(spent[1] / spent[0])
    return Row(metric="latency", value=statistics.median(ratios), n=RUNS, unit="ratio")
