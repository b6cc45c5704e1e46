"""Keys that are not the owner's: guessed, neighbours of it, and made for a model of somebody else after the fact; always the best of q."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from modelward.core.errors import InputError
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.ownership import OwnershipMethod
from modelward.core.rng import derive_seed, generator, spawn
from modelward.core.siblings import Siblings
from modelward.core.suspect import Suspect
from modelward.core.verdict import Verdict
from modelward.evaluation.dating import YOUNGER
from modelward.evaluation.rows import Row, rate
from modelward.keys.derive import derive
from modelward.ownership.deepmarks import DeepMarks
from modelward.ownership.infip import InFIP
from modelward.ownership.mark import MarkMethod

TRIES = (1, 10, 100, 1000)
MOST_FORGERIES = 100
NEAR, MOST_NEAR = 5, 20  # one neighbour of each kind to so many guesses, and how many at most
NO_FORGERY = (
    "this fingerprint is read off a model as it is: whoever enrols somebody else's model has a key that fits, and only dates tell whose was "
    "first; no other way to choose its probes was tried"
)


def secret_of(seed: int) -> bytes:
    """Return the master secret of a cell of the matrix."""
    return derive(derive_seed(seed, "secret").to_bytes(8, "big") * 4, "matrix")


def guessing(method: OwnershipMethod, model: nn.Module, key: Key, data: ImageSet, *, source: nn.Module, seed: int, count: int) -> list[Row]:
    """Return how often keys of others fit the protected model at the threshold of its own key, and the best of q guesses.

    Guesses are made for ``source``, the model before it was marked, and have random secrets; beside them stand the neighbours of the key: other
    users of the same master, and the same master with one bit changed. ``extra["kinds"]`` tells them apart.
    """
    limit = method.verify(Suspect.of_model(model), key).threshold
    if limit is None or not isinstance(method, MarkMethod):
        return []
    rng, scores = generator(derive_seed(seed, "guesses")), dict[str, list[float]]()
    for kind, other, secret in _others(method, seed, count):
        scores.setdefault(kind, []).append(other.glance(model, data, secret=secret, source=source, rng=generator(spawn(rng))))
    kinds = {kind: {"n": len(found), "fit": sum(score <= limit for score in found), "best": min(found)} for kind, found in scores.items()}
    every = [score for found in scores.values() for score in found]
    extra = {**best_of(scores["random secret"], limit), "best_statistic": min(every), "threshold": limit, "kinds": kinds}
    return [rate("key_specificity", sum(score <= limit for score in every), len(every), extra=extra)]


def _others(method: MarkMethod, seed: int, count: int) -> Iterator[tuple[str, MarkMethod, bytes]]:
    """Yield what kind of key it is, and the method and secret that it is made with."""
    own = secret_of(seed)
    for number in range(count):
        yield "random secret", method, derive(seed.to_bytes(8, "big") * 4, "guess", str(number))
    near = min(MOST_NEAR, max(1, count // NEAR))
    for number in range(near):
        yield "other user", _of_user(method, number + 1), own
    for number in range(near):
        place = (number * 8 * len(own) // near) % (8 * len(own))
        flipped = bytes(byte ^ (1 << place % 8) if where == place // 8 else byte for where, byte in enumerate(own))
        yield "secret with one bit changed", method, flipped


def _of_user(method: MarkMethod, number: int) -> MarkMethod:
    """Return the method for another user of the same master: one with a codeword of his own, where users have such."""
    if isinstance(method, DeepMarks):
        return replace(method, number=(method.number + 1 + (number - 1) % (method.users - 1)) % method.users)
    return replace(method, user=f"user {number}")


def best_of(scores: Sequence[float], limit: float) -> dict[str, Any]:
    """Return the smallest of the first q statistics for each q that was reached, and whether it fits.

    Examples
    --------
    >>> best_of([0.5, 0.4], 0.45)
    {'best': {'1': 0.5, '2': 0.4}, 'best_of': {'1': False, '2': True}}
    """
    reached = dict.fromkeys([*(q for q in TRIES if q <= len(scores)), len(scores)])
    best = {str(q): min(scores[:q]) for q in reached}
    return {"best": best, "best_of": {q: bool(score <= limit) for q, score in best.items()}}


def forging(
    method: OwnershipMethod, strangers: Sequence[nn.Module], data: ImageSet, nulls: Sequence[nn.Module], *, siblings: Siblings, seed: int, count: int
) -> list[Row]:  # fmt: skip
    """Return whether a key can be made to fit a model of somebody else after the fact, by the best of up to ``count`` tries; the first that fits ends it.

    A forger calibrates his key as honest owners do; of a fingerprint he passes off ``siblings`` of the source as his own.
    """
    if not strangers:
        return []
    if not isinstance(method, MarkMethod | InFIP):
        return [Row(metric="forged_key_fits", value=float("nan"), n=0, flags=(NO_FORGERY,))]
    found: list[tuple[Verdict, Key]] = []
    try:
        for forged in _forged(method, strangers, data, nulls, siblings=siblings, seed=seed, count=count):
            found.append((method.verify(Suspect.of_model(strangers[0]), forged, commitment=YOUNGER), forged))
            if found[-1][0].matches:
                break
    except InputError as error:
        if not found:
            return [Row(metric="forged_key_fits", value=float("nan"), n=0, flags=(str(error),))]
    return [_best_forgery(found, method)]


def _best_forgery(found: Sequence[tuple[Verdict, Key]], method: OwnershipMethod) -> Row:
    """Return the row of all that was forged."""
    last, key = min(found, key=lambda pair: (not pair[0].matches, pair[0].statistic))
    limit = last.threshold
    tried = best_of([verdict.statistic for verdict, _ in found], -1.0 if limit is None else limit)
    extra = {
        **tried, "statistic": last.statistic, "decision": last.decision.value, "threshold": limit, "tries": key.facts.get("tries"),
        "how": "probes chosen on a model of somebody else after the fact" if isinstance(method, InFIP) else "made for a model of somebody else after the fact",
    }  # fmt: skip
    return rate("forged_key_fits", int(last.matches), len(found), extra=extra)


def _forged(
    method: MarkMethod | InFIP, strangers: Sequence[nn.Module], data: ImageSet, nulls: Sequence[nn.Module], *, siblings: Siblings, seed: int, count: int
) -> Iterator[Key]:  # fmt: skip
    """Yield forged keys for the first of ``strangers``."""
    for number in range(min(count, MOST_FORGERIES)):
        told = () if number == 0 else (str(number),)
        rng = generator(derive_seed(seed, "forgery", *told))
        if isinstance(method, InFIP):
            if number + 1 == len(strangers):  # each try needs another model of the forger's own
                return
            yield _chosen(method, strangers[number + 1], strangers[0], data, siblings, seed=derive_seed(seed, "forgery", *told))
        else:
            secret = derive(seed.to_bytes(8, "big") * 4, "forgery", *told)
            yield method.forge(strangers[0], data, secret=secret, nulls=nulls, rng=rng)


def _chosen(method: InFIP, own: nn.Module, innocent: nn.Module, data: ImageSet, siblings: Siblings, *, seed: int) -> Key:
    """Return a key of the forger's ``own`` model whose probes are those images on which the innocent one explains itself most alike."""
    wide = replace(method, count=len(data), pool=1, confidence=0.0)
    _, key = wide.protect(own, data, siblings=siblings, rng=generator(seed))
    alike = wide.similarity(wide.observe(innocent, key), key).mean(0)
    best = key.tensor("index")[alike.argsort(descending=True)[: method.count]]
    _, forged = replace(method, pool=1, confidence=0.0).protect(own, data.take(best), siblings=siblings, rng=generator(seed))
    return forged
