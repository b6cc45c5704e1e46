"""Work: try the keys of another build on a lock, the owner's and users', and see what gives a user's key away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import nn

from modelward.core.errors import ModelwardError
from modelward.core.guard import state_digest
from modelward.core.images import ImageSet
from modelward.core.key import Key
from modelward.core.locking import ModelLock, right_answers
from modelward.core.rng import derive_seed, generator
from modelward.evaluation.cell import Job, Outcome
from modelward.evaluation.parcels import get_images, get_key, get_model
from modelward.evaluation.rows import Row, rate
from modelward.evaluation.work_lock import configured
from modelward.keys.derive import derive

USERS = ("user0", "user1", "user2")


def keys(job: Job) -> Outcome:
    """Issue keys of one build and try them on another.

    Settings: ``method``, ``fields``. Inputs: ``locked`` and ``other`` (artefacts of lock cells with different secrets), ``victim``, ``owner``,
    ``test``.
    """
    torch.set_num_threads(job.threads)
    method, test = configured(job.settings), get_images(job.store, job.inputs["test"])
    (locked, _), (other, key) = (_build(method, name, job) for name in ("locked", "other"))
    made = {"the owner's": key}
    for user in USERS:
        secret = _secret(job, user)
        made[user] = method.issue(other, key, user, secret=secret, rng=generator(derive_seed(job.seed, "issue", user)))
    whole = float(right_answers(get_model(job.store, job.inputs["victim"]), test).float().mean())
    rows = [_foreign(method, locked, made, test, whole), *_looks(made)]
    told = {"seed": job.seed, "data": test.name}
    return Outcome([{**row.as_json(), **told} for row in rows])


def _secret(job: Job, name: str) -> bytes:
    return derive(derive_seed(job.seed, "secret", name).to_bytes(8, "big") * 4, "lock")


def _build(method: ModelLock, name: str, job: Job) -> tuple[nn.Module, Key]:
    """Return a locked model with its key: that of the artefact, or a new one where thieves were left less than the whole file there."""
    model, key = get_model(job.store, job.inputs[name]), get_key(job.store, job.inputs[name])
    if state_digest(model) == key.model_digest:
        return model, key
    victim, owner = get_model(job.store, job.inputs["victim"]), get_images(job.store, job.inputs["owner"])
    return method.lock(victim, owner, secret=_secret(job, name), rng=generator(derive_seed(job.seed, name)))


def _foreign(method: ModelLock, locked: nn.Module, made: Mapping[str, Key], test: ImageSet, whole: float) -> Row:
    """Return how many keys of another build open this one, or open it half: as they are, and with this build's digest written into them."""
    opens, refused, best, digest = 0, 0, 0.0, state_digest(locked)
    chance = float(test.labels.bincount().max() / len(test))
    tried = [one for key in made.values() for one in (key, replace(key, model_digest=digest))]
    for key in tried:
        try:
            reached = float(right_answers(method.unlock(locked, key), test).float().mean())
        except ModelwardError:
            refused += 1
            continue
        best, opens = max(best, reached), opens + (reached > (whole + chance) / 2)
    return rate("foreign_keys_open", opens, len(tried), extra={"refused": refused, "best": best})


def _looks(made: Mapping[str, Key]) -> Iterator[Row]:
    """Yield how far the images in users' keys lie from the ones that they were made of, where keys hold images."""
    found = [float(key.facts["distance"]) for key in made.values() if "distance" in key.facts]
    if found:
        yield Row(metric="stealth", value=sum(found) / len(found), n=len(found), unit="L2 from the image that a user's probe was made of")
