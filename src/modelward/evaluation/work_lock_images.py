"""Work: lock images, and measure what networks learn that are trained on them, by who holds the key and by who lacks it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

import torch

from modelward.core.catalogue import find
from modelward.core.errors import ModelwardError, UsageError
from modelward.core.image_locks import DataLock, LockedImages
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.rng import derive_seed, generator
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.image_thieves import School, attempts
from modelward.evaluation.parcels import get_images, get_model, pack_key
from modelward.evaluation.rows import Row, rate
from modelward.evaluation.work_lock import GUESSES, shuffled
from modelward.imaging.quality import psnr
from modelward.imaging.quantise import to_float
from modelward.keys.derive import derive

LOST = 0.3  # what locked images are to cost whoever learns from them
USERS = ("user0", "user1", "user2")
EPS, FEW = 16, 64  # grey levels, where a lock does not say; images of the other set whose key is tried


def lock(job: Job) -> Outcome:
    """Lock images, train networks on what is published, and measure them on clean test images; the artefact holds the key.

    Settings: ``method``, ``fields``, ``arch``. Inputs: ``victim`` (the surrogate), ``owner``, ``attacker``, ``test``.
    """
    torch.set_num_threads(job.threads)
    method = find(job.settings["method"]).configured(dict(job.settings["fields"]))
    if not isinstance(method, DataLock):
        message = f"{job.settings['method']} locks no images"
        raise UsageError(message)
    owner, own, test = (get_images(job.store, job.inputs[name]) for name in ("owner", "attacker", "test"))
    secret = derive(derive_seed(job.seed, "secret").to_bytes(8, "big") * 4, "lock")
    started = time.perf_counter()
    locked, key = method.lock(owner, get_model(job.store, job.inputs["victim"]), secret=secret, rng=generator(job.seed))
    spent = time.perf_counter() - started
    same = int((method.unlock(locked, key).pixels == owner.pixels).flatten(1).all(1).sum())
    school = School(job.settings["arch"], test, job.seed, {})
    found = [whole := school.learn("original", owner)]
    school = replace(school, said={"ceiling": whole.value - LOST})
    found.append(school.row("unauthorised", published := school.net(locked.images)))
    if same == len(owner):  # the same images and the same seed are the same network
        found.append(replace(found[0], metric="authorised"))
    eps = float(getattr(method, "eps", EPS)) / 255
    found += [*attempts(school, locked.images, own, published, eps), school.learn("equal_noise", _noisy(owner, locked.images, job))]
    found += [
        rate("restored", same, len(owner), extra={"exact": method.exact}), _guessing(method, locked, key, owner, job),
        _foreign(method, locked, key, owner, job), *_customers(method, locked, key),
        Row(metric="stealth", value=float(psnr(to_float(owner.pixels), to_float(locked.images.pixels)).mean()), n=len(owner), unit="dB"),
        Row(metric="lock_seconds", value=spent, n=1, unit="seconds", seconds=spent),
    ]  # fmt: skip
    told = {"method": method.card.name, "variant": method.variant, "seed": job.seed, "data": test.name}
    packed = pack_key(key)
    return Outcome([{**row.as_json(), **told} for row in found], packed.arrays, packed.facts)


def _noisy(owner: ImageSet, locked: ImageSet, job: Job) -> ImageSet:
    """Return the clean images under noise of the lock's own size: each image's change, its signs drawn anew."""
    rng = generator(derive_seed(job.seed, "noise"))
    change = (locked.pixels.to(torch.int16) - owner.pixels.to(torch.int16)).abs()
    signs = torch.randint(0, 2, change.shape, generator=rng, dtype=torch.int16) * 2 - 1
    return replace(owner, pixels=(owner.pixels.to(torch.int16) + change * signs).clamp(0, 255).to(torch.uint8))


def _guessing(method: DataLock, locked: LockedImages, key: Key, owner: ImageSet, job: Job) -> Row:
    """Return how many keys of the right form and random content give images back."""
    rng, opens = generator(derive_seed(job.seed, "guesses")), 0
    for _ in range(GUESSES):
        try:
            opens += bool((method.unlock(locked, shuffled(key, rng=rng)).pixels == owner.pixels).all())
        except ModelwardError:
            continue
    return rate("guessed_keys_open", opens, GUESSES)


def _foreign(method: DataLock, locked: LockedImages, key: Key, owner: ImageSet, job: Job) -> Row:
    """Return how many keys of another set open this one: as they are, and with this set's name and digest written into them."""
    few, secret = owner.few(FEW), derive(derive_seed(job.seed, "another set").to_bytes(8, "big") * 4, "lock")
    _, other = method.lock(few, get_model(job.store, job.inputs["victim"]), secret=secret, rng=generator(derive_seed(job.seed, "other")))
    forged = replace(other, model_digest=key.model_digest, facts={**other.facts, "set": key.facts.get("set")})
    opens = 0
    for tried in (other, forged):
        try:
            opens += bool((method.unlock(locked, tried).pixels == owner.pixels).all())
        except ModelwardError:
            continue
    return rate("foreign_keys_open", opens, 2)


def _customers(method: DataLock, locked: LockedImages, key: Key) -> Iterator[Row]:
    """Yield how many copies that were opened for a user name that user, and nobody else more often, and how long a user's copy takes."""
    named, spent = 0, []
    for user in USERS:
        started = time.perf_counter()
        copy = method.unlock(locked, key, user=user)
        spent.append(time.perf_counter() - started)
        votes = method.traced(copy, locked, key, USERS)
        named += max(votes, key=lambda name: votes[name], default=None) == user
    yield rate("users_named", named, len(USERS))
    yield Row(metric="issue_seconds", value=statistics.median(spent), n=len(USERS), unit="seconds", seconds=sum(spent))
